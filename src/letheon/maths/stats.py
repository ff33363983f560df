"""Statistics of audits: ROC curves, bootstrap intervals, the two-sample Kolmogorov-Smirnov test, harmonic means.

Notation: n rows, B bootstrap resamples. All sums run in float64. A statistic of nothing is None, never 0 and never NaN. Scores of
membership attacks are higher for members, so an AUC of 1 means that members are exposed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_AT_ONCE = 1 << 18  # drawn rows held in memory at once


def mean(values: np.ndarray) -> float | None:
    """The mean of the finite values of (n,), or None where there are none."""
    values = finite(values)
    return float(values.mean()) if len(values) else None


def finite(values: np.ndarray) -> np.ndarray:
    """The finite values, float64."""
    values = np.asarray(values, dtype=np.float64)
    return values[np.isfinite(values)]


def harmonic_mean(values: Sequence[float]) -> float | None:
    """The harmonic mean: 0 as soon as one value is 0, None for no values.

    Raises:
        ValueError: a value is negative.
    """
    if not len(values):
        return None
    if min(values) < 0:
        raise ValueError(f"the harmonic mean needs values of 0 or more, got {min(values)}")
    if min(values) == 0:
        return 0.0
    return len(values) / math.fsum(1 / value for value in values)


def draws(n: int, generator: np.random.Generator, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """Row indices of bootstrap resamples in pieces (b, n); the pieces add up to `resamples`, whatever their size."""
    step = max(1, _AT_ONCE // max(n, 1))
    for done in range(0, resamples, step):
        yield generator.integers(0, n, size=(min(step, resamples - done), n), dtype=np.int32)


def percentiles(samples: np.ndarray, level: float = LEVEL) -> tuple[float, float] | None:
    """The middle `level` of bootstrap values (B,), or None where none is finite."""
    samples = finite(samples)
    if not len(samples):
        return None
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap(
    columns: np.ndarray, generator: np.random.Generator, statistic: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[float, float] | None:
    """Percentile interval of a function of column means, rows drawn together.

    Args:
        columns: (n,) or (n, c) per-row values, all finite.
        generator: draws the rows.
        statistic: maps column means (B, c) to (B,); None for the mean of one column.

    Returns:
        The interval, or None for fewer than two rows: one row says nothing about the spread.
    """
    columns = np.asarray(columns, dtype=np.float64)
    table = columns[:, None] if columns.ndim == 1 else columns
    if len(table) < 2:
        return None
    samples = resampled_means(table, generator)
    return percentiles(samples[:, 0] if statistic is None else statistic(samples))


def resampled_means(table: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Column means (B, c) of bootstrap resamples of (n, c)."""
    return np.concatenate([np.stack([column[rows].mean(1) for column in table.T], 1) for rows in draws(len(table), generator)])


