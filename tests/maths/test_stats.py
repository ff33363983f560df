"""Statistics against brute force, scipy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from letheon.maths import stats


def brute_auc(members, others):
    return sum((a > b) + 0.5 * (a == b) for a in members for b in others) / (len(members) * len(others))


def two_sides(seed=0, size=50, levels=20):
    """Scores with many ties."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, levels, size) + 3.0, generator.integers(0, levels, size) + 0.0


def test_auc_is_a_count_of_pairs():
    members, others = two_sides()
    assert stats.auc(members, others) == pytest.approx(brute_auc(members, others), abs=1e-12)
    assert stats.auc(others, members) == pytest.approx(1 - brute_auc(members, others), abs=1e-12)


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=12),
    st.lists(st.integers(-5, 5), min_size=1, max_size=12),
)
def test_auc_of_any_sides(members, others):
    found = stats.auc(np.array(members, float), np.array(others, float))
    assert found == pytest.approx(brute_auc(members, others), abs=1e-12)
    risen = stats.auc(np.exp(np.array(members, float)) * 3 - 1, np.exp(np.array(others, float)) * 3 - 1)
    assert risen == found


def test_auc_of_ties_of_nothing_and_of_unmeasured_rows():
    assert stats.auc(np.ones(7), np.ones(5)) == 0.5
    assert stats.auc(np.ones(7), np.zeros(0)) is None
    assert stats.auc(np.array([np.nan, 2.0]), np.array([1.0, np.nan])) == 1.0


def test_roc_against_every_threshold():
    members, others = two_sides(3, levels=6)
    false, true = stats.roc(members, others)
    thresholds = [np.inf, *sorted(set(members) | set(others), reverse=True)]
    assert np.allclose(false, [(others >= t).mean() for t in thresholds])
    assert np.allclose(true, [(members >= t).mean() for t in thresholds])
    assert np.trapezoid(true, false) == pytest.approx(brute_auc(members, others)) if hasattr(np, "trapezoid") else True
    best = max(((members >= t).mean() + (others < t).mean()) / 2 for t in thresholds)
    assert stats.balanced_accuracy(members, others) == pytest.approx(best)
    for rate in (0.001, 0.1, 0.5):
        wanted = max((members >= t).mean() for t in thresholds if (others >= t).mean() < rate)
        assert stats.true_positive_rate(members, others, rate) == pytest.approx(wanted)


def test_resampled_auc_is_the_auc_of_resamples():
    members, others = two_sides(4, 9)
    found = stats.resampled_auc(members, others, np.random.default_rng(5))
    again = np.random.default_rng(5)
    left = again.integers(0, 9, size=(stats.RESAMPLES, 9), dtype=np.int32)
    right = again.integers(0, 9, size=(stats.RESAMPLES, 9), dtype=np.int32)
    wanted = [brute_auc(members[a], others[b]) for a, b in zip(left[:40], right[:40], strict=True)]
    assert len(found) == stats.RESAMPLES and np.allclose(found[:40], wanted)


def test_auc_interval_covers_as_often_as_it_says():
    """Two normal distributions one deviation apart have the area Phi(1 / sqrt 2) = 0.7602."""
    truth = 0.5 * (1 + math.erf(0.5))
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        interval = stats.auc_interval(generator.normal(1, 1, 60), generator.normal(0, 1, 60), generator)
        hits += interval[0] <= truth <= interval[1]
    assert 88 <= hits <= 100  # 95 expected; the chance of fewer than 88 is 0.2%


def test_auc_interval_of_separated_sides_is_not_a_point():
    members, others = np.arange(10.0) + 100, np.arange(20.0)
    low, high = stats.auc_interval(members, others, np.random.default_rng(0))
    assert high == 1.0 and 0.8 < low < 1.0
    mirrored = stats.auc_interval(others, members, np.random.default_rng(0))
    assert mirrored[0] == 0.0 and mirrored[1] == pytest.approx(1 - low)
    pairs = (10 + 20) / 2 - 1
    variance = low * (1 - low) * (1 + pairs * ((1 - low) / (2 - low) + low / (1 + low))) / 200
    assert 1 - low == pytest.approx(1.959963984540054 * math.sqrt(variance), rel=1e-6)  # the equation that the bound solves
    assert stats.auc_interval(np.ones(1), others, np.random.default_rng(0)) is None


