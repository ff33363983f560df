"""`/v1`: the part of OpenAI's interface that this server speaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse

from letheon.core.errors import LetheonError

from .access import need_key
from .errors import ServeError, described
from .offered import Offer, Offered
from .replies import ChatCompletion, Completion, ModelCard, ModelList
from .schemas import ChatRequest, CompletionRequest
from .settings import ServeSettings
from .speech import Ask
from .writing import Writer, failure

LOOK = 0.25  # seconds between two looks whether the client is still there
T = TypeVar("T")
_STREAM = {"description": "The answer; with `stream` chunks as server-sent events, then `[DONE]`", "content": {"text/event-stream": {}}}


def router(offered: Offered, settings: ServeSettings) -> APIRouter:
    """The addresses below `/v1`."""
    refusals = (400, 404, 408, 413, 429, 503) if not settings.api_keys else (400, 401, 404, 408, 413, 429, 503)
    extra: dict[str, Any] | None = {"security": [{"bearer": []}]} if settings.api_keys else None
    routes = APIRouter(prefix="/v1", tags=["models"], dependencies=[Depends(need_key(settings))])
    told: dict[str, Any] = {"openapi_extra": extra}

    @routes.get("/models", responses=described(*(status for status in refusals if status != 404)), **told)
    async def models() -> ModelList:
        """List the models that can be asked."""
        return ModelList(data=offered.cards)

    @routes.get("/models/{model:path}", responses=described(*refusals), **told)
    async def model(model: str) -> ModelCard:
        """Look up one model."""
        return offered.get(model).card

    replies = {200: _STREAM, **described(*refusals)}

    @routes.post("/chat/completions", response_model=ChatCompletion, responses=replies, **told)
    async def chat(body: ChatRequest, request: Request) -> Any:
        """Go on with a conversation."""
        offer = offered.get(body.model)
        return await _answered(request, offer, body, offer.reader.chat, chat=True)

    @routes.post("/completions", response_model=Completion, responses=replies, **told)
    async def completions(body: CompletionRequest, request: Request) -> Any:
        """Go on with a text."""
        offer = offered.get(body.model)
        return await _answered(request, offer, body, offer.reader.completion, chat=False)

    return routes


async def _answered(request: Request, offer: Offer, body: Any, read: Callable[[Any], list[Ask]], *, chat: bool) -> Any:
    engine = offer.engine
    asks = await asyncio.to_thread(read, body)
    writer = Writer(offer.card.id, engine.fingerprint, engine.subject.encoder.tokenizer, asks, chat=chat)
    try:
        pieces = aiter(engine.submit(asks))
        if not body.stream:
            return await _while_there(request, writer.whole(pieces))
        first = await _while_there(request, anext(pieces))
    except LetheonError as error:
        raise failure(error) from error
    counted = bool(body.stream_options and body.stream_options.include_usage)
    return StreamingResponse(writer.stream(pieces, first, counted), media_type="text/event-stream")


async def _while_there(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is given up when the client goes away."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=LOOK))[0]:
            if await request.is_disconnected():
                raise ServeError(400, "The client has gone")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, LetheonError):
                await task
