"""The pages for people, rendered anew at each request.

With a desk they show its ledger. Then they open to those who have the admin token: browsers ask for it as the password of basic
authentication, with any name, so that it stands in no address and no cookie. Without a token they open on a loopback address where nothing
speaks of a proxy; else the ledger's pages are not there, the others are.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import mimetypes
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Request, Response
from fastapi.routing import APIRoute

from .access import may_read_desk
from .errors import ServeError
from .settings import ServeSettings

if TYPE_CHECKING:
    from letheon.ledger.desk import Desk

Site = Mapping[str, Callable[[], bytes]]
KINDS = {".xml": "application/atom+xml", ".json": "application/json", ".svg": "image/svg+xml"}
_MISSING = b"<!doctype html><html lang=en><meta charset=utf-8><title>Not found</title><h1>There is no such page</h1>"


def routes(desk: Desk | None, runs: Sequence[Path], settings: ServeSettings) -> list[APIRoute]:
    """The pages at `/`; none where letheon has no pages."""
    if importlib.util.find_spec("letheon.pages") is None:
        return []
    from letheon import pages

    if not hasattr(pages, "site"):
        return []

    def page(request: Request, path: str = "") -> Response:
        shown = desk
        if desk is not None and not may_read_desk(settings, request.headers):
            if settings.token is not None:
                asked = {"www-authenticate": 'Basic realm="letheon", charset="UTF-8"'}
                raise ServeError(401, "These pages need the admin token as password", code="invalid_api_key", headers=asked)
            shown = None
        return rendered(pages.site(shown, runs), f"/{path}")

    return [APIRoute(address, page, methods=["GET", "HEAD"], include_in_schema=False) for address in ("/", "/{path:path}")]


def rendered(site: Site, path: str) -> Response:
    """One page, or the page that says there is none; `.html` may be left out of an address."""
    stem = path.removeprefix("/") or "index.html"
    found = next((name for name in (stem, f"{stem}.html") if name in site), None)
    if found is None:
        missing = site["404.html"]() if "404.html" in site else _MISSING
        return _response(missing, "text/html; charset=utf-8", 404)
    kind = KINDS.get(Path(found).suffix) or mimetypes.guess_type(found)[0] or "application/octet-stream"
    return _response(site[found](), f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)


def _response(content: bytes, kind: str, status: int = 200) -> Response:
    """An answer that may run the scripts that stand in it or lie beside it, and load nothing from elsewhere."""
    digests = [
        base64.b64encode(hashlib.sha256(script).digest()).decode()
        for script in re.findall(rb"<script(?:\s[^>]*)?>(.+?)</script>", content if kind.startswith("text/html") else b"", re.S)
    ]
    scripts = " ".join(["'self'", *(f"'sha256-{digest}'" for digest in dict.fromkeys(digests))])
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Response(content, status, {"content-security-policy": policy, "content-type": kind})
