"""Running the server: the address, the end, and nothing in between."""

from __future__ import annotations

import contextlib
import errno
import socket

import uvicorn
from fastapi import FastAPI

from letheon.core.errors import RunError

from .protocol import limited
from .settings import ServeSettings


def listening(settings: ServeSettings) -> socket.socket:
    """A socket that listens on the address of the settings.

    Raises:
        RunError: the address is in use, not of this computer, or not allowed.
    """
    host, port = settings.host.strip("[]"), settings.port
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(2048)
        except BaseException:
            sock.close()
            raise
    except socket.gaierror as error:
        raise RunError(f"`{host}` is no address of this computer: {error.strerror}", "Give `--host 127.0.0.1`") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise RunError(f"Port {port} of {host} is in use", "Stop what runs there, or give another `--port`") from error
        raise RunError(f"Cannot listen on {host}, port {port}: {error.strerror}", "Give another `--host` or `--port`") from error
    return sock


def server(app: FastAPI, settings: ServeSettings) -> uvicorn.Server:
    """A server for `app`. It logs nothing of its own: what is worth telling, the application tells."""
    config = uvicorn.Config(
        app,
        http=limited(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=max(1, round(settings.grace_seconds)),
        h11_max_incomplete_event_size=16384,
    )
    return uvicorn.Server(config)


def run(app: FastAPI, settings: ServeSettings, sock: socket.socket) -> None:
    """Serve until the process is asked to end (SIGTERM, Ctrl-C); running answers are finished first, within their time."""
    with contextlib.suppress(KeyboardInterrupt):
        server(app, settings).run(sockets=[sock])
