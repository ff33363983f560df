"""One answer as it is written: tokens become text, stop strings end it, nothing is shown that might still change.

Shown text is final. A letter of several tokens waits for its last one, and an ending that might become a stop string waits until it cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Ending = Literal["stop", "length"]
Top = tuple[tuple[int, float], ...]  # tokens and their log-probabilities
WINDOW = 8  # tokens before a token that its text may depend on
_OPEN = "\ufffd"  # what an unfinished letter is decoded to


@dataclass(frozen=True)
class Said:
    """A token and what the model thought of it, in nats; `top` are the most likely tokens in its place."""

    token: int
    start: int  # where its text begins in the answer
    logprob: float | None = None
    top: Top = ()


@dataclass(frozen=True)
class Piece:
    """What is added to an answer at once."""

    text: str
    tokens: tuple[Said, ...] = ()
    ending: Ending | None = None
    count: int = 0  # tokens said so far, without the end token


@dataclass(frozen=True)
class Ask:
    """One answer that is wanted.

    Attributes:
        prompt: its tokens.
        room: most tokens to say.
        temperature: logits are divided by it; 0 takes the most likely token.
        top_p: only the most likely tokens that together reach this probability are drawn.
        seed: decides what is drawn, with `choice`.
        choice: which of several answers to one prompt this is.
        stop: texts that end the answer and are not part of it.
        logprobs: how many of the most likely tokens are told; None: nothing is told.
        echo: the answer begins with the prompt, and `logprobs` tells about its tokens too.
        given: tokens of the prompt that the client has not written (a begin token).
        continued: the text goes on from that of the prompt, as in a completion.
    """

    prompt: tuple[int, ...]
    room: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    choice: int = 0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    echo: bool = False
    given: int = 0
    continued: bool = False


@dataclass
class Speech:
    """The answer to one `Ask`."""

    ask: Ask
    tokenizer: Any
    ends: set[int]
    said: list[int] = field(default_factory=list)
    ending: Ending | None = None

    def __post_init__(self) -> None:
        self.draws = np.random.default_rng([self.ask.seed % 2**64, self.ask.choice])
        self._tokens = list(self.ask.prompt[-WINDOW:]) if self.ask.continued else []
        self._from, self._read = 0, len(self._tokens)  # letters are looked up among the tokens from here, those up to there are written
        self._fixed, self._text, self._shown, self._echo = "", "", 0, 0
        self._waiting: list[Said] = []

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def echoed(self, logprobs: Sequence[tuple[float | None, Top]]) -> Piece:
        """The prompt as the beginning of the answer."""
        shown = self.ask.prompt[self.ask.given :]
        text, tokens, at = self._decoded(shown), [], 0
        for k, token in enumerate(shown if logprobs else ()):
            tokens.append(Said(token, at, *logprobs[k + self.ask.given]))
            near = shown[max(0, k - WINDOW) : k + 1]
            at = min(at + max(0, len(self._decoded(near).rstrip(_OPEN)) - len(self._decoded(near[:-1]).rstrip(_OPEN))), len(text))
        self._echo = len(text)
        return Piece(text, tuple(tokens))

    def say(self, token: int, logprob: float | None = None, top: Top = ()) -> Piece | None:
        """Add a token; what can be shown now, if anything. Sets `ending` with the last one."""
        if token in self.ends:
            self.ending = "stop"
        else:
            self.said.append(token)
            self._waiting.append(Said(token, len(self._text) + self._echo, logprob, top))
            self._write(token)
            if len(self.said) >= self.ask.room:
                self.ending = "length"
        stops = [k for k in (self._text.find(stop, self._shown) for stop in self.ask.stop) if k >= 0]
        if stops:
            self.ending, self._text = "stop", self._text[: min(stops)]
            self._waiting = [one for one in self._waiting if one.start - self._echo < len(self._text)]
        until = len(self._text) if self.ending else self._settled()
        return self._piece(until) if self.ending or until > self._shown else None

    def _write(self, token: int) -> None:
        """Put the text of a token behind what is written; a letter that is not complete may still change."""
        self._tokens.append(token)
        old, new = self._decoded(self._tokens[self._from : self._read]), self._decoded(self._tokens[self._from :])
        self._text = self._fixed + new[len(old.rstrip(_OPEN)) :]
        if not new.endswith(_OPEN):
            self._fixed, self._from, self._read = self._text, self._read, len(self._tokens)

    def cut(self) -> Piece:
        """End here, for time is up."""
        self.ending = "length"
        return self._piece(len(self._text))

    def _piece(self, until: int) -> Piece:
        ready = [one for one in self._waiting if self.ending or one.start - self._echo < until]
        piece = Piece(self._text[self._shown : until], tuple(ready), self.ending, len(self.said))
        self._shown, self._waiting = max(until, self._shown), self._waiting[len(ready) :]
        return piece

    def _settled(self) -> int:
        """How much of the text cannot change any more."""
        text = self._text.rstrip(_OPEN)
        longest = max((len(stop) for stop in self.ask.stop), default=0)
        for held in range(min(longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-held:]) for stop in self.ask.stop if len(stop) > held):
                return len(text) - held
        return len(text)
