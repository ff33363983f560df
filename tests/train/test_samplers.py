"""Which rows meet in one step."""

from __future__ import annotations

import numpy as np
import pytest

from letheon.core.run import Run
from letheon.train.samplers.cyclic import Cyclic
from letheon.train.samplers.paired import Paired

RUN = Run(0)


def joined(steps, split: str) -> np.ndarray:
    return np.concatenate([step[split] for step in steps])


@pytest.mark.parametrize("sampler", [Paired(), Paired(fixed=True), Cyclic()])
@pytest.mark.parametrize("retain", [3, 10, 57])
def test_an_epoch_walks_the_leading_split_once_and_draws_as_many_partners(sampler, retain):
    steps = sampler.epoch({"forget": 10, "retain": retain}, "forget", 4, RUN, 0)
    assert [len(step["forget"]) for step in steps] == [4, 4, 2]
    assert all(len(step["retain"]) == len(step["forget"]) for step in steps)
    assert sorted(joined(steps, "forget")) == list(range(10))
    counts = np.bincount(joined(steps, "retain"), minlength=retain)
    assert counts.max() - counts.min() <= 1  # no partner comes again before all have been drawn


@pytest.mark.parametrize("sampler", [Paired(), Cyclic()])
def test_orders_depend_on_seed_and_epoch_alone(sampler):
    sizes = {"forget": 30, "retain": 50}
    one, again, later = (joined(sampler.epoch(sizes, "forget", 8, RUN, epoch), "forget").tolist() for epoch in (0, 0, 1))
    assert one == again != later
    assert joined(sampler.epoch(sizes, "forget", 8, Run(1), 0), "forget").tolist() != one


def partners(sampler, epoch: int) -> dict[int, int]:
    steps = sampler.epoch({"forget": 20, "retain": 200}, "forget", 7, RUN, epoch)
    return dict(zip(joined(steps, "forget").tolist(), joined(steps, "retain").tolist(), strict=True))


def test_fixed_partners_stay_and_free_ones_change():
    assert partners(Paired(fixed=True), 0) == partners(Paired(fixed=True), 5)
    assert partners(Paired(), 0) != partners(Paired(), 5)


def test_cyclic_gives_every_retain_row_its_turn_across_epochs():
    drawn = np.concatenate([joined(Cyclic().epoch({"forget": 6, "retain": 17}, "forget", 4, RUN, epoch), "retain") for epoch in range(17)])
    assert len(drawn) == 6 * 17
    for k in range(6):  # six whole passes over 17 rows
        assert sorted(drawn[17 * k : 17 * (k + 1)]) == list(range(17))
    assert drawn[:17].tolist() != drawn[17:34].tolist()
