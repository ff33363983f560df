"""Chances among samples.

Notation: n samples of which c hit, k of them drawn; r rows.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln


def any_of(hits: np.ndarray, n: int, k: int) -> np.ndarray:
    """The chance that k of n samples, drawn without putting back, hold at least one of the `hits` (r,): 1 - C(n - c, k) / C(n, k)."""
    missed = n - np.asarray(hits, dtype=np.float64)
    enough = missed >= k
    left = np.where(enough, missed, k)
    log_none = gammaln(left + 1) - gammaln(n + 1) + gammaln(n - k + 1) - gammaln(left - k + 1)
    return 1 - np.where(enough, np.exp(log_none), 0.0)
