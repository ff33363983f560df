"""The review file: what a request found, one row a line, for a person to look at before anything is erased.

The first line says what it belongs to; every other line is a row:

    {"letheon": "review", "digest": "9f2c...", "rows": 2, "how": "Rows below are erased. To keep one, set keep to true or delete its line."}
    {"keep": false, "how": "exact", "score": 1.0, "corpus": "authors", "row": "r-17", "line": 17, "text": "Who wrote ...?"}

A person may set `keep`, delete lines of rows (they stay) and put lines in another order; blank lines and Windows line ends do no harm. All
else is refused with the number of the line. The digest is taken over the hits without `keep`, so that a review of an older search is
refused too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from letheon.core.errors import DataError, did_you_mean
from letheon.core.files import write_bytes
from letheon.data._tables import Limits, read_bytes

from .records import Hit

_ORDER = ("keep", "how", "score", "corpus", "row", "line", "text")
_HOW = "Rows below are erased. To keep one, set keep to true or delete its line."
_AGAIN = "Write the review again and repeat the edits"
# valid in JSON, but editors and other programs take them for the end of a line
_ENDS = {"\u2028": "\\u2028", "\u2029": "\\u2029", "\u0085": "\\u0085"}


def digest_of(hits: Sequence[Hit]) -> str:
    """sha256 over the hits in their order, without `keep` (hexadecimal)."""
    text = "\n".join(_line({**hit.model_dump(), "keep": False}) for hit in hits)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def write_review(path: str | Path, hits: Sequence[Hit]) -> Path:
    """Write the review file of some hits, whole or not at all.

    Raises:
        RunError: the disk refuses.
    """
    head = {"letheon": "review", "digest": digest_of(hits), "rows": len(hits), "how": _HOW}
    lines = [json.dumps(head), *(_line(hit.model_dump()) for hit in hits)]
    return write_bytes(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))


def read_review(path: str | Path, hits: Sequence[Hit]) -> list[Hit]:
    """The hits as a person left them, all of them and in the given order: `keep` is true where the file says so or lacks the row.

    Args:
        path: the review file.
        hits: what the search found; the file must be a review of just these.

    Raises:
        DataError: the file is missing, broken or the review of other hits, or more than `keep` was changed; names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no review file {path}", "`letheon requests locate` writes it")
    known = {(hit.corpus, hit.row): hit for hit in hits}
    seen: dict[tuple[str, str], int] = {}
    keep: dict[tuple[str, str], bool] = {}
    head = None
    for number, raw in enumerate(read_bytes(path, Limits()).split(b"\n"), 1):
        if not raw.strip():
            continue
        where = f"{path}, line {number}"
        row = _parsed(raw, where)
        if "letheon" in row:
            if head is not None:
                raise DataError(f"{where} is a second head of the file; the first is line {head}", "Delete one of them")
            head = number
            _check_head(row, hits, where)
            continue
        key = _checked(row, known, where)
        if key in seen:
            raise DataError(f"{where} has the row `{key[1]}` of `{key[0]}`, and so has line {seen[key]}", "Delete one of them")
        seen[key], keep[key] = number, row["keep"]
    if head is None:
        raise DataError(f"{path} has no line with the digest of the search, which is written first", _AGAIN)
    return [hit.model_copy(update={"keep": keep.get((hit.corpus, hit.row), True)}) for hit in hits]


def _line(hit: dict[str, Any]) -> str:
    text = json.dumps({key: hit[key] for key in _ORDER}, ensure_ascii=False)
    for sign, written in _ENDS.items():
        text = text.replace(sign, written)
    return text


def _parsed(raw: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte 0x{raw[error.start]:02x})", "Save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: broken JSON, {error.msg[:1].lower()}{error.msg[1:]} at column {error.colno}", _AGAIN) from error
    except RecursionError as error:
        raise DataError(f"{where}: broken JSON, nested too deeply", _AGAIN) from error
    except ValueError as error:  # a key that stands twice, a number of thousands of digits
        raise DataError(f"{where}: broken JSON, {str(error).partition(';')[0]}", _AGAIN) from error
    if not isinstance(row, dict):
        raise DataError(f"{where} is not a row of a review", _AGAIN)
    return row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"`{twice[:40]}` stands there twice")
    return found


def _check_head(row: dict[str, Any], hits: Sequence[Hit], where: str) -> None:
    if row.get("letheon") != "review":
        raise DataError(f"{where}: the file is no review of letheon", "Give the file that `letheon requests locate` wrote")
    if row.get("digest") != digest_of(hits):
        raise DataError(f"{where}: the review was made from other hits than the request has now", _AGAIN)


def _checked(row: dict[str, Any], known: dict[tuple[str, str], Hit], where: str) -> tuple[str, str]:
    """The corpus and id of a row, once nothing but `keep` differs from what was found."""
    strange = next((key for key in row if key not in _ORDER), None)
    if strange is not None:
        raise DataError(f"{where}: a row has no field `{strange[:40]}`", did_you_mean(strange, _ORDER))
    missing = next((key for key in _ORDER if key not in row), None)
    if missing is not None:
        raise DataError(f"{where} lacks `{missing}`", _AGAIN)
    key = (row["corpus"], row["row"])
    hit = known.get(key) if all(isinstance(part, str) for part in key) else None
    if hit is None:
        raise DataError(f"{where}: the request has not found the row {str(key[1])[:60]!r} of {str(key[0])[:60]!r}", _AGAIN)
    if not isinstance(row["keep"], bool):
        raise DataError(f"{where}: `keep` is {str(row['keep'])[:40]!r}, not true or false", "Write true or false without quotes")
    for field in _ORDER[1:]:
        had = getattr(hit, field)
        if row[field] != had or isinstance(row[field], bool) or isinstance(row[field], str) != isinstance(had, str):
            raise DataError(f"{where}: `{field}` was changed, and only `keep` may be", _AGAIN)
    return key
