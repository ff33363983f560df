"""The memorised facts, made once for all tests of methods."""

from __future__ import annotations

import pytest

from letheon.core.data import Data
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.erase.grad_ascent import GradAscent

from .fact_world import facts, memorised, on_each, untrained
from .matched import MATCHED, Matched, matched


@pytest.fixture(scope="session")
def fact_data() -> Data:
    """See `facts`."""
    return facts()


@pytest.fixture(scope="session")
def knower(fact_data) -> Subject:
    """A model that knows all facts; shared, so no test may change it."""
    return memorised(fact_data)


@pytest.fixture(scope="session")
def knowers(knower, fact_data) -> list[Subject]:
    """Three models that know all facts, the first is the knower: what is claimed of a method holds of the mean over them."""
    return [knower, *(memorised(fact_data, seed) for seed in (1, 2))]


@pytest.fixture(scope="session")
def stranger(fact_data) -> Subject:
    """The same architecture with random weights; shared, so no test may change it."""
    return untrained(fact_data)


@pytest.fixture(scope="session")
def graddiffs(knowers, fact_data) -> list[Subject]:
    """The knowers after gradient ascent with a retain term of the same weight: what gentler methods are compared with."""
    settings = {"steps": 60, "learning_rate": 5e-4, "batch_size": 24, "schedule": "constant", "warmup": 0.0, "retain": "nll"}
    return on_each(GradAscent(**settings), knowers, fact_data)


@pytest.fixture(scope="session")
def graddiff(graddiffs) -> Subject:
    """The first of them."""
    return graddiffs[0]


@pytest.fixture(scope="session")
def ascended(knowers, fact_data) -> Matched:
    """Plain ascent at matched forgetting."""
    return matched(GradAscent(**MATCHED), knowers, fact_data)


@pytest.fixture
def run() -> Run:
    """Float32 on the CPU."""
    return Run(0, dtype="float32", device="cpu")
