"""The small world that guards are tested on."""

from __future__ import annotations

import pytest

from letheon.core.data import Data
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.guard.eco import Eco

from .world import knower as trained
from .world import people


@pytest.fixture(scope="session")
def world() -> Data:
    """See `people`."""
    return people()


@pytest.fixture(scope="session")
def knower(world) -> Subject:
    """A model that knows everything; shared, so no test may change it."""
    return trained(world)


@pytest.fixture(scope="session")
def quiet() -> Run:
    """Float32 on the CPU."""
    return Run(0, dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def guarded(knower, world, quiet) -> Subject:
    """The knower behind strong noise."""
    return Eco(strength=100.0).apply(knower, world, quiet)


@pytest.fixture(scope="session")
def blanked(knower, world, quiet) -> Subject:
    """The knower with the first half of the coordinates of caught prompts set to zero."""
    return Eco(corruption="zero", dims=16).apply(knower, world, quiet)
