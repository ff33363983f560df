"""Shared by benchmarks of texts: their files, texts, prefixes with continuations, and repeats of the same text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from letheon.core.data import Example, Split
from letheon.core.errors import DataError

from ._rows import load_records, to_split
from ._tables import Limits

ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")


def file_in(folder: Path, *stems: str) -> Path | None:
    """The file with the first of these names that is there; also as the hub cuts files, `stem-00000-of-00001.parquet`."""
    for stem in stems:
        found = [path for ending in ENDINGS if (path := folder / f"{stem}{ending}").is_file()]
        found += sorted((folder / stem).parent.glob(f"{Path(stem).name}-[0-9]*.parquet"))
        if found:
            return found[0]
    return None


def needed(folder: Path, benchmark: str, *stems: str) -> Path:
    """As `file_in`, for a file that must be there.

    Raises:
        DataError: it is not.
    """
    path = file_in(folder, *stems)
    if path is None:
        raise DataError(f"The folder {folder} has no {stems[0]}.json", f"Copy the missing file of {benchmark} into it")
    return path


def texts_of(path: Path, name: str) -> tuple[list[Example], int]:
    """The texts of a file as rows without prompt, and how many empty ones were left out.

    Raises:
        DataError: a row is no text; the message has file and row.
    """
    empty: list = []
    records = load_records(path, {}, Limits())
    return list(to_split(records, name, {}, Limits(), empty=empty)), len(empty)


def pairs_of(path: Path, name: str, prompt: str = "question", answer: str = "answer") -> list[Example]:
    """The rows of a file with a prompt and an answer.

    Raises:
        DataError: a row lacks either; the message has file and row.
    """
    fields = {"prompt": prompt, "answer": answer}
    records = load_records(path, fields, Limits())
    for record in records:
        if isinstance(record.value, dict) and record.value.get(prompt) == "":
            raise DataError(f"{record.where} has an empty `{prompt}`", "Take the file again from where it was published")
    rows = list(to_split(records, name, fields, Limits()))
    bare = next((record for record, row in zip(records, rows, strict=True) if not row.prompt), None)
    if bare is not None:
        raise DataError(f"{bare.where} has no `{prompt}`", f"A row looks like {{{prompt!r}: ..., {answer!r}: ...}}")
    return rows


def first_of_each(rows: Iterable[Example], taken: Iterable[str] = ()) -> tuple[list[Example], int]:
    """The rows whose text is neither among `taken` nor that of a row before, and how many were left out."""
    seen, kept, lost = set(taken), [], 0
    for row in rows:
        if row.answer in seen:
            lost += 1
        else:
            seen.add(row.answer)
            kept.append(row)
    return kept, lost


def grouped(rows: Sequence[Example], group: str) -> list[Example]:
    """The rows with `group`."""
    return [replace(row, group=group) for row in rows]


def splits_of(rows: dict[str, Sequence[Example]]) -> dict[str, Split]:
    """Splits by name, those with rows."""
    return {name: Split(found, name) for name, found in rows.items() if found}


def counted(number: int, what: str) -> str:
    """`1 text`, `2 texts`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
