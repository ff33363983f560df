"""Patching: states of one model inside another, with values that identities fix."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from letheon.audit.patching import Patching, patched
from letheon.testing.toys import toy_subject

from .inside import RUN, data, hidden, knows, never, readings


def probability(subject, split):
    return np.exp(-readings(subject).answers(split).nll())


def measure(subject, original=None, reference=None, **settings):
    other = [None if model is None else readings(model) for model in (reference, original)]
    return {f.name: f for f in Patching(**settings).measure(readings(subject), data(), RUN, *other)}


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_into_itself_nothing_changes(architecture):
    subject, split = toy_subject(architecture=architecture), data()["forget"]
    found = patched(readings(subject), readings(subject), split)
    np.testing.assert_allclose(found, np.tile(probability(subject, split), (2, 1)), rtol=1e-5)


def test_a_change_in_one_block_is_found_there():
    """Only block 1 differs: below it states are equal, above it nothing is."""
    original, split = knows(), data()["forget"]
    edited = original.fork()
    with torch.no_grad():
        edited.module.model.layers[1].mlp.down_proj.weight.mul_(-1)
    one, two = probability(edited, split), probability(original, split)
    assert one.mean() < 0.5 < 0.8 < two.mean()
    into, back = (patched(readings(a), readings(b), split) for a, b in ((edited, original), (original, edited)))
    np.testing.assert_allclose(into, [one, two], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(back, [two, one], rtol=1e-4, atol=1e-6)
    found = measure(edited, original)
    assert found["patched"].value == pytest.approx(one.mean(), rel=1e-4)  # the last block is left out of the mean
    assert found["patched-back"].value == pytest.approx(two.mean(), rel=1e-4)
    assert found["patched"].extra["curve"] == pytest.approx([one.mean(), two.mean()], rel=1e-4)
    assert found["patched"].extra["original"] == pytest.approx(two.mean(), rel=1e-6) and found["patched"].note == ""


def test_models_trained_apart_do_not_understand_each_other():
    apart = np.mean([measure(never(seed), knows(seed=seed + 1))["patched-back"].value for seed in (0, 1)])
    own = np.mean([measure(knows(seed=seed), knows(seed=seed))["patched-back"].value for seed in (0, 1)])
    assert own > 0.8 and apart < 0.4


def test_what_cannot_be_compared_says_why():
    subject = knows()
    assert "needed and was not given" in measure(subject)["patched"].note
    assert "other names or shapes" in measure(subject, hidden())["patched"].note
    assert "other names or shapes" in measure(subject, toy_subject(architecture="gpt2"))["patched-back"].note
    assert "reads other tokens" in measure(subject, toy_subject(context=128))["patched"].note
    stands_in = measure(subject, reference=never())["patched"]
    assert stands_in.value is not None and "the retrained model takes its place" in stands_in.note and stands_in.direction == "none"
    assert "no split `holdout-x`" in measure(subject, subject, splits=("holdout-x",))["patched"].note


def test_no_hook_stays_after_an_exception(monkeypatch):
    models = knows(), never()
    before = [sum(len(part._forward_hooks) for part in model.module.modules()) for model in models]

    def broken(*given):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(sys.modules[Patching.__module__], "probability", broken)
    with pytest.raises(RuntimeError, match="in the middle"):
        patched(*map(readings, models), data()["forget"])
    assert [sum(len(part._forward_hooks) for part in model.module.modules()) for model in models] == before
