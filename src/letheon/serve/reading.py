"""From a request to the answers that are wanted: templates, tokens and lengths.

It has an encoder of its own, for tokenizers must not be used by two threads at once.
"""

from __future__ import annotations

import copy
import secrets
import threading
from collections.abc import Sequence

from letheon.core.data import Example, Message
from letheon.core.errors import DataError

from .engine import Engine
from .errors import ServeError
from .schemas import ChatRequest, CompletionRequest
from .settings import ServeSettings
from .speech import Ask

DEFAULT_COMPLETION = 16  # tokens, as OpenAI has it
LONGEST_TOKEN = 64  # characters; a text of more than context times that cannot fit and is not tokenised at all


class Reader:
    """Reads requests for one engine."""

    def __init__(self, engine: Engine, settings: ServeSettings):
        self.settings, self.context, self.vocabulary = settings, engine.context, engine.vocabulary
        self.encoder, self._lock = copy.deepcopy(engine.subject.encoder), threading.Lock()

    def chat(self, body: ChatRequest) -> list[Ask]:
        """The answers that a conversation asks for.

        Raises:
            ServeError: it is too long, too much, or the template refuses it.
        """
        if len(body.messages) > self.settings.max_messages:
            raise _refused(f"A conversation may have {self.settings.max_messages} messages, got {len(body.messages)}", "messages")
        role = {"developer": "system"}
        turns = tuple(Message(role.get(turn.role, turn.role), turn.text) for turn in body.messages)
        self._short_enough(sum(len(turn.content) for turn in turns), "messages")
        try:
            with self._lock:
                prompt = self.encoder.prompts([Example("0", "", turns)])[0]
        except DataError as error:
            raise _refused(error.message, "messages") from error
        name = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
        given = getattr(body, name)
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        return self._asks(body, [prompt], given, None if given is None else name, "messages", logprobs=logprobs)

    def completion(self, body: CompletionRequest) -> list[Ask]:
        """The answers that prompts ask for, prompt after prompt.

        Raises:
            ServeError: they are too long or too many, or hold a token that the model does not have.
        """
        prompts, begun = [], []
        for prompt in body.prompts:
            if isinstance(prompt, str):
                self._short_enough(len(prompt), "prompt")
                tokens, begin = self._tokens(prompt)
            else:
                tokens, begin = prompt, 0
                if max(tokens) >= self.vocabulary:
                    raise _refused(f"A token must be below {self.vocabulary}", "prompt")
            prompts.append(tokens)
            begun.append(begin)
        given = DEFAULT_COMPLETION if body.max_tokens is None else body.max_tokens
        more = {"logprobs": body.logprobs, "echo": bool(body.echo), "continued": True}
        return self._asks(body, prompts, given, "max_tokens" if body.max_tokens is not None else None, "prompt", begun, **more)

    def _tokens(self, text: str) -> tuple[list[int], int]:
        """The tokens of a text, and how many of them stand before it."""
        with self._lock:
            tokens = self.encoder.tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        begin = [] if tokens[:1] == self.encoder.begin else self.encoder.begin
        return [*begin, *tokens], len(begin)

    def _short_enough(self, letters: int, param: str) -> None:
        if letters > self.context * LONGEST_TOKEN:
            raise self._long(f"The text of {letters} characters", param)

    def _long(self, what: str, param: str) -> ServeError:
        message = f"{what} does not fit the model's context of {self.context} tokens"
        return ServeError(400, message, param=param, code="context_length_exceeded")

    def _asks(
        self,
        body: ChatRequest | CompletionRequest,
        prompts: Sequence[Sequence[int]],
        given: int | None,
        name: str | None,
        param: str,
        begun: Sequence[int] = (0,),
        **more: object,
    ) -> list[Ask]:
        count, most = len(prompts) * (body.n or 1), self.settings.max_new_tokens
        if count > self.settings.max_answers:
            raise _refused(f"One request may ask for {self.settings.max_answers} answers, got {count}", "n" if len(prompts) == 1 else param)
        if name is not None and (given or 0) > most:
            raise _refused(f"`{name}` may be {most} here, got {given}", name)
        seed = secrets.randbits(63) if body.seed is None else body.seed
        temperature, top_p = (1.0 if value is None else value for value in (body.temperature, body.top_p))
        asks = []
        for prompt, begin in zip(prompts, begun, strict=True):
            left = self.context - len(prompt)
            if not prompt:
                raise _refused("The prompt is empty", param)
            if left < 1 or (name is not None and left < (given or 0)):
                raise self._long(f"A prompt of {len(prompt)} tokens{f' and `{name}` {given}' if name is not None else ''}", param)
            room = min(left, most if given is None else given)
            settings = {"temperature": temperature, "top_p": top_p, "seed": seed, "stop": body.stops, "given": begin, **more}
            asks += [Ask(tuple(prompt), room, choice=k, **settings) for k in range(body.n or 1)]  # type: ignore[arg-type]
        return asks


def _refused(message: str, param: str) -> ServeError:
    return ServeError(400, message, param=param, code="invalid_value")
