"""Who may come in: keys and tokens, compared in constant time, and where they are kept.

A token opens the ledger, a key opens /v1. Both are read from files or the environment, never from a command line, which others can see.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from fastapi import Request
from pydantic import SecretStr

from letheon.core.errors import RunError

from .errors import ServeError
from .settings import ServeSettings

log = logging.getLogger("letheon.serve")
TOKEN = "LETHEON_TOKEN"  # the environment's name for the token
SHORTEST = 16  # characters
_PROXY = ("forwarded", "via", "x-real-ip")  # headers, and all that begin with x-forwarded-


def new_secret(path: Path) -> Path:
    """Write a new random token into a file that only its owner can read.

    Raises:
        RunError: the file exists, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    except FileExistsError as error:
        raise RunError(f"{path} exists", "Remove it first, so that no token in use is lost by accident") from error
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error
    return path


def secrets_in(path: Path) -> tuple[SecretStr, ...]:
    """The tokens or keys in a file, one a line.

    Raises:
        RunError: the file is missing or empty, or holds one that is short or has odd letters.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        shared = path.stat().st_mode & 0o077
    except (OSError, UnicodeDecodeError) as error:
        hint = "`letheon serve --new-token --token-file FILE` makes one"
        raise RunError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}", hint) from error
    if shared and os.name == "posix":
        log.warning("%s can be read by others: `chmod 600` it", path)
    return checked([line for line in lines if line and not line.startswith("#")], str(path))


def checked(found: Iterable[str], place: str) -> tuple[SecretStr, ...]:
    """Secrets that are fit for use. Raises RunError where one is not, or there is none."""
    found = tuple(found)
    if not found or any(not re.fullmatch(rf"[!-~]{{{SHORTEST},}}", one) for one in found):
        what = f"{place} holds no fit secret: {SHORTEST} or more letters, digits and signs without spaces"
        raise RunError(what, "Make one with `--new-token`")
    return tuple(SecretStr(one) for one in found)


def _same(given: str, wanted: SecretStr) -> bool:
    texts = (given, wanted.get_secret_value())
    return hmac.compare_digest(*(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in texts))


def opens(header: str | None, known: Iterable[SecretStr], *, basic: bool = False) -> bool:
    """Whether an `Authorization` header carries one of the secrets: as a bearer token, with `basic` also as a password."""
    kind, _, given = (header or "").partition(" ")
    if kind.lower() == "basic" and basic:
        try:
            given = base64.b64decode(given.strip(), validate=True).decode().partition(":")[2]
        except ValueError:
            return False
    elif kind.lower() != "bearer":
        return False
    return any([_same(given.strip(), one) for one in known])  # a list: all are compared, whichever fits


def need_key(settings: ServeSettings) -> Callable[[Request], None]:
    """A dependency that lets only requests with a key pass, where there are keys."""

    async def check(request: Request) -> None:
        if settings.api_keys and not opens(request.headers.get("authorization"), settings.api_keys):
            raise _closed("key")

    return check  # type: ignore[return-value]


def need_token(settings: ServeSettings) -> Callable[[Request], None]:
    """A dependency that lets only requests with the admin token pass."""

    async def check(request: Request) -> None:
        if settings.token is None or not opens(request.headers.get("authorization"), [settings.token]):
            raise _closed("token")

    return check  # type: ignore[return-value]


def may_read_desk(settings: ServeSettings, headers: Mapping[str, str]) -> bool:
    """Whether a visitor may see pages that show the ledger: with the token where there is one, else only from this computer.

    A reverse proxy comes from this computer too, whoever stands behind it. So without a token nobody may where something speaks of one:
    keys, another name for the server, or headers that proxies add (a proxy that adds none cannot be told).
    """
    if settings.token is not None:
        return opens(headers.get("authorization"), [settings.token], basic=True)
    passed_on = any(name in _PROXY or name.startswith("x-forwarded-") for name in headers)
    return settings.loopback and not (settings.allowed_hosts or settings.api_keys or passed_on)


def _closed(what: str) -> ServeError:
    return ServeError(401, f"The {what} is missing or wrong", code="invalid_api_key", headers={"www-authenticate": "Bearer"})
