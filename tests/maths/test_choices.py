"""Scores of multiple choice against closed forms and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from letheon.maths.choices import calibration_error, chance_p_value, credit, ngram_entropy, shares, wilson


def test_wilson_is_scipys_and_finite_at_both_ends():
    for k, n in ((0, 5), (5, 5), (3, 10), (102, 408), (1, 1)):
        wanted = binomtest(k, n).proportion_ci(0.95, "wilson")
        assert wilson(k, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    low, high = wilson(102, 408)  # n = 408 at 25%: 1.96 sqrt(.25 .75 / 408) = 4.2 points to each side
    assert high - low == pytest.approx(2 * 0.042, abs=0.001)
    assert wilson(0, 0) is None


def test_a_tie_earns_its_share_and_a_flat_model_earns_chance():
    flat = np.zeros(4)
    assert [credit(flat, right) for right in range(4)] == [0.25] * 4
    assert credit(np.array([0.0, -1.0, 0.0]), 0) == 0.5 and credit(np.array([0.0, -1.0, 0.0]), 1) == 0
    assert credit(np.array([-3.0, -1.0]), 1) == 1
    assert credit(np.array([0.0, -1e-9]), 1) == 0.5, "float32 rounding does not decide"
    assert shares(np.log([0.1, 0.3])) == pytest.approx([0.25, 0.75])
    assert chance_p_value(25, 100, 0.25) == 1 and chance_p_value(25.4, 100, 0.25) == 1
    assert chance_p_value(0, 20, 0.25) == pytest.approx(binomtest(0, 20, 0.25).pvalue)


def test_calibration_error_by_hand():
    """Bin 0.3: confidence 0.35 twice, hits 1 and 0: gap 0.15; bin 0.9: confidence 0.9 and 1, both hit: gap 0.05. Halves of each."""
    found = calibration_error(np.array([0.35, 0.35, 0.9, 1.0]), np.array([1.0, 0.0, 1.0, 1.0]))
    assert found == pytest.approx(0.5 * 0.15 + 0.5 * 0.05)
    assert calibration_error(np.ones(3), np.ones(3)) == 0


def test_ngram_entropy_closed_forms():
    for m in (3, 7, 20):
        words = [f"w{k}" for k in range(m)]
        assert ngram_entropy(words, 2) == pytest.approx(math.log2(m - 1)) and ngram_entropy(words, 3) == pytest.approx(math.log2(m - 2))
    assert ngram_entropy(["a"] * 9, 2) == 0 and ngram_entropy(["a"], 2) == 0 and ngram_entropy([], 3) == 0
    assert ngram_entropy("a b a b a".split(), 2) == pytest.approx(1.0)  # ab twice, ba twice
