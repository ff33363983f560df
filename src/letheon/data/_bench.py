"""Shared by benchmark sources: finding a folder or its copy on the hub, and checked fields of raw records."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from letheon.core.data import Example
from letheon.core.errors import DataError

from ._fields import kind, shown
from ._rows import load_records, to_split
from ._tables import Limits, Record, read_records

ENDINGS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
T = TypeVar("T")


def folder_of(path: str, revision: str | None, wanted: Sequence[str], name: str, example: str) -> Path:
    """The folder that was named, or the copy of the hub's data set of that name.

    Args:
        path: a folder, or `owner/name` on the hub.
        wanted: patterns of the files to take from the hub.
        name: what the benchmark is called.
        example: a name on the hub, for messages.

    Raises:
        DataError: there is neither.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise DataError(f"{path} is a file, not a folder", f"Give the folder that holds the files of {name}")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path):
        raise DataError(f"There is no folder {path}", f"Give a folder with the files of {name}, or a name on the hub such as {example}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, repo_type="dataset", revision=revision, allow_patterns=list(wanted)))
    except Exception as error:  # which errors leave the hub's client depends on its version and HTTP library
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200].rstrip(". ")
        hint = f"Check name and network, or give a folder with the files of {name}: `path=DIR`"
        raise DataError(f"There is no folder {path}, and the hub does not give a data set of that name: {reason}", hint) from error


def file_of(folder: Path, *stems: str) -> Path | None:
    """The file with the first of these names that is there, in `folder` or in a folder of that name below it."""
    for stem in stems:
        for ending in ENDINGS:
            if (path := folder / f"{stem}{ending}").is_file():
                return path
        below = sorted(path for path in (folder / stem).glob("*") if path.name.endswith(ENDINGS)) if (folder / stem).is_dir() else []
        if len(below) == 1:
            return below[0]
    return None


def records(path: Path) -> list[Record]:
    """The rows of a file, each an object with fields.

    Raises:
        DataError: the file is broken, or a row is no object.
    """
    found = list(read_records(path, Limits(), frozenset({"question", "query", "text", "instruction", "target"})))
    for record in found:
        if not isinstance(record.value, dict):
            raise DataError(f"{record.where} is {kind(record.value)}, not an object with fields")
    return found


def own_rows(path: Path, name: str) -> list[Example]:
    """Rows of a person's own file, in any shape that the source `files` reads."""
    limits = Limits()
    return list(to_split(load_records(path, {}, limits), name, {}, limits))


def text_of(record: Record, *names: str) -> str:
    """The text in the first of these fields that the row has.

    Raises:
        DataError: there is none, or it is not text, or empty.
    """
    name = next((name for name in names if record.value.get(name) is not None), None)
    if name is None:
        raise DataError(f"{record.where} has no `{names[0]}`: it has {shown(record.value)}")
    value = record.value[name]
    if not isinstance(value, str):
        raise DataError(f"{record.where}: `{name}` is {kind(value)}, not text")
    if not value.strip():
        raise DataError(f"{record.where}: `{name}` is empty")
    return value


def texts_of(record: Record, value: Any, name: str, least: int = 1) -> tuple[str, ...]:
    """A list of texts, none of them empty.

    Raises:
        DataError: it is no such list, or has fewer than `least`.
    """
    if not isinstance(value, list) or len(value) < least or not all(isinstance(part, str) and part.strip() for part in value):
        what = f"{len(value)} values" if isinstance(value, list) else kind(value)
        raise DataError(f"{record.where}: `{name}` must hold {least} or more texts, none of them empty, got {what}")
    return tuple(value)


def place_of(record: Record, options: Sequence[str], name: str = "answer") -> int:
    """The place of the right option, counted from 0.

    Raises:
        DataError: it is no place of these options.
    """
    place = record.value.get(name)
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(options):
        shown_place = repr(place)[:40]
        raise DataError(f"{record.where}: `{name}` is {shown_place}, not a place among the {len(options)} choices, counted from 0")
    return place


def in_turn(rows: Iterable[T], key: Callable[[T], Any]) -> list[T]:
    """Rows of all keys in turn, so that the first rows are of many keys; rows of one key keep their order."""
    piles: dict[Any, list[T]] = defaultdict(list)
    for row in rows:
        piles[key(row)].append(row)
    longest = max(map(len, piles.values()), default=0)
    return [pile[k] for k in range(longest) for pile in piles.values() if k < len(pile)]
