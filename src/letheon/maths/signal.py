"""Does a task carry signal? Four criteria on learning curves, before anybody concludes anything from its scores.

    S (m, s, t)       scores of m models with s seeds at t checkpoints; b the score of guessing
    monotonicity      mean over models of Spearman(step, S averaged over seeds)                             keep if >= 0.5
    snr               mean final score / mean over checkpoints of the standard deviation over seeds         keep if >= 20
    non-randomness    max(S averaged over seeds - b) / standard deviation over seeds at the last checkpoint                     keep if >= 3
    ordering          mean over neighbouring checkpoints of the second half of Kendall's tau-a of models    keep if >= 0.3

With one seed the noise is that of the residuals about a running mean of the last checkpoints. Zero noise gives infinity, fewer than three
checkpoints or two models give "undefined", never a pass. snr is on raw scores and flatters a task with a high b: that is what
non-randomness is for. The thresholds are those of FineTasks (arXiv:2506.20920), on which arXiv:2512.13330 builds; the bound on ordering is
ours: a reconstruction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import spearmanr

MONOTONE, SNR, NON_RANDOM, ORDERED = 0.5, 20.0, 3.0, 0.3
WINDOW = 5  # checkpoints of the running mean where there is one seed


@dataclass(frozen=True)
class Signal:
    """The four criteria of one task; None where one is undefined."""

    monotonicity: float | None
    snr: float | None
    non_randomness: float | None
    ordering: float | None
    ordering_by_chance: float  # the 95th percentile of tau-a of rankings drawn at random
    noise: Literal["seeds", "checkpoints"]

    @property
    def failed(self) -> tuple[str, ...]:
        """The criteria that do not hold, or are undefined."""
        bounds = (("monotonicity", MONOTONE), ("snr", SNR), ("non_randomness", NON_RANDOM), ("ordering", ORDERED))
        return tuple(name for name, least in bounds if not _at_least(getattr(self, name), least))

    @property
    def verdict(self) -> Literal["keep", "drop", "undefined"]:
        """keep: all four hold."""
        if any(value is None for value in (self.monotonicity, self.snr, self.non_randomness, self.ordering)):
            return "undefined"
        return "drop" if self.failed else "keep"


def _at_least(value: float | None, least: float) -> bool:
    return value is not None and value >= least


def signal(scores: np.ndarray, steps: Sequence[float], baseline: float, *, generator: np.random.Generator | None = None) -> Signal:
    """Judge one task.

    Args:
        scores: (m, s, t) with m models, s seeds, t checkpoints.
        steps: (t,) training steps or tokens at the checkpoints, ascending.
        baseline: the score of guessing, 1 / choices, or 0 where an answer is written.
        generator: draws the rankings of the null of `ordering`.

    Raises:
        ValueError: the shapes do not fit.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 3 or scores.shape[2] != len(steps):
        raise ValueError(f"scores must be (models, seeds, {len(steps)} checkpoints), got {scores.shape}")
    m, s, t = scores.shape
    mean = scores.mean(1)
    noise, final, kind = _noise(scores)
    enough = t >= 3
    monotone = float(np.mean([_spearman(steps, curve) for curve in mean])) if enough else None
    return Signal(
        monotone,
        _ratio(float(mean[:, -1].mean()), noise) if enough else None,
        _ratio(float(mean.max()) - baseline, final) if enough else None,
        float(np.mean([tau_a(mean[:, k], mean[:, k + 1]) for k in range(t // 2, t - 1)])) if enough and m >= 2 else None,
        tau_by_chance(m, max(1, t - 1 - t // 2), generator or np.random.default_rng(0)) if m >= 2 else math.nan,
        kind,
    )


def _spearman(steps: Sequence[float], curve: np.ndarray) -> float:
    """Spearman's rank correlation; 0 for a curve that does not move."""
    return 0.0 if np.ptp(curve) == 0 else float(spearmanr(steps, curve).statistic)


def _noise(scores: np.ndarray) -> tuple[float, float, Literal["seeds", "checkpoints"]]:
    """Noise over the run and at its end."""
    if scores.shape[1] >= 2:
        spread = scores.std(1, ddof=1).mean(0)
        return float(spread.mean()), float(spread[-1]), "seeds"
    curves = scores[:, 0, -2 * WINDOW :]
    kernel = np.ones(min(WINDOW, curves.shape[1]))
    smooth = np.stack([np.convolve(curve, kernel, "same") / np.convolve(np.ones_like(curve), kernel, "same") for curve in curves])
    residual = float((curves - smooth).std())
    return residual, residual, "checkpoints"


def _ratio(value: float, noise: float) -> float:
    return value / noise if noise > 1e-12 * abs(value) else math.copysign(math.inf, value) if value else 0.0


def tau_a(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's tau-a of two score columns (m,): (concordant - discordant) / (m (m - 1) / 2); a tie counts 0."""
    i, j = np.triu_indices(len(first), 1)
    return float((np.sign(first[i] - first[j]) * np.sign(second[i] - second[j])).sum() / max(len(i), 1))


def tau_by_chance(models: int, pairs: int, generator: np.random.Generator, draws: int = 2000) -> float:
    """The 95th percentile of the mean tau-a over `pairs` pairs of random rankings of `models` models."""
    ranks = generator.random((draws, pairs, 2, models)).argsort(-1).argsort(-1)
    i, j = np.triu_indices(models, 1)
    signs = np.sign(ranks[..., i] - ranks[..., j])
    return float(np.percentile((signs[:, :, 0] * signs[:, :, 1]).mean((1, 2)), 95))
