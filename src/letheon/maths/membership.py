"""Scores of membership attacks from token facts; higher for members.

Notation: k answers whose m tokens lie end to end, answer i from `offsets[i]` to `offsets[i + 1]`. An answer without tokens gives NaN.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

LEAST_VARIANCE = 1e-6  # of a token's log-probability under the model, nats squared: guards 0 / 0 for a flat distribution


def lowest_mean(values: np.ndarray, offsets: np.ndarray, share: float) -> np.ndarray:
    """The mean of the lowest `share` of each answer's values, at least one value, (k,).

    Args:
        values: (m,) for example log-probabilities.
        offsets: (k + 1,).
        share: in (0, 1]; max(1, floor(share T)) of T values count.
    """
    counts = np.diff(offsets)
    answer = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((values, answer))  # answers stay in place, their values rise
    taken = np.minimum(np.maximum((share * counts).astype(np.int64), 1), counts)
    total = np.concatenate([[0.0], np.cumsum(values[order], dtype=np.float64)])
    sums = total[offsets[:-1] + taken] - total[offsets[:-1]]
    return np.divide(sums, taken, out=np.full(len(counts), np.nan), where=taken > 0)


def standardised(log_probability: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Min-K%++: how far each token lies from what the model expected at its place, in standard deviations, (m,).

    r = (l - mean) / sqrt(max(variance, 1e-6)); under v ~ p it has mean 0 and variance 1.
    """
    spread = np.sqrt(np.maximum(variance.astype(np.float64), LEAST_VARIANCE))
    return (log_probability.astype(np.float64) - mean.astype(np.float64)) / spread


def zlib_bytes(texts: Sequence[str]) -> np.ndarray:
    """Bytes of each text after zlib compression at its default level, (k,)."""
    return np.array([len(zlib.compress(text.encode("utf-8"))) for text in texts], dtype=np.int64)


def privleak(area: float, reference: float) -> float | None:
    """100 ((1 - area) - (1 - reference)) / (1 - reference): both are AUC with members high; None where the reference is 1."""
    return None if reference >= 1 else 100 * ((1 - area) - (1 - reference)) / (1 - reference)
