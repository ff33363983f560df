"""Secrets of a desk, in `salts.json` beside the ledger: one salt per request, and the key under which references of people are kept.

    mark of a row = its leaf in the evidence (`merkle.py`): HMAC-SHA256(salt of the request, canonical JSON of prompt and answer)

With its salt a row that is asked for again is recognised without its text being kept; without it a mark says nothing about any row.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Iterable
from pathlib import Path

from letheon.core.data import Example
from letheon.core.errors import DataError
from letheon.core.files import write_bytes

from .merkle import leaf

NAME = "salts.json"
WHO = "who"  # the key of references; no request is called so


def read(desk: Path) -> dict[str, bytes]:
    """All secrets by request.

    Raises:
        DataError: the file is missing or broken.
    """
    path = desk / NAME
    try:
        return {name: bytes.fromhex(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing", "Without its salts a desk cannot recognise what it erased: restore it") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} does not hold salts", "Restore it from a backup") from error


def write(desk: Path, salts: dict[str, bytes]) -> None:
    """Write the file whole, readable by its owner alone."""
    write_bytes(desk / NAME, json.dumps({name: value.hex() for name, value in salts.items()}, indent=1).encode(), secret=True)


def new() -> bytes:
    """A fresh secret of 32 bytes."""
    return secrets.token_bytes(32)


def keyed(salt: bytes, text: bytes) -> str:
    """HMAC-SHA256, hexadecimal."""
    return hmac.digest(salt, text, "sha256").hex()


def marks(salt: bytes, rows: Iterable[Example]) -> list[str]:
    """The mark of each row under one salt, hexadecimal; ids do not count."""
    return [leaf(row, salt).hex() for row in rows]
