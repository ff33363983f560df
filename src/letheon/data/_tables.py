"""Files to records: JSON lines, JSON, CSV, Parquet and plain text, with the row and line where something is broken.

Text files may be compressed (`.gz`), may begin with a byte order mark and must be UTF-8. Rows count from 1. A `.txt` file is one row.
A `.json` file holds a list, an object with one list in it, or (as TOFU's files do) one object a line.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from letheon.core.errors import DataError, nearest

from ._fields import shown
from ._reading import Limits, first_lines, lines_of, read_bytes, too_large, too_long

LINES, WHOLE, CELLS, PARQUET, TEXT = (".jsonl", ".ndjson"), (".json",), (".csv", ".tsv"), (".parquet", ".pq"), (".txt",)
KNOWN = LINES + WHOLE + CELLS + PARQUET + TEXT
_BATCH, _UNPACKED = (16, 1024), 256_000_000  # rows of Parquet at a time, and about how many bytes of them


@dataclass(frozen=True, slots=True)
class Record:
    """What stands in one row, before anything is known about its fields. `line` is None where rows are not lines."""

    path: Path
    row: int
    value: Any
    line: int | None = None

    @property
    def where(self) -> str:
        """File and row, as messages begin."""
        return f"{self.path}, row {self.row}" + (f" (line {self.line})" if self.line not in (None, self.row) else "")


def read_records(path: Path, limits: Limits, names: frozenset[str] = frozenset()) -> Iterator[Record]:
    """The rows of a file, in order; there is at least one.

    Args:
        path: the file; its name says the format.
        limits: what is too large.
        names: lower-case names of fields; a JSON object that has one of them is a row and not a table of rows.

    Raises:
        DataError: the file is missing, not readable, empty, too large, of an unknown format or broken.
    """
    try:
        path = path.expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # a name that is too long, a home that nobody has
        raise DataError(f"{str(path)[:200]} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    kind = _kind(path)
    _check_is_file(path)
    found = _parquet(path, limits) if kind in PARQUET else _from_text(path, kind, limits, names)
    count = 0
    for count, record in enumerate(found, 1):
        if count > limits.rows:
            raise DataError(f"{path} has more than {limits.rows} rows", "Read the first with `limit`, or raise `max_rows`")
        yield record
    if not count:
        raise DataError(f"{path} holds no rows", "A split needs at least one")


def _kind(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    kind = (suffixes[-2:-1] if packed else suffixes[-1:] or [""])[0] if suffixes else ""
    if path.is_dir():
        inside = sorted(file.name for file in path.iterdir() if file.suffix.lower() in (*KNOWN, ".gz"))[:3]
        raise DataError(f"{path} is a folder, not a file", "Name a file in it" + (f", such as {', '.join(inside)}" if inside else ""))
    if kind not in KNOWN or (packed and kind in PARQUET):
        raise DataError(f"{path} has no known ending", f"Known: {', '.join(KNOWN)}, and .gz after those of text")
    return kind


def _check_is_file(path: Path) -> None:
    if path.is_file():
        return
    if path.exists():
        raise DataError(f"{path} is not an ordinary file")
    if not path.parent.is_dir():
        raise DataError(f"There is no file {path}", f"There is no folder {path.parent}")
    near = nearest(path.name, [file.name for file in path.parent.iterdir()])
    raise DataError(f"There is no file {path}", f"Did you mean `{near}`?" if near else None)


def read_lines(path: Path, limits: Limits) -> list[str]:
    """The lines of a text file that are not empty, without spaces around them."""
    lines = [line.strip() for line in _decode(read_bytes(path, limits), str(path)).splitlines()]
    return [line for line in lines if line]


def _decode(raw: bytes, where: str, first_line: int | None = 1) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw.count(b"\n", 0, error.start)
        line = "" if first_line is None else f" in line {first_line + before}"
        raise DataError(f"{where}: not UTF-8{line} (byte 0x{raw[error.start]:02x})", "Save the file as UTF-8") from error


def _from_text(path: Path, kind: str, limits: Limits, names: frozenset[str]) -> Iterator[Record]:
    head = first_lines(path, limits)
    if not head:
        read_bytes(path, limits)  # a file of nothing but blanks may be too large as well
        raise DataError(f"{path} is empty", "A split needs at least one row")
    if kind in (*LINES, *WHOLE) and _is_lines(head, kind):
        return _lines(path, limits)
    raw = read_bytes(path, limits)
    if kind in TEXT:
        if len(raw) > limits.row_bytes:
            raise too_long(f"{path}, row 1", limits, "A text file is one row: split it")
        return iter([Record(path, 1, {"text": _decode(raw, str(path))})])
    if kind in CELLS:
        return _cells(path, _decode(raw, str(path)), limits, "\t" if kind == ".tsv" else None)
    return _whole(path, _decode(raw, str(path)), names, limits)


def _is_lines(head: list[bytes], kind: str) -> bool:
    """Whether JSON is one value a line: said by the name, or seen where one of the first two lines is whole by itself."""
    first, second = [*head, b""][:2]
    if kind in LINES and not first.startswith(b"["):
        return True
    return bool(second) and (_is_value(first, dict, str) or first.startswith(b"{") and _is_value(second, dict))


def _is_value(line: bytes, *kinds: type) -> bool:
    try:
        return isinstance(json.loads(line), kinds)
    except (ValueError, RecursionError):
        return False


def _why(error: Exception, line: bool = True) -> str:
    if isinstance(error, json.JSONDecodeError):
        place = f"line {error.lineno}, column {error.colno}" if line else f"column {error.colno}"
        message = error.msg.removesuffix(" at")  # some messages end so
        return f"{message[:1].lower()}{message[1:]} at {place}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error).partition(";")[0]


def _lines(path: Path, limits: Limits) -> Iterator[Record]:
    for row, line, content in lines_of(path, limits):
        where = Record(path, row, None, line).where
        try:
            value = json.loads(_decode(content, where, None))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: broken JSON, {_why(error, line=False)}", "Each line must be one JSON object") from error
        yield Record(path, row, value, line)


def _whole(path: Path, text: str, names: frozenset[str], limits: Limits) -> Iterator[Record]:
    if text.lstrip().startswith("["):
        yield from _listed(path, text, limits)
        return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: broken JSON, {_why(error)}", "Is a comma, quote or bracket missing there?") from error
    if isinstance(value, dict):
        lists = [key for key, part in value.items() if isinstance(part, list)]
        is_row = not lists or any(key.strip().casefold() in names for key in value)
        if not is_row and len(lists) > 1:
            raise DataError(f"{path} holds {len(lists)} lists: {shown(lists, 5)}", "Put the list that is meant into a file of its own")
        value = [value] if is_row else value[lists[0]]
    if not isinstance(value, list):
        raise DataError(f"{path} holds no list of rows", "Write a JSON list of objects, or one object a line")
    for row, part in enumerate(value, 1):
        yield Record(path, row, part)


def _listed(path: Path, text: str, limits: Limits) -> Iterator[Record]:
    """The rows of a JSON list, one at a time, so that no more of them are made than the limits allow."""
    decode, space = json.JSONDecoder().raw_decode, re.compile(r"[ \t\n\r]*")
    row, at = 1, space.match(text, text.index("[") + 1).end()  # type: ignore[union-attr]
    more = text[at : at + 1] != "]"
    try:
        while more:
            value, end = decode(text, at)
            if end - at > limits.row_bytes:
                raise too_long(f"{path}, row {row}", limits)
            yield Record(path, row, value)
            at = space.match(text, end).end()  # type: ignore[union-attr]
            more = text[at : at + 1] == ","
            if more:
                row, at = row + 1, space.match(text, at + 1).end()  # type: ignore[union-attr]
        if text[at : at + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        if space.match(text, at + 1).end() != len(text):  # type: ignore[union-attr]
            raise json.JSONDecodeError("Extra data", text, at + 1)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, row {row}: broken JSON, {_why(error)}", "Is a comma, quote or bracket missing there?") from error


def _cells(path: Path, text: str, limits: Limits, separator: str | None) -> Iterator[Record]:
    """Rows of a table as text. A `.csv` without any comma in its header may use semicolons or tabs."""
    head = text.lstrip("\r\n").partition("\n")[0]
    if separator is None:
        separator = next((mark for mark in ",;\t" if mark in head), ",")
    before = csv.field_size_limit(max(limits.characters * 2, 131_072))  # a setting of the whole process, put back below
    try:
        yield from list(_table(path, csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), limits))
    finally:
        csv.field_size_limit(before)


def _table(path: Path, reader: Any, limits: Limits) -> Iterator[Record]:
    header: list[str] | None = None
    row, line = 0, 1
    try:
        for cells in reader:
            first, line = line, reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = [name.strip() for name in cells]
                twice = next((name for name in header if header.count(name) > 1), None)
                if twice is not None:
                    raise DataError(f"{path} has two columns called `{twice}`", "The first line must name each column once")
                continue
            row += 1
            if len(cells) != len(header):
                where = Record(path, row, None, first).where
                hint = "A text with a separator or line break in it must stand in quotes"
                raise DataError(f"{where} has {len(cells)} cells, the header has {len(header)}", hint)
            record = Record(path, row, dict(zip(header, cells, strict=True)), first)
            if sum(map(len, cells)) > limits.row_bytes:
                raise too_long(record.where, limits)
            if row > limits.rows + 1:  # the one that counts rows says so
                return
            yield record
    except csv.Error as error:
        where = Record(path, row + (header is not None), None, line).where
        if "field larger" in str(error):
            raise DataError(f"{where} has a cell of more than {csv.field_size_limit()} characters", "Is a quote left open?") from error
        raise DataError(f"{where}: broken CSV, {error}", "Is a quote left open?") from error


def _parquet(path: Path, limits: Limits) -> Iterator[Record]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet needs the package pyarrow", "Install `letheon[parquet]`") from error
    try:
        with parquet.ParquetFile(path) as file:
            groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
            if sum(group.total_byte_size for group in groups) > limits.file_bytes:
                raise too_large(path, limits)
            # a text that stands in a dictionary once may stand in a thousand rows
            largest = max((group.column(k).total_uncompressed_size for group in groups for k in range(group.num_columns)), default=1)
            row = size = 0
            for batch in file.iter_batches(batch_size=min(max(_UNPACKED // max(1, largest), _BATCH[0]), _BATCH[1])):
                size += batch.nbytes
                if size > limits.file_bytes:
                    raise too_large(path, limits)
                for value in batch.to_pylist():
                    row += 1
                    record = Record(path, row, value)
                    if sum(len(part) for part in value.values() if isinstance(part, str | bytes)) > limits.row_bytes:
                        raise too_long(record.where, limits)
                    yield record
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a whole Parquet file: {str(error).splitlines()[0]}", "Was the download cut short?") from error
