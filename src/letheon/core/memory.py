"""Memory that tensors give back is kept for the next ones, instead of being asked of the system again page by page."""

from __future__ import annotations

import ctypes
import functools
import os
import platform

BLOCK, KEPT = 32 << 20, 64 << 20  # bytes: blocks up to this size come from memory that was freed; how much of it is kept
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # names of mallopt(3)


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep up to 64 MiB of freed memory, from the first call to the end of the process; says whether it does.

    By default it hands large blocks back to the system at once, and a pass over a few batches takes tens of thousands of page faults.
    Other C libraries, and thresholds that the environment sets, are left as they are.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(_MMAP_THRESHOLD, BLOCK) and library.mallopt(_TRIM_THRESHOLD, KEPT))
