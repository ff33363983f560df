"""The palimpsestic test: does a number per row go with the order in which the rows were trained?

    rho = Spearman correlation of position t_i and score d_i           average ranks for ties
    p   = (1 + #{j : rho_j >= rho}) / (m + 1)                          over m fresh permutations of the positions

The only randomness is the shuffle of the training run, so p is exact for any rows, any model and any n; it is never 0, and no smaller
than 1 / (m + 1). For large n without many ties the law of rho is that of t = rho sqrt((n - 2) / (1 - rho^2)) with n - 2 degrees of
freedom, which says how small p would be with more permutations. Ranks are integers here, so equal correlations compare as equal.
arXiv:2510.19796.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Side = Literal["later", "both"]
_AT_ONCE = 1 << 21  # permuted ranks held in memory at once


@dataclass(frozen=True)
class Trend:
    """What the test found: `p_law` is the p-value by the t law, `interval` that of rho by Fisher's transformation."""

    rho: float
    p: float
    p_law: float
    n: int
    permutations: int
    interval: tuple[float, float] | None


def centred_ranks(values: np.ndarray) -> np.ndarray:
    """Twice the average rank, less n + 1: whole numbers that add up to 0, (n,) float64."""
    from scipy.stats import rankdata

    return 2 * rankdata(values) - (len(values) + 1)


def trend(
    positions: np.ndarray, scores: np.ndarray, generator: np.random.Generator, permutations: int, side: Side = "later"
) -> Trend | None:
    """Whether later rows have larger scores; None where rho is not defined (under three rows, or no two positions or scores differ).

    Args:
        positions: (n,) when a row was trained; larger is later.
        scores: (n,) larger is better remembered.
        generator: draws the permutations.
        permutations: how many.
        side: "later": large rho counts; "both": a rho far from 0 either way.
    """
    when, what = centred_ranks(positions), centred_ranks(scores)
    scale = math.sqrt(float(when @ when) * float(what @ what))
    if len(when) < 3 or scale == 0:
        return None
    n, folded = len(when), (lambda value: value) if side == "later" else np.abs
    found = float(when @ what)
    as_large, step = 0, max(1, _AT_ONCE // n)
    for done in range(0, permutations, step):
        drawn = generator.permuted(np.tile(what, (min(step, permutations - done), 1)), axis=1)
        as_large += int(np.count_nonzero(folded(drawn @ when) >= folded(found)))
    rho = found / scale
    return Trend(rho, (1 + as_large) / (permutations + 1), p_by_law(rho, n, side), n, permutations, fisher_interval(rho, n))


def p_by_law(rho: float, n: int, side: Side = "later") -> float:
    """The p-value of rho by the t law with n - 2 degrees of freedom."""
    from scipy.stats import t

    value = (abs(rho) if side == "both" else rho) * math.sqrt((n - 2) / max(1 - rho * rho, 1e-300))
    return float(t.sf(value, n - 2)) * (2 if side == "both" else 1)


def fisher_interval(rho: float, n: int) -> tuple[float, float] | None:
    """95% interval of a rank correlation: tanh(atanh(rho) +- 1.96 sqrt((1 + rho^2 / 2) / (n - 3))); None for n <= 3."""
    if n <= 3:
        return None
    centre = math.atanh(min(max(rho, -1 + 1e-15), 1 - 1e-15))
    wide = 1.959963984540054 * math.sqrt((1 + rho * rho / 2) / (n - 3))
    return math.tanh(centre - wide), math.tanh(centre + wide)


def among(values: np.ndarray, true: float) -> tuple[float, float]:
    """Rank p-value and z of one value among m - 1 others that were made in the same way, all exchangeable if nothing is there.

    p = (1 + #{others >= true}) / m, z = (true - mean of others) / (their standard deviation + 1e-6).
    """
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return (1 + int((values >= true).sum())) / (len(values) + 1), (true - float(values.mean())) / (spread + 1e-6)


def overlap_counts(rows: Sequence[Sequence[str]], texts: Sequence[Sequence[str]], longest: int) -> np.ndarray:
    """For each row, how many places of the texts begin a longest match that the row holds, (n,).

    For each place of each text, the longest n-gram of n <= `longest` words that stands in any row counts once for every row that holds it.

    Args:
        rows: the words of each training row.
        texts: the words of each text of the suspect.
        longest: the largest n.
    """
    words: dict[str, int] = {}
    both = [[words.setdefault(word, len(words)) for word in text] for text in (*rows, *texts)]
    lengths = np.array([len(text) for text in both], dtype=np.int64)
    flat = np.array([word for text in both for word in text], dtype=np.int64)
    owner = np.repeat(np.arange(len(both)), lengths)
    left = np.cumsum(lengths)[owner] - np.arange(len(flat))  # words from here to the end of the text
    counts = np.zeros(len(rows), dtype=np.int64)
    grams, places, before = flat, np.arange(len(flat)), None  # number of the n-gram that begins at each place, -1 where the text ends
    alive = owner >= len(rows)  # places of the texts whose n-gram of n - 1 words stands in a row
    for n in range(1, longest + 1):
        if n > 1:
            places = places[left[places] >= n]
            pairs = grams[places] * len(words) + flat[places + n - 1]
            grams = np.full(len(flat), -1)
            grams[places] = np.unique(pairs, return_inverse=True)[1]
        indexed = places[owner[places] < len(rows)]
        known = np.zeros(int(grams.max(initial=-1)) + 2, dtype=bool)
        known[grams[indexed]] = True
        goes_on = alive & known[grams]
        if before is not None:
            _credit(counts, alive & ~goes_on, *before, owner)
        alive, before = goes_on, (grams, indexed)
        if not alive.any():
            return counts
    _credit(counts, alive, *before, owner)
    return counts


def _credit(counts: np.ndarray, ends: np.ndarray, grams: np.ndarray, indexed: np.ndarray, owner: np.ndarray) -> None:
    """Count the n-grams at the places where `ends` holds, for each row that holds them."""
    if ends.any():
        weight = np.bincount(grams[ends], minlength=int(grams.max()) + 1)
        held = indexed[weight[grams[indexed]] > 0]
        pairs = np.unique(np.stack([owner[held], grams[held]], 1), axis=0)
        np.add.at(counts, pairs[:, 0], weight[pairs[:, 1]])
