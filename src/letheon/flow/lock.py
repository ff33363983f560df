"""One process at a time in a folder: a lock that the system takes back when its process ends, however it ends.

The lock is `flock` on the file `lock` in the folder. What was killed or switched off leaves that file and no lock, so nothing stale stands
in the way of the next one. Windows and file systems that know no locks are not guarded; the latter say so in a warning.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from letheon.core.errors import RunError
from letheon.core.files import disk_faults

log = logging.getLogger("letheon")
NAME = "lock"


class Held(RunError):
    """Another process works in the folder."""


@contextlib.contextmanager
def alone(folder: Path, shown: Path) -> Iterator[None]:
    """Hold `folder` for this process. It is made, and is gone after the block if it is empty.

    Args:
        shown: how the error calls the output.

    Raises:
        RunError: another process holds it, or the disk refuses.
    """
    folder = Path(os.path.abspath(folder))
    made = [one for one in (folder, *folder.parents) if not one.exists()] or [folder]
    with disk_faults(folder):
        file = _locked(folder, shown)
    try:
        yield
    finally:
        (folder / NAME).unlink(missing_ok=True)  # still held: whoever waits for this file finds that it is no longer the one in the folder
        os.close(file)
        for one in made:
            with contextlib.suppress(OSError):  # something has been put there
                one.rmdir()


def _locked(folder: Path, shown: Path) -> int:
    """An open file that holds the lock of the folder."""
    for left in reversed(range(1000)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
        except (FileNotFoundError, FileExistsError):
            if not left:
                raise
            continue  # the process before has just removed its folder
        try:
            held = _taken(file, folder)
        except BaseException:
            os.close(file)
            raise
        if not held:
            owner = os.pread(file, 200, 0).decode("utf-8", "replace").strip() or "another process"
            os.close(file)
            raise Held(f"{shown} is in use by {owner}", "Wait until it is done, or choose another output folder")
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(folder / NAME)):
                os.ftruncate(file, 0)
                os.pwrite(file, f"process {os.getpid()} on {platform.node() or 'this machine'}\n".encode(), 0)
                return file
        os.close(file)
    raise RunError(f"{folder} comes and goes", "Other processes are using it: choose another output folder")


def _taken(file: int, folder: Path) -> bool:
    """Whether the lock is ours now; true where there are no locks."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("%s cannot be locked (%s): make sure that no other process works there", folder, error.strerror or error)
    return True
