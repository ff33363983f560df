"""From pieces of answers to the bodies and streams that clients read."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from letheon.core.errors import LetheonError

from .engine import Broken, Busy
from .errors import ServeError
from .replies import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChoiceLogprobs,
    ChunkChoice,
    Completion,
    Delta,
    TextChoice,
    TextLogprobs,
    TokenLogprob,
    TopLogprob,
    Usage,
)  # fmt: skip
from .speech import Ask, Piece, Said

Pieces = AsyncIterator[tuple[int, Piece]]


def failure(error: LetheonError) -> ServeError:
    """What a client is told when its answer could not be given."""
    if isinstance(error, Busy):
        return ServeError(503, f"{error.message}: try again later", code="overloaded", retry=2)
    return ServeError(500, error.message if isinstance(error, Broken) else "The server failed", code="model_failed")


@dataclass
class Gathered:
    """All of one answer."""

    text: str = ""
    tokens: list[Said] = field(default_factory=list)
    ending: str | None = None
    count: int = 0


class Writer:
    """Writes the answers to one request.

    Args:
        model: as the client calls it.
        fingerprint: of the weights and guards that answer.
        tokenizer: the engine's; only `decode` is used.
        asks: what was asked for.
        chat: whether the answer is a turn of a conversation.
    """

    def __init__(self, model: str, fingerprint: str, tokenizer: Any, asks: Sequence[Ask], *, chat: bool):
        self.chat, self.asks, self.tokenizer = chat, asks, tokenizer
        made = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
        self.head: dict[str, Any] = {"id": made, "created": int(time.time()), "model": model, "system_fingerprint": fingerprint}

    async def whole(self, pieces: Pieces) -> ChatCompletion | Completion:
        """All answers in one body."""
        found = [Gathered() for _ in self.asks]
        async for index, piece in pieces:
            one = found[index]
            one.text += piece.text
            one.tokens += piece.tokens
            one.ending, one.count = piece.ending, max(one.count, piece.count)
        usage = self._usage([one.count for one in found])
        ends: list[dict[str, Any]] = [
            {"index": k, "logprobs": self._logprobs(k, one.tokens), "finish_reason": one.ending} for k, one in enumerate(found)
        ]
        if self.chat:
            choices = [ChatChoice(**ends[k], message=AssistantMessage(content=one.text)) for k, one in enumerate(found)]
            return ChatCompletion(**self.head, choices=choices, usage=usage)
        texts = [TextChoice(**ends[k], text=one.text) for k, one in enumerate(found)]
        return Completion(**self.head, choices=texts, usage=usage)

    async def stream(self, pieces: Pieces, first: tuple[int, Piece], counted: bool) -> AsyncIterator[str]:
        """Server-sent events, one a piece; the last one says `[DONE]`."""
        counts, begun = [0] * len(self.asks), set()

        def event(index: int, piece: Piece) -> str:
            counts[index] = max(counts[index], piece.count)
            logprobs = self._logprobs(index, piece.tokens)
            if not self.chat:
                text = TextChoice(index=index, text=piece.text, logprobs=logprobs, finish_reason=piece.ending)
                return self._event(Completion(**self.head, choices=[text]), counted)
            delta = Delta(content=piece.text, role=None if index in begun else "assistant")
            begun.add(index)
            choice = ChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=piece.ending)
            return self._event(ChatChunk(**self.head, choices=[choice]), counted)

        try:
            yield event(*first)
            async for index, piece in pieces:
                yield event(index, piece)
        except LetheonError as error:
            yield f"data: {bytes(failure(error).response().body).decode()}\n\n"
            return
        if counted:
            last = ChatChunk if self.chat else Completion
            yield self._event(last(**self.head, choices=[], usage=self._usage(counts)), counted)
        yield "data: [DONE]\n\n"

    @staticmethod
    def _event(chunk: ChatChunk | Completion, counted: bool) -> str:
        body = chunk.model_dump()
        for choice in body["choices"]:
            if "delta" in choice:
                choice["delta"] = {key: value for key, value in choice["delta"].items() if value is not None}
        if not counted:
            del body["usage"]
        return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"

    def _usage(self, counts: Sequence[int]) -> Usage:
        read, said = sum(len(ask.prompt) for ask in self.asks if ask.choice == 0), sum(counts)
        return Usage(prompt_tokens=read, completion_tokens=said, total_tokens=read + said)

    def _logprobs(self, index: int, tokens: Sequence[Said]) -> Any:
        """What is told of tokens, in the form of this kind of answer; None where nothing was asked for."""
        if self.asks[index].logprobs is None:
            return None
        if self.chat:
            content = []
            for one in tokens:
                tops = [TopLogprob(**self._named(*top)) for top in one.top]
                content.append(TokenLogprob(**self._named(one.token, one.logprob or 0.0), top_logprobs=tops))
            return ChoiceLogprobs(content=content)
        likely = None
        if self.asks[index].logprobs:
            likely = [{self._name(token): logprob for token, logprob in one.top} if one.logprob is not None else None for one in tokens]
        names, own = [self._name(one.token) for one in tokens], [one.logprob for one in tokens]
        return TextLogprobs(tokens=names, token_logprobs=own, top_logprobs=likely, text_offset=[one.start for one in tokens])

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        name = self._name(token)
        return {"token": name, "logprob": logprob, "bytes": None if name.startswith("token_id:") else list(name.encode())}

    def _name(self, token: int) -> str:
        """The text of a token; its number where it is a part of a letter."""
        text = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return text if "\ufffd" not in text else f"token_id:{token}"
