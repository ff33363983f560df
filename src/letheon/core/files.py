"""Writing that is whole or absent: a temporary name in the same folder, flushed to disk, then moved."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import RunError


@contextlib.contextmanager
def _as_the_system_said() -> Iterator[None]:
    """A disk fault inside safetensors as the OSError that it is."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


@contextlib.contextmanager
def disk_faults(path: str | Path) -> Iterator[None]:
    """Turn disk faults while writing `path` into a RunError of one sentence."""
    try:
        with _as_the_system_said():
            yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            hint = "Nothing was half-written; free space and run again"
            raise RunError(f"No space left on the disk while writing {path}", hint) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RunError(f"{path} cannot be written: permission denied or read-only", "Choose another folder with `--out`") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise RunError(f"{path} cannot be written: a file stands where a folder is needed, or the reverse") from error
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: str | Path, content: bytes, *, secret: bool = False, new: bool = False) -> Path:
    """Write a file whole or not at all, making its folder if needed.

    Args:
        secret: nobody but its owner may read it, from the first byte on.
        new: never over another file.

    Raises:
        RunError: the disk refuses, or something stands there and `new` was asked for.
    """
    path = Path(path)
    with disk_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if not secret:
                os.chmod(name, 0o666 & ~_umask())
            if new and not _linked(name, path):
                raise RunError(f"{path} exists already", "It is never replaced: move it away first")
            if not new:
                os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    return path


def _linked(name: str, path: Path) -> bool:
    """Give a file a second name; false where something has that name."""
    try:
        os.link(name, path)
    except FileExistsError:
        return False
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> Path:
    """Write a UTF-8 file whole or not at all."""
    return write_bytes(path, text.encode("utf-8"))


def _exchanged(one: Path, two: Path) -> bool:
    """Swap two folders in one step of the file system; false where it cannot do that."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(two), exchange) == 0


def _put_in_place(work: Path, path: Path) -> None:
    """Move `work` to `path`. What stood there is removed after that, or stands there again if the move fails."""
    if not path.exists():
        os.replace(work, path)
        return
    if path.is_dir() and not path.is_symlink() and _exchanged(work, path):
        return  # `work` now holds what stood there, and the caller removes it
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    try:
        os.replace(path, old / path.name)
        try:
            os.replace(work, path)
        except BaseException:
            os.replace(old / path.name, path)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def whole_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary folder to fill; move it to `path` when the block ends well, remove it otherwise.

    Raises:
        RunError: `path` exists and `replace` is false, or the disk refuses.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise RunError(f"{path} already exists", "Give `--force` to replace it, or another `--out`")
    with disk_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        os.chmod(work, 0o777 & ~_umask())
        with disk_faults(path):
            yield work
            for file in work.rglob("*"):
                if file.is_file():
                    _flush(file)
            _put_in_place(work, path)
            _flush(path.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
