"""Heavy imports happen once, before the first test is timed."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def warm() -> None:
    import peft  # noqa: F401

    from letheon.testing.toys import ARCHITECTURES, toy_subject

    for architecture in ARCHITECTURES:
        toy_subject(architecture=architecture)
