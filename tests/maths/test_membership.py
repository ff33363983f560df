"""Scores of membership attacks against their definitions."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from letheon.maths import membership
from letheon.maths.stats import auc


def test_lowest_mean_against_a_sort_per_answer():
    generator = np.random.default_rng(0)
    counts = [1, 2, 5, 9, 30]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    values = generator.normal(size=offsets[-1])
    for share in (0.05, 0.2, 0.4, 1.0):
        wanted = []
        for i, count in enumerate(counts):
            row = sorted(values[offsets[i] : offsets[i + 1]])
            wanted.append(np.mean(row[: max(1, int(share * count))]))
        assert np.allclose(membership.lowest_mean(values, offsets, share), wanted)


def test_all_tokens_give_the_mean_and_none_gives_nan():
    values, offsets = np.array([1.0, 3.0, 8.0]), np.array([0, 2, 2, 3])
    found = membership.lowest_mean(values, offsets, 1.0)
    assert found[0] == 2.0 and np.isnan(found[1]) and found[2] == 8.0


def test_standardised_has_mean_0_and_variance_1_under_the_model():
    logits = np.random.default_rng(1).normal(0, 2, 50)
    logp = logits - np.log(np.exp(logits).sum())
    p = np.exp(logp)
    mean = (p * logp).sum()
    variance = (p * (logp - mean) ** 2).sum()
    each = membership.standardised(logp, np.full(50, mean), np.full(50, variance))
    assert (p * each).sum() == pytest.approx(0, abs=1e-12) and (p * each**2).sum() == pytest.approx(1)


def test_a_flat_model_gives_0_and_not_nan():
    flat = np.full(4, -np.log(7))
    assert membership.standardised(flat, flat, np.zeros(4)).tolist() == [0.0] * 4


def test_zlib_bytes():
    texts = ["a" * 500, "Zoë was born in 1931."]
    assert membership.zlib_bytes(texts).tolist() == [len(zlib.compress(text.encode())) for text in texts]


def test_privleak_orientation_and_fixed_points():
    forget, holdout = np.array([-1.0, -1.0]), np.array([-5.0, -5.0])
    area = auc(forget, holdout)
    assert area == 1.0 and auc(holdout, forget) == 0.0
    assert membership.privleak(area, 0.5) == -100.0
    assert membership.privleak(0.47, 0.47) == 0.0
    assert membership.privleak(0.0, 0.5) == 100.0
    a, r = 1 - 0.8, 1 - 0.55
    assert membership.privleak(0.8, 0.55) == pytest.approx(100 * (a - r) / r, abs=1e-9)
    assert membership.privleak(0.8, 0.55) != pytest.approx(100 * (0.8 - 0.55) / 0.55, abs=1)
    assert membership.privleak(0.8, 1.0) is None
