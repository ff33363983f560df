"""Membership by comparison with reference models: logit-scaled confidence and likelihood ratio (LiRA).

Notation: s reference models, r rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEAST_NLL = 1e-9  # nats: keeps the confidence of a certain answer finite
LEAST_SPREAD = 1e-3  # standard deviation of a confidence, in units of log-odds: guards models that agree to the last digit


def confidence(nll: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of p = exp(-nll), without ever forming p: -log(exp(nll) - 1)."""
    nll = np.maximum(np.asarray(nll, dtype=np.float64), LEAST_NLL)
    return -(nll + np.log(-np.expm1(-nll)))


def likelihood_ratio(seen: np.ndarray, outside: np.ndarray, inside: np.ndarray | None = None, *, pooled: bool = True) -> np.ndarray:
    """How much more `seen` (r,) looks like a model that knew each row, (r,); higher for members.

    Offline, from models that never saw the rows: (seen - mean) / spread of `outside`. With models that saw them as well:
    log N(seen; inside) - log N(seen; outside).

    Args:
        outside: (s, r) confidences of models that never saw the rows, s of 1 or more.
        inside: (s', r) of models that did.
        pooled: one spread for all rows and both kinds of models, from their residuals together, instead of one for each row and kind.
            It keeps the score rising in `seen`, which two normal densities of unequal width do not. A single model has spread 1.
    """
    kinds = [outside] if inside is None else [outside, inside]
    spreads = [_pooled(kinds)] * 2 if pooled else [_spread(values) for values in kinds]
    below = (seen - outside.mean(0)) / spreads[0]
    if inside is None:
        return below
    above = (seen - inside.mean(0)) / spreads[1]
    return np.log(spreads[0] / spreads[1]) + (below**2 - above**2) / 2


def _spread(values: np.ndarray) -> np.ndarray:
    """The standard deviation of each row, (r,)."""
    return np.ones(values.shape[1]) if len(values) < 2 else np.maximum(values.std(0, ddof=1), LEAST_SPREAD)


def _pooled(kinds: Sequence[np.ndarray]) -> float:
    """One standard deviation of all residuals from their row's mean."""
    free = sum((len(values) - 1) * values.shape[1] for values in kinds)
    squares = sum(float(((values - values.mean(0)) ** 2).sum()) for values in kinds)
    return max((squares / free) ** 0.5, LEAST_SPREAD) if free else 1.0
