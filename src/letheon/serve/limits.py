"""The gate before the server: names it may be called by, rates, sizes and times of requests, and the headers of answers.

A request is read whole before it goes on, so that nothing behind the gate waits for a client. What fails behind it is told to the log by
kind and place only: texts of errors may hold what was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import re
import time
from collections import Counter, OrderedDict
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ServeError, place_of
from .settings import ServeSettings

log = logging.getLogger("letheon.serve")
BURST = 10  # seconds of the rate that may come at once
REMEMBERED = 4096  # clients whose rate is counted
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}


class Rate:
    """So many requests a minute for each client.

    Args:
        per_minute: requests; those of ten seconds may come at once.
    """

    def __init__(self, per_minute: float):
        self.speed, self.most = per_minute / 60, max(1.0, per_minute / 60 * BURST)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, now: float) -> float:
        """Count a request; seconds until the next one may come, 0 if this one may pass."""
        left, since = self._left.pop(client, (self.most, now))
        left = min(self.most, left + (now - since) * self.speed)
        self._left[client] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > REMEMBERED:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self.speed


def host_of(value: str) -> str:
    """The name in a `Host` header, without its port; empty where it is none."""
    try:
        return (urlsplit(f"//{value}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class Gate:
    """ASGI middleware that holds the limits."""

    def __init__(self, app: ASGIApp, settings: ServeSettings):
        self.app, self.settings, self.rate = app, settings, Rate(settings.rate)
        own = {settings.host.strip("[]").lower(), *(name.lower() for name in settings.allowed_hosts)}
        self.hosts = own | ({"127.0.0.1", "localhost", "::1"} if settings.loopback else set())
        self.any_host = settings.host in ("0.0.0.0", "::") and not settings.allowed_hosts  # noqa: S104  every address is its own
        self.running: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._pass(scope, receive, sent)
        except ServeError as error:
            await error.response()(scope, receive, sent)
        except Exception as error:
            log.error("%s %.200r failed: %s in %s", scope["method"], scope["path"], type(error).__name__, place_of(error))
            if not status:
                await ServeError(500, "The server failed", code="internal_error").response()(scope, receive, sent)
        finally:
            if self.settings.access_log:
                log.info("%s %.200r %d, %.0f ms", scope["method"], scope["path"], status, 1000 * (time.monotonic() - began))

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, client = Headers(scope=scope), (scope.get("client") or ("local", 0))[0]
        self._check_names(headers)
        wait = self.rate.wait(client, time.monotonic())
        if wait:
            raise ServeError(429, f"More than {self.settings.rate:g} requests a minute", code="rate_limit_exceeded", retry=math.ceil(wait))
        if self.running[client] >= self.settings.per_client:
            what = f"More than {self.settings.per_client} requests at the same time"
            raise ServeError(429, what, code="rate_limit_exceeded", retry=1)
        self.running[client] += 1
        try:
            body = await self._body(headers, receive)
            if _HALF.search(body):
                _check_pairs(body)
            await self.app(scope, _again(body, receive), send)
        finally:
            self.running[client] -= 1
            if not self.running[client]:
                del self.running[client]

    def _check_names(self, headers: Headers) -> None:
        """A page of another site may neither call this server by a name of its own nor send requests to it."""
        if not self.any_host and host_of(headers.get("host", "")) not in self.hosts:
            raise ServeError(400, "This server is not called that; `--allow-host` adds a name", code="unknown_host")
        origin = headers.get("origin")
        if origin is not None:
            try:
                named = urlsplit(origin).netloc
            except ValueError:
                named = ""
            if named != headers.get("host"):
                raise ServeError(403, "Other sites may not send requests here", code="other_origin")

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        most, length = self.settings.max_body, headers.get("content-length", "")
        if length.isdigit() and int(length) > most:
            raise self._large()
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                size, more = 0, True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ServeError(400, "The client has gone")
                    parts.append(message.get("body", b""))
                    size, more = size + len(parts[-1]), message.get("more_body", False)
                    if size > most:
                        raise self._large()
        except TimeoutError as error:
            what = f"The request did not come within {self.settings.body_seconds:g} seconds"
            raise ServeError(408, what, code="too_slow", headers={"connection": "close"}) from error
        return b"".join(parts)

    def _large(self) -> ServeError:
        what = f"A request may have {self.settings.max_body} bytes"
        return ServeError(413, what, code="too_large", headers={"connection": "close"})


def _check_pairs(body: bytes) -> None:
    """JSON can write half of a character, which no tokenizer and no file takes."""
    with contextlib.suppress(RecursionError, ValueError):  # what is no JSON at all is refused where it is read
        found = json.dumps(json.loads(body), ensure_ascii=False)
        if any("\ud800" <= letter <= "\udfff" for letter in found):
            raise ServeError(400, "The request holds half of a character pair", code="invalid_json")


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` that gives the whole body first."""
    given = False

    async def inner() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return inner
