"""Scores of multiple-choice answers: credit with ties, intervals and tests of a share, calibration.

Notation: n questions, question i with k_i options and a score per option. All sums run in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

TIE = 1e-6  # nats: scores nearer than this are the same score up to float32 rounding
_Z = 1.959963984540054  # 97.5% point of the normal distribution


def winners(scores: np.ndarray) -> np.ndarray:
    """Which options share the highest score, (k,) bool."""
    return scores >= scores.max() - TIE


def credit(scores: np.ndarray, right: int) -> float:
    """1 where `right` has the highest score alone, 1 / t where it shares it with t - 1 others, else 0: what a random tie-break earns."""
    best = winners(scores)
    return float(best[right]) / int(best.sum())


def shares(scores: np.ndarray) -> np.ndarray:
    """The probability of each option among the options, (k,): softmax of summed log-probabilities."""
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def wilson(total: float, n: int) -> tuple[float, float] | None:
    """Wilson's 95% interval of a share `total / n`; finite also for 0 of n and n of n, None for n = 0."""
    if n == 0:
        return None
    p, z2 = total / n, _Z * _Z
    centre, half = p + z2 / (2 * n), _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    return (low if total > 0 else 0.0), (high if total < n else 1.0)


def chance_p_value(total: float, n: int, chance: float) -> float:
    """Two-sided binomial test of a share against chance; half a credit counts as the nearest whole number of hits."""
    from scipy.stats import binomtest

    return float(binomtest(min(n, round(total)), n, chance).pvalue)


def calibration_error(confidence: np.ndarray, hit: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: sum over bins of equal width of (n_b / n) |mean hit - mean confidence|.

    Args:
        confidence: (n,) probability of the option that was chosen.
        hit: (n,) credit of that choice.
        bins: how many; a confidence of 1 falls into the last.
    """
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, weights=hit - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def ngram_entropy(words: Sequence[str], n: int) -> float:
    """Entropy in bits of the n-grams of a text: -sum f log2 f over their frequencies; 0 where it has none.

    m distinct words give log2(m - n + 1); one word over and over gives 0.
    """
    counts = np.unique(np.array([" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]), return_counts=True)[1]
    share = counts / max(counts.sum(), 1)
    return float(abs((share * np.log2(share)).sum()))