def _ranked(members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Position of every score among the g distinct scores, and g."""
    distinct, place = np.unique(np.concatenate([members, others]), return_inverse=True)
    return place[: len(members)], place[len(members) :], len(distinct)


def _area(members: np.ndarray, others: np.ndarray) -> np.ndarray:
    """AUC from counts per distinct score, (B, g) each."""
    below = np.cumsum(others, 1) - 0.5 * others
    return (members * below).sum(1) / (members.sum(1) * others.sum(1))


def _counts(place: np.ndarray, groups: int) -> np.ndarray:
    """How often each of `groups` values is in each row of (B, n), (B, g)."""
    flat = place + groups * np.arange(len(place))[:, None]
    return np.bincount(flat.ravel(), minlength=len(place) * groups).reshape(len(place), groups).astype(np.float64)


def auc(members: np.ndarray, others: np.ndarray) -> float | None:
    """P(member > other) + P(tie) / 2 over all pairs, by ranks; None where one side is empty."""
    members, others = finite(members), finite(others)
    if not len(members) or not len(others):
        return None
    of_members, of_others, groups = _ranked(members, others)
    return float(_area(_counts(of_members[None], groups), _counts(of_others[None], groups))[0])


def resampled_auc(members: np.ndarray, others: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """AUC of bootstrap resamples drawn within each side, (B,)."""
    of_members, of_others, groups = _ranked(finite(members), finite(others))
    out, step = [], max(1, _AT_ONCE // (len(of_members) + len(of_others)))  # depends on sizes alone: equal draws for two models
    for done in range(0, RESAMPLES, step):
        b = min(step, RESAMPLES - done)
        sides = [side[generator.integers(0, len(side), size=(b, len(side)), dtype=np.int32)] for side in (of_members, of_others)]
        out.append(_area(_counts(sides[0], groups), _counts(sides[1], groups)))
    return np.concatenate(out)


def auc_interval(members: np.ndarray, others: np.ndarray, generator: np.random.Generator) -> tuple[float, float] | None:
    """Interval of `auc`; None where a side has fewer than two scores.

    Stratified bootstrap. Where the two sides do not overlap every resample gives the same area, which would claim certainty; there the
    interval holds the areas that would not be surprised by such a draw, from the Hanley-McNeil variance (Newcombe's fifth method).
    """
    members, others = finite(members), finite(others)
    if len(members) < 2 or len(others) < 2:
        return None
    area = auc(members, others)
    if area in (0.0, 1.0):
        bound = _area_bound(len(members), len(others))
        return (bound, 1.0) if area == 1.0 else (0.0, 1.0 - bound)
    return percentiles(resampled_auc(members, others, generator))


def drawn_areas(members: np.ndarray, others: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Areas that stand for what is uncertain of `auc`, (B,) each, to carry it into another quantity.

    Those of resamples, or of sides that do not overlap the two ends of `auc_interval`.
    """
    ends = auc_interval(members, others, generator) if auc(members, others) in (0.0, 1.0) else None
    return [resampled_auc(members, others, generator)] if ends is None else [np.full(RESAMPLES, end) for end in ends]


def _area_bound(m: int, n: int) -> float:
    """The smallest area whose normal interval still reaches 1, for sides of m and n scores."""
    z2, pairs = 1.959963984540054**2, (m + n) / 2 - 1
    low, high = 0.0, 1.0
    for _ in range(60):
        area = (low + high) / 2
        variance = area * (1 - area) * (1 + pairs * ((1 - area) / (2 - area) + area / (1 + area))) / (m * n)
        low, high = (area, high) if (1 - area) ** 2 > z2 * variance else (low, area)
    return high


def roc(members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1), (g + 1,) each; a row counts as member at or above it."""
    members, others = finite(members), finite(others)
    of_members, of_others, groups = _ranked(members, others)

    def rates(place: np.ndarray) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(np.bincount(place, minlength=groups)[::-1]) / len(place)])

    return rates(of_others), rates(of_members)


def true_positive_rate(members: np.ndarray, others: np.ndarray, false_positive_rate: float) -> float:
    """The largest true positive rate at a false positive rate strictly below the given one."""
    false, true = roc(members, others)
    return float(true[false < false_positive_rate].max())


def balanced_accuracy(members: np.ndarray, others: np.ndarray) -> float:
    """The best mean of true positive and true negative rate over all thresholds."""
    false, true = roc(members, others)
    return float((true + 1 - false).max() / 2)


def ks_distance(left: np.ndarray, right: np.ndarray) -> float:
    """The gap of two empirical distribution functions where it is largest, with its sign.

    Positive where `left` lies below `right` (its distribution function is the larger one), negative where it lies above.
    """
    left, right = np.sort(left), np.sort(right)
    at = np.concatenate([left, right])
    gap = np.searchsorted(left, at, side="right") / len(left) - np.searchsorted(right, at, side="right") / len(right)
    return float(gap[np.abs(gap).argmax()])


def ks_p_value(distance: float, n: int) -> float:
    """Exact two-sided p-value of a KS distance between two samples of n values each.

    P(D >= h / n) = 2 sum_{k >= 1} (-1)^(k+1) C(2n, n - k h) / C(2n, n), the count of lattice paths that leave a band of half width h.
    """
    h = round(abs(distance) * n)
    if h == 0:
        return 1.0
    k = np.arange(1, n // h + 1)
    centre = 2 * math.lgamma(n + 1)
    terms = [math.exp(centre - math.lgamma(n - i * h + 1) - math.lgamma(n + i * h + 1)) for i in k.tolist()]
    total = 2 * math.fsum(term if i % 2 == 0 else -term for i, term in enumerate(terms))
    return min(1.0, max(0.0, total))