def test_bootstrap_interval_of_a_mean_is_near_the_normal_one():
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = stats.bootstrap(values, np.random.default_rng(2))
    wide = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - wide, abs=0.15 * wide)
    assert high == pytest.approx(values.mean() + wide, abs=0.15 * wide)
    assert stats.bootstrap(values, np.random.default_rng(2)) == (low, high)
    assert stats.bootstrap(values[:1], np.random.default_rng(2)) is None


def test_bootstrap_draws_rows_of_all_columns_together():
    values = np.random.default_rng(1).normal(3, 2, 50)
    assert stats.bootstrap(np.stack([values, values], 1), np.random.default_rng(0), lambda m: m[:, 0] - m[:, 1]) == (0.0, 0.0)


def test_many_rows_are_drawn_in_pieces():
    n = (1 << 18) // 7
    pieces = list(stats.draws(n, np.random.default_rng(0), 20))
    assert [len(piece) for piece in pieces] == [7, 7, 6] and all(piece.shape[1] == n for piece in pieces)
    assert max(int(piece.max()) for piece in pieces) == n - 1


@pytest.mark.parametrize("n", [1, 2, 7, 40, 400])
def test_ks_against_scipy(n):
    from scipy.stats import ks_2samp

    generator = np.random.default_rng(n)
    checked = 0
    for shift in (0.0, 0.3, 1.5):
        left, right = np.round(generator.normal(0, 1, n), 1), np.round(generator.normal(shift, 1, n), 1)
        wanted = ks_2samp(left, right, method="exact")
        signed = stats.ks_distance(left, right)
        assert abs(signed) == pytest.approx(wanted.statistic, abs=1e-12)
        above, below = (ks_2samp(left, right, alternative=side, method="asymp").statistic for side in ("greater", "less"))
        if above != below:
            assert np.sign(signed) == np.sign(above - below)
        assert stats.ks_p_value(signed, n) == pytest.approx(wanted.pvalue, rel=1e-8)
        checked += 1
    assert checked == 3


def test_ks_sign_of_separated_samples():
    low, high = np.arange(5.0), np.arange(5.0) + 10
    assert stats.ks_distance(low, high) == 1.0 and stats.ks_distance(high, low) == -1.0
    assert stats.ks_p_value(1.0, 5) == pytest.approx(2 / math.comb(10, 5))
    assert stats.ks_distance(low, low) == 0.0 and stats.ks_p_value(0.0, 5) == 1.0


def test_ks_is_unchanged_by_the_inverse():
    generator = np.random.default_rng(9)
    left, right = generator.lognormal(0, 1, 60), generator.lognormal(0.4, 1, 60)
    assert stats.ks_distance(left, right) == pytest.approx(-stats.ks_distance(1 / left, 1 / right))


def test_harmonic_mean():
    assert stats.harmonic_mean([0.4] * 9) == pytest.approx(0.4)
    assert stats.harmonic_mean([0.4] * 8 + [0.0]) == 0.0
    assert stats.harmonic_mean([]) is None
    assert stats.harmonic_mean([1.0, 0.5, 0.25]) == pytest.approx(3 / 7)
    with pytest.raises(ValueError, match="0 or more"):
        stats.harmonic_mean([0.5, -0.1])


def test_means_and_percentiles_of_nothing_are_none():
    assert stats.mean(np.array([np.nan, np.inf])) is None and stats.mean(np.array([1.0, np.nan, 3.0])) == 2.0
    assert stats.percentiles(np.array([np.nan])) is None
    assert stats.percentiles(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
