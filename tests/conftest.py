"""Fixtures shared by all tests."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Tests run side by side, one thread each: two workers with two threads on two cores wait for one another. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What a user's own cache keeps from other versions must not reach a test.
os.environ["LETHEON_CACHE"] = tempfile.mkdtemp(prefix="letheon-tests-")
atexit.register(shutil.rmtree, os.environ["LETHEON_CACHE"], ignore_errors=True)

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository; tests that need it are skipped where it is absent (tests/SKIPS.md)."""
    if not SHARED.is_dir():
        pytest.skip("real data is not beside the repository: see tests/SKIPS.md")
    return SHARED


@pytest.fixture
def no_file_beyond():
    """A block in which the system refuses to let any file grow beyond so many bytes, as a full disk would: `with no_file_beyond(40_000):`."""
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")

    @contextlib.contextmanager
    def limited(size: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
