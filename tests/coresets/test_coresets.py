"""What all coresets share: exact sizes, whole rows in their order, the rest on record, errors before work."""

from __future__ import annotations

import numpy as np
import pytest

from letheon.core import registry
from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError, MethodError, SettingsError, SubjectError
from letheon.core.run import Run
from letheon.select._coreset import best, size_of
from letheon.testing import toy_subject

NAMES = sorted(registry.plugins("select"))
ROWS = [name for name in NAMES if name != "keyword"]
LOOKING = [name for name in ROWS if name != "random"]


def ids(split: Split) -> list[str]:
    return [row.id for row in split]


def test_the_coresets_are_there():
    assert {"grand", "keyword", "min-k", "moderate", "random"} <= set(NAMES)


@pytest.mark.parametrize(("fraction", "n", "size"), [(1, 7, 7), (0.5, 7, 3), (0.01, 7, 1), (0.29, 100, 29), (0.05, 400, 20), (1, 1, 1)])
def test_sizes_are_rounded_down_but_never_to_nothing(fraction, n, size):
    assert size_of(fraction, n) == size


def test_equal_scores_fall_to_the_earlier_row():
    assert best(np.array([1.0, 2.0, 1.0, 2.0, 1.0]), 3).tolist() == [0, 1, 3]
    assert best(np.zeros(4), 2).tolist() == [0, 1]


@pytest.mark.parametrize("name", ROWS)
def test_everything_is_every_row_once_in_its_order(name, data, subject, run):
    found = registry.load(name, "select")(fraction=1).curate(data, run, subject)
    assert found["forget"].digest == data["forget"].digest == found["forget-all"].digest
    assert "forget-rest" not in found


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("name", ROWS)
def test_chosen_and_rest_are_the_rows_in_their_order(name, fraction, data, subject, run):
    found = registry.load(name, "select")(fraction=fraction).curate(data, run, subject)
    order = ids(data["forget"])
    assert len(found["forget"]) == size_of(fraction, 8)
    assert sorted(ids(found["forget"]) + ids(found["forget-rest"])) == sorted(order)
    for split in ("forget", "forget-rest"):
        assert ids(found[split]) == sorted(ids(found[split]), key=order.index)
        assert all(row == data["forget"][order.index(row.id)] for row in found[split])
    assert found["forget-all"].digest == data["forget"].digest
    assert all(found[split].digest == data[split].digest for split in data if split != "forget")
    assert set(found) == {*data, "forget-all", "forget-rest"}


@pytest.mark.parametrize("name", ROWS)
def test_larger_fractions_hold_the_smaller_ones(name, data, subject, run):
    chosen = [set(ids(registry.load(name, "select")(fraction=f).curate(data, run, subject)["forget"])) for f in (0.125, 0.4, 0.8)]
    assert chosen[0] < chosen[1] < chosen[2]


@pytest.mark.parametrize("name", NAMES)
def test_there_must_be_rows_to_forget(name, data, subject, run):
    with pytest.raises(DataError, match="needs a `forget` split"):
        registry.load(name, "select")().curate(Data({"retain": data["retain"]}), run, subject)
    with pytest.raises(DataError, match="`forget` split of the data `data` is empty"):
        registry.load(name, "select")().curate(Data({"forget": Split([], "forget")}), run, subject)


@pytest.mark.parametrize("name", LOOKING)
def test_a_model_is_needed_and_must_be_sound(name, data, run):
    with pytest.raises(MethodError, match=f"`{name}` selects rows by what a model says"):
        registry.load(name, "select")().curate(data, run)
    broken = toy_subject()
    next(broken.module.parameters()).data[0, 0] = float("nan")
    with pytest.raises(SubjectError, match="NaN"):
        registry.load(name, "select")().curate(data, run, broken)


@pytest.mark.parametrize("name", LOOKING)
def test_a_row_that_does_not_fit_is_named(name, subject, run):
    long = Data({"forget": Split([Example("a", "yes", "Is it?"), Example("b", "word " * 300, "What?")], "forget")})
    with pytest.raises(DataError, match="row `b` of `forget`"):
        registry.load(name, "select")().curate(long, run, subject)


@pytest.mark.parametrize("fraction", [0, 1.01, -0.5])
def test_a_fraction_lies_in_0_to_1(fraction):
    for name in NAMES:
        with pytest.raises(SettingsError, match=f"`fraction` of `{name}` must be"):
            registry.load(name, "select")(fraction=fraction)


def test_random_repeats_by_seed_and_nests_on_wish(data):
    def chosen(seed: int, **settings) -> list[str]:
        return ids(registry.load("random", "select")(**settings).curate(data, Run(seed, device="cpu"))["forget"])

    assert chosen(0, fraction=0.5) == chosen(0, fraction=0.5)
    assert len({tuple(chosen(seed, fraction=0.5)) for seed in range(8)}) > 4
    assert all(set(chosen(seed, fraction=0.25)) < set(chosen(seed, fraction=0.5)) for seed in range(8))
    apart = [set(chosen(seed, fraction=0.25, nested=False)) < set(chosen(seed, fraction=0.5, nested=False)) for seed in range(8)]
    assert not all(apart)  # each has probability C(4, 2) / C(8, 2) = 3 / 14 by chance


def test_random_is_uniform(data):
    picks = np.zeros(8)
    for seed in range(200):
        rows = registry.load("random", "select")(fraction=0.25).curate(data, Run(seed, device="cpu"))["forget"]
        picks[[ids(data["forget"]).index(row.id) for row in rows]] += 1
    # 200 draws of 2 out of 8: mean 50 and standard deviation sqrt(200 / 4 * 3 / 4) = 6.1 for each row
    assert picks.sum() == 400 and np.abs(picks - 50).max() < 5 * 6.1
