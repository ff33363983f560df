"""One worker that writes many answers at once: requests join and leave between two tokens.

An answer depends on its own prompt, settings and seed, not on the answers beside it: rows share products of matrices and nothing else.
Greedy answers are those of `core/generate.py`, up to exact ties. The subject is read, never changed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from letheon.core.errors import LetheonError
from letheon.core.forward import unwrapped
from letheon.core.generate import context, ends
from letheon.core.products import fast_products
from letheon.core.run import kept_as_found
from letheon.core.subject import Subject
from letheon.maths.likelihood import Head

from .choosing import chosen, facts, prompt_facts
from .errors import place_of
from .settings import ServeSettings
from .slots import Reread, Slots, fits
from .speech import Ask, Piece, Speech

log = logging.getLogger("letheon.serve")
READ = {"cpu": 2048}  # prompt tokens read at once before the others go on


class Busy(LetheonError):
    """More answers wait than may wait, or an answer could not begin in time."""


class Broken(LetheonError):
    """The model failed while it answered."""


class Answers:
    """The answers to one request, as they are written. Iterate over it once; leave the loop and they are given up."""

    def __init__(self, count: int):
        self._loop, self._queue = asyncio.get_running_loop(), asyncio.Queue[list[tuple[int, Piece]] | LetheonError]()
        self._open, self.gone = count, False

    def post(self, what: list[tuple[int, Piece]] | LetheonError) -> None:
        """Called by the worker."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, what)

    async def __aiter__(self) -> AsyncIterator[tuple[int, Piece]]:
        """Pieces with the number of the answer that they belong to.

        Raises:
            Busy: none of the answers could begin in time.
            Broken: the model failed.
        """
        try:
            while self._open:
                found = await self._queue.get()
                if isinstance(found, LetheonError):
                    raise found
                for index, piece in found:
                    self._open -= piece.ending is not None
                    yield index, piece
        finally:
            self.gone = True


@dataclass
class _Row:
    speech: Speech
    answers: Answers
    index: int
    until: float  # monotonic time

    @property
    def tokens(self) -> int:
        return len(self.speech.ask.prompt) + self.speech.ask.room


