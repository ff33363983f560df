"""Forget quality: can the truth ratios on the forget split be told from those of the retrained model?

    D = sup_x |F(x) - F_retrained(x)| over the truth ratios R of the same forget rows, p = two-sided Kolmogorov-Smirnov test

`forget-quality` is p (above 0.05 is read as indistinguishable), `ks-distance` is D. Both are unchanged when every R becomes 1 / R. The
retrained model against itself gives D = 0, p = 1. p is not monotone in forgetting: pushed too far, R overshoots and p falls again, so
the note says on which side of the retrained model the ratios lie. p depends on the number of rows: never compare it across splits.
The interval of D is a bootstrap over rows, the same rows for both models; that of p is its image. arXiv:2401.06121. Card: tofu.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Data
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.maths.stats import RESAMPLES, draws, ks_distance, ks_p_value, percentiles

from ._parts import cut, finding, generator, missing, nothing
from ._truth import Average, has_wrong, log_ratios

if TYPE_CHECKING:
    from letheon.core.readings import Readings

NAMES = (("forget-quality", "higher"), ("ks-distance", "lower"))


class ForgetQualitySettings(Settings):
    split: str = Field("forget", description="the split that was to be forgotten")
    limit: int | None = Field(None, ge=1, description="rows, the first ones in their order; None: all")
    average: Average = Field("geometric", description="how the probabilities of a row's wrong answers are averaged")


class ForgetQuality(Audit):
    """KS test of truth ratios against the retrained model."""

    Settings, tiny = ForgetQualitySettings, {"limit": 8}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """`forget-quality` and `ks-distance`; None without a retrained model or without wrong answers."""
        where = self.settings.split
        note = missing(data, where)
        if not note and not has_wrong(data[where]):
            note = f"the rows of `{where}` have no wrong answers"
        if not note and reference is None:
            note = "there is no retrained model to compare with"
        if note:
            return [nothing(self, name, note, where, direction) for name, direction in NAMES]
        split = cut(data[where], self.settings.limit)
        pair = np.stack([log_ratios(model, split, self.settings.average) for model in (readings, reference)])  # (2, n)
        pair = pair[:, np.isfinite(pair).all(0)]
        n = pair.shape[1]
        if not n:
            return [nothing(self, name, "no row has a truth ratio from both models", where, direction) for name, direction in NAMES]
        signed = ks_distance(*pair)
        values = {"forget-quality": ks_p_value(signed, n), "ks-distance": abs(signed)}
        spread = percentiles(resampled_distance(pair, generator(run, where))) if n > 1 else None
        intervals = {"ks-distance": spread, "forget-quality": spread and (ks_p_value(spread[1], n), ks_p_value(spread[0], n))}
        side = side_of(signed)
        extra = {"signed_distance": signed}
        return [
            finding(self, name, where, values[name], n=n, interval=intervals[name], direction=direction, note=side, extra=extra)
            for name, direction in NAMES
        ]


def side_of(signed: float) -> str:
    """On which side of the retrained model the truth ratios lie."""
    if signed == 0:
        return "the truth ratios are those of the retrained model"
    if signed > 0:
        return "truth ratios lie below the retrained model's: the truth is still preferred more"
    return "truth ratios lie above the retrained model's: the truth is preferred less than by a model that never saw it"


def resampled_distance(pair: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """KS distances of bootstrap resamples of rows, (B,); `pair` is (2, n) and a row is drawn for both models at once."""
    n = pair.shape[1]
    order = np.argsort(pair.ravel(), kind="stable")
    last = np.append(np.diff(pair.ravel()[order]) > 0, True)  # ties end together
    row, sign = order % n, np.where(order < n, 1, -1)
    out = []
    for rows in draws(n, generator, RESAMPLES):
        counts = np.bincount((rows + n * np.arange(len(rows))[:, None]).ravel(), minlength=len(rows) * n).reshape(len(rows), n)
        gaps = np.cumsum(counts.astype(np.int32)[:, row] * sign, 1)[:, last]
        out.append(np.abs(gaps).max(1) / n)
    return np.concatenate(out)
