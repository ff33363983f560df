"""JSON that is signed and hashed: one way to write a value, and a strict way to read one.

Written: keys sorted, no spaces, ASCII, no NaN; a whole number that a double cannot hold becomes a string.
Read: UTF-8, no key twice, no NaN, no depth that would exhaust the reader.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

EXACT = 2**53 - 1  # the largest whole number that every reader of JSON keeps


def canonical(value: Any) -> bytes:
    """A value as JSON in the one way that digests and signatures are taken over.

    >>> canonical({"b": 2**60 + 1, "a": ["\\u00e9", None]})
    b'{"a":["\\\\u00e9",null],"b":"1152921504606846977"}'
    """
    return json.dumps(_exact(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _exact(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT:
        return str(value)
    if isinstance(value, dict):
        return {str(key): _exact(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(part) for part in value]
    return value


def parse(content: bytes) -> Any:
    """Read JSON strictly.

    Raises:
        ValueError: it is broken, not UTF-8, too deep, holds a key twice, or a number that is none. The message says which.
    """
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has a key twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"it holds {text}, which is no number")


def stamp(at: datetime) -> str:
    """A time as RFC 3339 in UTC, to the second: `2026-01-31T12:00:00Z`."""
    return at.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"
