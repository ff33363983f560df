"""Digests of files and of model folders, as OpenSSF model-signing 1.x takes them (method "files").

    root = sha256(raw digest of file 1 + raw digest of file 2 + ...)

Files stand in the order of their relative paths, compared part by part: `a/z` before `a-b` before `a.txt`. Names are not in the root; they
are in the signed list. `.git`, `.gitignore`, `.gitattributes` and `.github` at the top do not count. A link to a file counts as the file
it points to; a link to a folder is refused, because model-signing would leave out what is in it without a word. Card: evidence.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from letheon.core.errors import DataError

IGNORED = frozenset({".git", ".gitignore", ".gitattributes", ".github"})


@dataclass(frozen=True)
class Folder:
    """A model folder as it was hashed: its name, its root and its files (relative POSIX path, sha256), in the order of the root."""

    name: str
    root: str
    files: tuple[tuple[str, str], ...]


def of_bytes(content: bytes) -> str:
    """sha256 of some bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def of_file(path: str | Path) -> str:
    """sha256 of a file, read piece by piece, hexadecimal.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def order(path: str) -> tuple[str, ...]:
    """What relative POSIX paths are sorted by."""
    return tuple(path.split("/"))


def manifest(path: str | Path) -> list[tuple[str, str]]:
    """Every file of a folder with its sha256: (relative POSIX path, hexadecimal digest), in the order of the root.

    Raises:
        DataError: the folder is missing or holds what is neither file nor folder, a link to a folder, or a name that is not UTF-8.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}")
    return [(name, of_file(folder / name)) for name in sorted(names(folder), key=order)]


def root_of(files: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> str:
    """The root over such a list, hexadecimal."""
    return of_bytes(b"".join(bytes.fromhex(digest) for _, digest in sorted(files, key=lambda file: order(file[0]))))


def root(path: str | Path) -> str:
    """The root of a folder, hexadecimal. Raises as `manifest` does."""
    return root_of(manifest(path))


def folder(path: str | Path, name: str | None = None) -> Folder:
    """A folder with its root and its list of files, hashed once.

    Args:
        name: how statements call it; default: the name of the folder.
    """
    files = tuple(manifest(path))
    return Folder(name or Path(path).resolve().name, root_of(files), files)


def names(folder: Path) -> list[str]:
    """Every file of a folder that counts (relative POSIX path), in no order. Raises as `manifest` does."""
    found, left = [], [""]
    while left:
        below = left.pop()
        try:
            entries = list(os.scandir(folder / below))
        except OSError as error:
            raise DataError(f"{folder / below} cannot be read: {error.strerror or error}") from error
        for entry in entries:
            if not below and entry.name in IGNORED:
                continue
            name = f"{below}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                left.append(f"{name}/")
                continue
            _check(folder, name)
            found.append(name)
    return found


def _check(folder: Path, name: str) -> None:
    """Refuse what has no bytes of its own, and names that cannot be written down."""
    path = folder / name
    try:
        name.encode()
        kind = path.stat().st_mode
    except UnicodeEncodeError as error:
        raise DataError(f"A file of {folder} has a name that is not UTF-8: {os.fsencode(name)!r}", "Rename it") from error
    except OSError as error:
        what = "is a link that leads nowhere" if path.is_symlink() else f"cannot be read: {error.strerror or error}"
        raise DataError(f"{path} {what}", "Remove it or put the file in its place") from error
    if stat.S_ISDIR(kind):
        raise DataError(f"{path} is a link to a folder", "Put the folder itself in its place")
    if not stat.S_ISREG(kind):
        raise DataError(f"{path} is neither a file nor a folder", "Remove it")
