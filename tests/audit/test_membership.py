"""Membership attacks and privleak: equivalences, orientation and what is reported where something is missing."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest

from letheon.core.data import Data, Example, Split
from letheon.core.registry import load
from letheon.maths.stats import auc, auc_interval


def two_sided(n=30):
    sides = {"forget": "f", "holdout": "h"}
    return Data({name: Split([Example(str(i), f"{letter}{i}", "q") for i in range(n)], name) for name, letter in sides.items()})


def logs(seed, n=30, shift=0.5):
    generator = np.random.default_rng(seed)
    return {
        f"{letter}{i}": (generator.normal(-3 + add, 1, size=generator.integers(2, 9))).tolist()
        for letter, add in (("f", shift), ("h", 0.0))
        for i in range(n)
    }


def measure(readings, run, reference=None, data=None, **settings):
    found = load("membership", "audit")(**settings).measure(readings, data or two_sided(), run, reference)
    return {f.name.removeprefix("membership-"): f for f in found}


def sides(values, function):
    return [np.array([function(values[f"{letter}{i}"], f"{letter}{i}") for i in range(30)]) for letter in "fh"]


def test_scores_are_higher_for_members(told, run):
    values = logs(0)
    found = measure(told(values), run, attacks=("loss", "zlib", "min-k"))
    wanted = {
        "loss": sides(values, lambda x, _: np.mean(np.float32(x))),
        "zlib": sides(values, lambda x, text: np.mean(np.float32(x)) / len(zlib.compress(text.encode()))),
        "min-k": sides(values, lambda x, _: np.mean(sorted(x[:-1])[: max(1, int(0.4 * (len(x) - 1)))])),
    }
    for attack, (members, others) in wanted.items():
        finding = found[attack]
        assert finding.rows == pytest.approx(members, rel=1e-6) and finding.extra["holdout_rows"] == pytest.approx(others, rel=1e-6)
        assert finding.value == pytest.approx(np.mean([(a > b) + 0.5 * (a == b) for a in members for b in others]))
        assert 0.5 < finding.value and finding.low <= finding.value <= finding.high
        assert finding.n == 30 and finding.extra["least_false_positive_rate"] == pytest.approx(1 / 30)
        assert finding.extra["true_positive_rate_at"]["0.001"] == pytest.approx((members > others.max()).mean())


def test_all_tokens_make_min_k_the_loss_on_the_same_tokens(told, run):
    values = logs(1)
    found = measure(told(values), run, attacks=("min-k",), share=1.0)["min-k"]
    assert found.rows == pytest.approx(sides(values, lambda x, _: np.mean(x[:-1]))[0], rel=1e-5)


def test_equal_zlib_lengths_leave_the_ranking_of_loss(told, run):
    readings = told(logs(2))
    data = two_sided()
    assert len({len(zlib.compress(row.answer.encode())) for split in data.values() for row in split[:10]}) == 1
    found = measure(readings, run, data=Data({name: split[:10] for name, split in data.items()}), attacks=("loss", "zlib"))
    assert found["zlib"].value == found["loss"].value


def test_reference_attack_fixed_points(told, run):
    values = logs(3)
    same = measure(told(values), run, told(values), attacks=("reference",))["reference"]
    assert same.value == 0.5 and set(same.rows) == {0.0}
    uniform = told({text: [math.log(1 / 7)] * len(each) for text, each in values.items()})
    found = measure(told(values), run, uniform, attacks=("reference", "loss"))
    assert found["reference"].value == found["loss"].value  # loss up to a constant
    assert np.array(found["reference"].rows) - np.array(found["loss"].rows) == pytest.approx(np.full(30, math.log(7)), abs=1e-6)
    alone = measure(told(values), run, attacks=("reference",))["reference"]
    assert alone.value is None and "reference model" in alone.note


def test_min_k_plus_of_a_flat_model_is_zero(told, run):
    flat = {text: [math.log(1 / 7)] * len(each) for text, each in logs(4).items()}
    moments = {text: (each, [0.0] * len(each)) for text, each in flat.items()}
    found = measure(told(flat, moments=moments), run, attacks=("min-k++",))["min-k++"]
    assert found.rows == (0.0,) * 30 and found.value == 0.5


def test_moments_are_asked_for_first(told, run):
    """A reading with moments serves the attacks that need none; the other order would measure twice."""
    values = logs(5)
    readings = told(values, moments={text: (each, [1.0] * len(each)) for text, each in values.items()})
    measure(readings, run, attacks=("loss", "min-k++"))
    assert readings.asked[:2] == [("forget", "answer", True), ("holdout", "answer", True)]


def test_gradnorm_is_smaller_for_members(told, run):
    norms = {f"{letter}{i}": add + i / 100 for letter, add in (("f", 0.0), ("h", 1.0)) for i in range(30)}
    found = measure(told({}, norms=norms), run, attacks=("gradnorm",))["gradnorm"]
    assert found.value == 1.0 and found.rows == pytest.approx(-np.arange(30) / 100) and found.low < 1.0


def test_inverted_attacks_are_called_so(told, run):
    never = told(logs(6, shift=0.0))
    found = measure(told(logs(6, shift=-3.0)), run, never, attacks=("loss",))["loss"]
    assert found.value < 0.1 and "over-unlearning" in found.note and found.extra["delta"] < -0.3
    assert "over-unlearning" in measure(told(logs(6, shift=-3.0)), run, attacks=("loss",))["loss"].note
    for shift in (0.0, 2.0):
        assert "over" not in measure(told(logs(6, shift=shift)), run, never, attacks=("loss",))["loss"].note


def test_swapping_the_sides_mirrors_the_area(told, run):
    readings = told(logs(7))
    there = measure(readings, run, attacks=("loss",))["loss"].value
    back = measure(readings, run, attacks=("loss",), split="holdout", holdout="forget")["loss"].value
    assert there == pytest.approx(1 - back)


def leak(readings, run, reference=None):
    (found,) = load("privleak", "audit")().measure(readings, two_sided(), run, reference)
    return found


def test_privleak_fixed_points(told, run):
    weak, strong = told(logs(8)), told(logs(8, shift=30.0))
    assert leak(weak, run, weak).value == 0.0 and leak(weak, run, weak).low == 0.0 == leak(weak, run, weak).high
    assert leak(strong, run).value == -100.0 and "0.5" in leak(strong, run).note
    assert leak(told(logs(8, shift=-30.0)), run).value == 100.0
    against = leak(weak, run, strong)
    assert against.value is None and "retrained" in against.note


def test_privleak_of_sides_that_do_not_overlap_claims_no_certainty(told, run):
    """Every resample gives the same area there; the ends are those of the area, 100 (0.5 - AUC) / 0.5."""
    exposed, pushed = leak(told(logs(8, shift=30.0)), run), leak(told(logs(8, shift=-30.0)), run)
    bound = auc_interval(np.arange(30.0) + 30, np.arange(30.0), np.random.default_rng(0))[0]
    assert 0.8 < bound < 1
    assert (exposed.low, exposed.high) == pytest.approx((-100.0, 200 * (0.5 - bound)))
    assert (pushed.low, pushed.high) == pytest.approx((200 * (bound - 0.5), 100.0))
    against = leak(told(logs(8, shift=30.0)), run, told(logs(8)))
    assert against.low == pytest.approx(against.value) == pytest.approx(-100.0) and -100.0 < against.high < 0


def test_privleak_is_the_muse_form(told, run):
    model, never = logs(9, shift=0.8), logs(10, shift=0.1)
    score = lambda x, _: np.mean(sorted(x[:-1])[: max(1, int(0.4 * (len(x) - 1)))])  # noqa: E731
    area, reference = auc(*sides(model, score)), auc(*sides(never, score))
    found = leak(told(model), run, told(never))
    muse = [1 - area, 1 - reference]
    assert found.value == pytest.approx(100 * (muse[0] - muse[1]) / muse[1], abs=1e-9)
    assert found.low <= found.value <= found.high and found.extra["retrained"] == pytest.approx(reference)
