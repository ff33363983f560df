"""Bytes of a file that may be packed (`.gz`), never more of them in memory than the limits allow.

A file that is too large is refused by its size on disk, or, where it is packed, by unpacking it once without keeping anything. Lines are
read one at a time, so that a line without end is refused when it has grown too long and not when memory is full.
"""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from letheon.core.errors import DataError

MEGABYTE = 1_000_000
_MARK, _WIDE = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Limits:
    """The largest input that is read: `megabytes` of a file once unpacked, `rows` of a file, `characters` of a text, megabytes of a row."""

    megabytes: float = 1024
    rows: int = 2_000_000
    characters: int = 20_000_000
    row_megabytes: float = 32

    @property
    def file_bytes(self) -> int:
        """Bytes of a file."""
        return int(self.megabytes * MEGABYTE)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(self.row_megabytes * MEGABYTE)


def too_large(path: Path, limits: Limits) -> DataError:
    """The error about a file."""
    return DataError(f"{path} holds more than {limits.megabytes:g} MB", "Split it, or raise `max_megabytes`")


def too_long(where: str, limits: Limits, hint: str = "Split the row") -> DataError:
    """The error about a row."""
    return DataError(f"{where} is longer than {limits.row_megabytes:g} MB", f"{hint}, or raise `max_row_megabytes`")


@contextlib.contextmanager
def opened(path: Path, limits: Limits) -> Iterator[IO[bytes]]:
    """The unpacked bytes of a file. The size of one that is not packed has been looked at.

    Raises:
        DataError: it cannot be read or unpacked, or is too large.
    """
    try:
        with gzip.open(path) if _packed(path) else path.open("rb") as file:
            if not _packed(path) and path.stat().st_size > limits.file_bytes:
                raise too_large(path, limits)
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}", "Was the download cut short?") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def size_of(path: Path, limits: Limits) -> int:
    """Bytes of a file once unpacked; none of them are kept.

    Raises:
        DataError: it cannot be read or unpacked, or is too large.
    """
    with opened(path, limits) as file:
        if not _packed(path):
            return path.stat().st_size
        size = 0
        while part := file.read(MEGABYTE):
            size += len(part)
            if size > limits.file_bytes:
                raise too_large(path, limits)
        return size


def read_bytes(path: Path, limits: Limits) -> bytes:
    """The content of a file, unpacked, without byte order mark.

    Raises:
        DataError: it cannot be read or unpacked, is too large, or is UTF-16.
    """
    size = size_of(path, limits)
    with opened(path, limits) as file:
        raw = file.read(size)  # more would be set aside in memory at once
    _check_wide(path, raw)
    return raw.removeprefix(_MARK)


def _check_wide(path: Path, raw: bytes) -> None:
    if raw[:2] in _WIDE:
        raise DataError(f"{path} is UTF-16, not UTF-8", "Save it as UTF-8")


def first_lines(path: Path, limits: Limits, count: int = 2) -> list[bytes]:
    """The first lines that are not blank, from their first sign on, cut where they are longer than a row may be.

    Raises:
        DataError: the file cannot be read or unpacked, or is UTF-16.
    """
    found: list[bytes] = []
    with opened(path, limits) as file:
        _check_wide(path, head := file.read(3))
        rest = b"" if head == _MARK else head
        read = len(head)
        while len(found) < count and read <= limits.file_bytes:
            # the three bytes that were looked at may hold whole lines
            line, end, after = rest.partition(b"\n")
            if end:
                rest = after
            else:
                more = file.readline(limits.row_bytes + 1)
                read += len(more)
                if not more and not rest:
                    break
                line, rest = rest + more, b""
            if line.strip():
                found.append(line.strip())
    return found


def lines_of(path: Path, limits: Limits) -> Iterator[tuple[int, int, bytes]]:
    """Lines that are not blank: row and line, both from 1, and the bytes.

    Raises:
        DataError: the file cannot be read or unpacked or is too large, or a line is too long.
    """
    row = number = read = 0
    with opened(path, limits) as file:
        while line := file.readline(limits.row_bytes + 1):
            number, read = number + 1, read + len(line)
            if read > limits.file_bytes:
                raise too_large(path, limits)
            line = line.removeprefix(_MARK) if number == 1 else line
            row += bool(line.strip())
            if len(line) > limits.row_bytes:
                where = f"{path}, row {max(1, row)}" + (f" (line {number})" if number != max(1, row) else "")
                raise too_long(where, limits, "Is the end of a line missing? Split the row")
            if line.strip():
                yield row, number, line
