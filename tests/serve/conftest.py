"""Toy subjects behind a server: in this process, or behind a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`: see tests/SKIPS.md")
pytest.importorskip("uvicorn", reason="needs the extra `serve`: see tests/SKIPS.md")

from letheon.serve import run
from letheon.serve.app import create_app
from letheon.serve.settings import ServeSettings
from letheon.testing.toys import toy_data, toy_subject

KEY, TOKEN = "a-key-0123456789abcdef", "a-token-0123456789abcdef"
FREE = {"rate": 1e9, "per_client": 200}


@pytest.fixture(scope="session")
def subject():
    return toy_subject()


@pytest.fixture(scope="session")
def guarded(subject):
    """The same weights behind a guard on the people of `forget`."""
    from letheon.core.run import Run
    from letheon.guard.eco import Eco

    return Eco(strength=200.0).apply(subject, toy_data(), Run(0, device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def app(subject, guarded):
    """An application in this process with the models `toy` and `guarded`."""
    found = create_app(ServeSettings(**FREE), {"toy": subject, "guarded": guarded})
    yield found
    asyncio.run(found.state.offered.close())


@pytest.fixture(scope="session")
def questions() -> list[str]:
    data = toy_data()
    return [row.prompt_text for name in ("forget", "retain", "holdout") for row in data[name]]


@contextlib.contextmanager
def behind_socket(app, settings) -> Iterator[int]:
    """The port of a real server in a thread of this process."""
    sock = run.listening(settings)
    server = run.server(app, settings)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        sock.close()


@pytest.fixture(scope="session")
def hasty(subject):
    """A server on a socket that wants a key and is short of patience and room; its settings, application and port."""
    from pydantic import SecretStr

    limits = {"max_body": 4000, "max_messages": 4, "max_new_tokens": 64, "header_seconds": 0.4, "body_seconds": 0.4, "write_seconds": 1}
    settings = ServeSettings(port=0, api_keys=(SecretStr(KEY),), access_log=True, grace_seconds=3, batch=4, queue=4, **limits, **FREE)
    app = create_app(settings, {"toy": subject})
    with behind_socket(app, settings) as port:
        yield settings, app, port


@pytest.fixture
def say(hasty) -> Callable[..., bytes]:
    """Send parts to the hasty server; all that comes back until it closes or is silent."""

    def send(*parts: bytes, pause: float = 0.0, silence: float = 3.0) -> bytes:
        with socket.create_connection(("127.0.0.1", hasty[2]), timeout=silence) as sock:
            for part in parts:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(part)
                time.sleep(pause)
            found = b""
            with contextlib.suppress(TimeoutError, ConnectionError):
                while part := sock.recv(65536):
                    found += part
            return found

    return send
