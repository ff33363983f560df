"""The application: models, ledger and pages behind one gate."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from letheon import __version__
from letheon.core.subject import Subject

from . import admin, openai, site
from .errors import ServeError, described, install
from .limits import Gate
from .offered import Load, Offered
from .settings import ServeSettings

if TYPE_CHECKING:
    from letheon.ledger.desk import Desk


class Health(BaseModel):
    """That the server is there."""

    status: str = "ok"


def create_app(
    settings: ServeSettings, models: Mapping[str, Subject], desk: Desk | None = None, *, runs: Sequence[Path] = (), load: Load | None = None
) -> FastAPI:
    """The application that `letheon serve` runs.

    Args:
        settings: limits, keys and token.
        models: subjects by the names that clients call them.
        desk: its current generation is served under the name of its folder, and with a token its ledger.
        runs: folders of runs for the pages.
        load: makes a subject of a folder of the desk; default: the loader `hf`.

    Raises:
        LetheonError: the desk's model cannot be loaded, or is not the one that was written down.
    """
    offered = Offered(models, settings, desk, load)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(offered.follow())
        try:
            yield
        finally:
            following.cancel()
            await offered.close()

    app = FastAPI(title="letheon", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.state.offered = offered
    install(app)

    @app.exception_handler(Exception)
    async def _failed(_: Request, error: Exception) -> JSONResponse:
        return ServeError(500, "The server failed", code="internal_error").response()

    @app.get("/health", tags=["server"], responses=described(400, 408, 413, 429))
    async def health() -> Health:
        """Say that the server is there."""
        return Health()

    app.include_router(openai.router(offered, settings))
    if desk is not None and settings.token is not None:
        app.include_router(admin.router(desk, settings))

    @app.api_route("/v1/{rest:path}", methods=["GET", "HEAD"], include_in_schema=False)
    @app.api_route("/admin/{rest:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def _nowhere(rest: str) -> None:
        raise ServeError(404, "There is no such address")

    app.router.routes.extend(site.routes(desk, runs, settings))
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    app.add_middleware(Gate, settings=settings)
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: errors are as this server sends them."""
    if app.openapi_schema is None:
        about = "A guarded model behind OpenAI's interface."
        found = get_openapi(title=app.title, version=app.version, description=about, routes=app.routes)
        found["components"].setdefault("securitySchemes", {})["bearer"] = {"type": "http", "scheme": "bearer"}
        for path in found["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            found["components"]["schemas"].pop(name, None)
        app.openapi_schema = found
    return app.openapi_schema
