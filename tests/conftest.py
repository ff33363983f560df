"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Tests run side by side, one thread each: two workers with two threads on two cores wait for one another. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository; tests that need it are skipped where it is absent (tests/SKIPS.md)."""
    if not SHARED.is_dir():
        pytest.skip("real data is not beside the repository: see tests/SKIPS.md")
    return SHARED
