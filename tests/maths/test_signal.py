"""The four criteria of a task, on curves whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from letheon.maths.signal import signal, tau_a, tau_by_chance

STEPS = np.arange(1, 13)
RISE = 0.5 * (1 - np.exp(-STEPS / 4))


def curves(models: int = 4, seeds: int = 3, noise: float = 0.002, base: float = 0.25, shape=RISE, gap: float = 0.05) -> np.ndarray:
    draw = np.random.default_rng(0)
    clean = base + shape[None, None] * (1 + gap * np.arange(models))[:, None, None]
    return clean + noise * draw.standard_normal((models, seeds, len(STEPS)))


def test_a_task_that_is_learned_passes():
    found = signal(curves(), STEPS, 0.25)
    assert found.verdict == "keep" and found.failed == () and found.noise == "seeds"


def test_a_task_at_chance_fails_where_it_should():
    found = signal(curves(shape=np.zeros(12)), STEPS, 0.25)
    assert {"monotonicity", "non_randomness", "ordering"} == set(found.failed) and found.verdict == "drop"
    assert found.snr > 20, "raw scores flatter a high baseline"


def test_a_sine_is_not_monotone():
    assert "monotonicity" in signal(curves(shape=0.2 * np.sin(STEPS)), STEPS, 0.0).failed


def test_ordering_is_one_for_parallel_curves_and_within_the_null_for_shuffled_ones():
    assert signal(curves(noise=0.0), STEPS, 0.25).ordering == 1.0
    draw = np.random.default_rng(1)
    shuffled = np.stack([draw.permutation(6) for _ in STEPS], 1)[:, None] / 10
    found = signal(shuffled, STEPS, 0.0)
    assert abs(found.ordering) <= found.ordering_by_chance + 0.2 < 0.7


def test_tau_a_by_hand():
    """Pairs of (1, 2, 3) against (1, 3, 2): two agree, one does not: 1/3. A tie counts 0, so two constant columns give 0."""
    assert tau_a(np.array([1, 2, 3]), np.array([1, 3, 2])) == pytest.approx(1 / 3)
    assert tau_a(np.ones(4), np.ones(4)) == 0.0
    assert abs(tau_a(np.array([1, 1, 2]), np.array([1, 2, 3]))) == pytest.approx(2 / 3)


def test_null_of_two_models():
    """Two models agree or not with equal chance: the 95th percentile of one pair is 1."""
    assert tau_by_chance(2, 1, np.random.default_rng(0)) == 1.0
    assert tau_by_chance(8, 20, np.random.default_rng(0)) < 0.2


def test_invariances():
    scores = curves(noise=0.01)
    plain, moved = signal(scores, STEPS, 0.0), signal(scores + 1, STEPS, 1.0)
    assert moved.non_randomness == pytest.approx(plain.non_randomness) and moved.snr != pytest.approx(plain.snr)
    single = scores[:, :1]
    assert signal(single**3, STEPS, 0).monotonicity == pytest.approx(signal(single, STEPS, 0).monotonicity)
    assert signal(single**3, STEPS, 0).ordering == pytest.approx(signal(single, STEPS, 0).ordering)


def test_no_noise_is_infinite_and_too_little_is_undefined():
    still = signal(curves(noise=0.0), STEPS, 0.25)
    assert math.isinf(still.snr) and math.isinf(still.non_randomness) and still.verdict == "keep"
    assert signal(curves()[:, :, :2], STEPS[:2], 0.25).verdict == "undefined"
    assert signal(curves(models=1), STEPS, 0.25).verdict == "undefined"


def test_one_seed_is_marked():
    found = signal(curves(seeds=1), STEPS, 0.25)
    assert found.noise == "checkpoints" and found.snr > 20


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="scores must be"):
        signal(np.zeros((2, 3)), STEPS, 0.0)
