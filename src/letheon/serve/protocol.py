"""HTTP that does not wait for ever: uvicorn's protocol with a time for headers, a time for writing, and a number of connections."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from .settings import ServeSettings

_BODY = json.dumps(
    {"error": {"message": "The headers did not come in time", "type": "invalid_request_error", "param": None, "code": "too_slow"}}
).encode()
_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
    + f"content-length: {len(_BODY)}\r\n\r\n".encode()
    + _BODY
)


class Patient(H11Protocol):
    """Waits, but not for ever. `limited` gives a class with limits."""

    limits: ServeSettings
    _slow: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for headers, unless there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.close()
        else:
            self._slow = self.loop.call_later(self.limits.header_seconds, self._late)

    def data_received(self, data: bytes) -> None:
        """Take what has come; the headers of the next request have their time too."""
        if self._slow is None and self._idle():
            self._slow = self.loop.call_later(self.limits.header_seconds, self._late)
        super().data_received(data)
        if not self._idle():
            self._slow = self._stop(self._slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._slow, self._stuck = self._stop(self._slow), self._stop(self._stuck)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read; it has some time to go on."""
        super().pause_writing()
        self._stuck = self._stuck or self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._stuck = self._stop(self._stuck)

    def _idle(self) -> bool:
        """Whether no request is being read or answered."""
        return self.cycle is None or self.cycle.response_complete

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
        if timer is not None:
            timer.cancel()
        return None

    def _late(self) -> None:
        self._slow = None
        if not self.transport.is_closing():
            self.transport.write(_LATE)
            self.transport.close()


def limited(limits: ServeSettings) -> type[Patient]:
    """The protocol with these limits."""
    return type("Limited", (Patient,), {"limits": limits})