class Engine:
    """A subject and the worker that lets it answer.

    Args:
        subject: a causal language model with its guards.
        limits: how much at once, and for how long.
    """

    def __init__(self, subject: Subject, limits: ServeSettings):
        self.subject, self.limits = subject, limits
        self.context, self.ends, self.fingerprint = context(subject), ends(subject), f"fp_{subject.digest[:16]}"
        self.vocabulary = unwrapped(subject.module).get_input_embeddings().weight.shape[0]
        self._waiting: deque[_Row] = deque()
        self._live: list[_Row] = []
        self._kind: type[Slots] | type[Reread] | None = None
        self._wake, self._closing, self._drop = threading.Condition(), False, False
        self._thread = threading.Thread(target=self._work, name="letheon-engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Answers that wait or are being written."""
        return len(self._waiting) + len(self._live)

    def submit(self, asks: Sequence[Ask]) -> Answers:
        """Ask for answers; they come in the order in which they are ready.

        Raises:
            Busy: the queue is full, or the worker has ended.
        """
        answers, until = Answers(len(asks)), time.monotonic() + self.limits.request_seconds
        rows = [_Row(Speech(ask, self.subject.encoder.tokenizer, self.ends), answers, k, until) for k, ask in enumerate(asks)]
        with self._wake:
            if self._closing:
                raise Busy("The server is ending")
            self._waiting = deque(row for row in self._waiting if not row.answers.gone)
            if self._waiting and len(self._waiting) + len(rows) > self.limits.queue:
                raise Busy(f"{len(self._waiting)} answers are waiting, and no more than {self.limits.queue} may")
            self._waiting.extend(rows)
            self._wake.notify()
        return answers

    def close(self, *, drop: bool = False, wait: bool = False) -> None:
        """Take no more requests and end when all answers are written, or at once.

        Args:
            drop: give up answers that are not written yet.
            wait: until the worker has ended.
        """
        with self._wake:
            self._closing, self._drop = True, self._drop or drop
            self._wake.notify()
        if wait:
            self._thread.join()

    def _work(self) -> None:
        module = self.subject.module
        with torch.no_grad(), kept_as_found(module), torch.autocast(self.subject.device.type, enabled=False), fast_products(module):
            while True:
                try:
                    if not self._serve():
                        return
                except Exception as error:  # out of memory, a damaged model: those who wait are told, the next ones are served
                    log.error("The model failed: %s in %s", type(error).__name__, place_of(error))
                    self._fail(Broken(f"The model failed ({type(error).__name__})"))

    def _serve(self) -> bool:
        """Answer until nothing is left to do and the engine is closed (false)."""
        rows, hidden = self._empty(), None
        while True:
            with self._wake:
                while not (self._waiting or self._live or self._closing):
                    self._wake.wait()
                if self._drop or (self._closing and not (self._waiting or self._live)):
                    self._fail_locked(Busy("The server is ending"))
                    return False
                fresh = self._admitted()
            if fresh:
                new, head = self._begun(rows, fresh)
                hidden = new if hidden is None else torch.cat([hidden, new])
            if hidden is None:
                continue
            tokens = self._said(head.logits(hidden))
            staying = self._kept()
            rows.keep(staying)
            self._live = [self._live[k] for k in staying]
            hidden = rows.step(tokens[staying]) if staying else None
            head = rows.head
            if not staying:
                rows = self._empty()

    def _empty(self) -> Slots | Reread:
        module, pad = self.subject.module, self.subject.encoder.pad
        if self._kind is None:
            self._kind = Slots if fits(module, pad) else Reread
        return self._kind(module, pad)

    def _admitted(self) -> list[_Row]:
        """Rows that join now: as many as slots, memory and one reading allow."""
        found: list[_Row] = []
        longest, read, now = max((row.tokens for row in self._live), default=0), 0, time.monotonic()
        while self._waiting and len(self._live) + len(found) < self.limits.batch:
            row = self._waiting[0]
            if row.answers.gone or row.until < now:
                self._waiting.popleft()
                if not row.answers.gone:
                    row.answers.post(Busy(f"No answer could begin within {self.limits.request_seconds:g} seconds"))
                continue
            count, longest, read = len(self._live) + len(found), max(longest, row.tokens), read + len(row.speech.ask.prompt)
            most = READ.get(self.subject.device.type, 16384)
            if count and ((count + 1) * longest > self.limits.cache_tokens or (found and read > most)):
                break
            found.append(self._waiting.popleft())
        self._live += found
        return found

    def _begun(self, rows: Slots | Reread, fresh: list[_Row]) -> tuple[Tensor, Head]:
        """Read the prompts of rows that join; the hidden states (new, d) from which they go on."""
        states = rows.join([row.speech.ask.prompt for row in fresh])
        for row, line in zip(fresh, states, strict=True):
            ask = row.speech.ask
            if ask.echo:
                asked = ask.logprobs is not None
                row.answers.post([(row.index, row.speech.echoed(prompt_facts(line, rows.head, ask) if asked else []))])
        lengths = [len(row.speech.ask.prompt) - 1 for row in fresh]
        return states[torch.arange(len(fresh), device=states.device), lengths], rows.head

    def _said(self, logits: Tensor) -> Tensor:
        """Let every row say its next token; the tokens (live,)."""
        tokens = chosen(logits, [row.speech for row in self._live])
        wanted = [k for k, row in enumerate(self._live) if row.speech.ask.logprobs is not None]
        counts = [self._live[k].speech.ask.logprobs or 0 for k in wanted]
        thought = dict(zip(wanted, facts(logits[wanted], tokens[wanted], counts), strict=True))
        broken = logits.isnan().any(-1).tolist()
        pieces: dict[Answers, list[tuple[int, Piece]]] = {}
        now = time.monotonic()
        for k, (row, token) in enumerate(zip(self._live, tokens.tolist(), strict=True)):
            speech = row.speech
            if broken[k]:
                speech.ending = "stop"
                row.answers.post(Broken("The model gives NaN: its weights are damaged"))
            elif not row.answers.gone:
                piece = speech.say(token, *thought.get(k, ())) if speech.ask.room and now < row.until else speech.cut()
                if piece is not None:
                    pieces.setdefault(row.answers, []).append((row.index, piece))
        for answers, found in pieces.items():
            answers.post(found)
        return tokens

    def _kept(self) -> list[int]:
        """Rows that go on, in their new order: rows from the end fill the holes."""
        order = [k for k, row in enumerate(self._live) if not (row.speech.ending or row.answers.gone)]
        late = [k for k in order if k >= len(order)]
        staying = set(order)
        return [k if k in staying else late.pop() for k in range(len(order))]

    def _fail(self, error: LetheonError) -> None:
        with self._wake:
            self._fail_locked(error, waiting=False)

    def _fail_locked(self, error: LetheonError, waiting: bool = True) -> None:
        for answers in {row.answers for row in (*self._live, *(self._waiting if waiting else ()))}:
            answers.post(error)
        self._live = []
        if waiting:
            self._waiting.clear()
