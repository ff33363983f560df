"""Rows and models that selections are tried on."""

from __future__ import annotations

import pytest

from letheon.core.data import Data
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.testing import toy_data, toy_subject


@pytest.fixture(scope="session")
def data() -> Data:
    """Toy people: 8 rows to forget, 12 to keep."""
    return toy_data()


@pytest.fixture(scope="session")
def subject() -> Subject:
    """A random model; shared, so no test may change it."""
    return toy_subject()


@pytest.fixture
def run() -> Run:
    """Float32 on the CPU."""
    return Run(0, dtype="float32", device="cpu")
