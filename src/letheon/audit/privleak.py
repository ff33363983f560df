"""Privacy leakage in the MUSE form: how far the min-k attack is from the retrained model, in percent.

    A = 1 - AUC of min-k on forget against holdout     (MUSE counts the holdout as positive)
    privleak = 100 (A - A_retrained) / A_retrained

0: as the retrained model. -100: members fully exposed. Far above 0: forget rows look stranger than rows never seen. Without a retrained
model A_retrained is taken as 0.5. (AUC - AUC_r) / AUC_r is a different number. It swells when A_retrained is small, and with none at
all it is None. The interval is a bootstrap of both areas; where forget and holdout do not overlap every resample gives the same area, and
both ends of the interval of `auc_interval` take its place. arXiv:2407.06460. Cards: muse, mia.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Data
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.maths.membership import privleak
from letheon.maths.stats import RESAMPLES, auc, drawn_areas, percentiles

from ._attacks import min_k
from ._parts import cut, finding, generator, missing, nothing

if TYPE_CHECKING:
    from letheon.core.readings import Readings


class PrivLeakSettings(Settings):
    split: str = Field("forget", description="presumed members: the rows that were to be forgotten")
    holdout: str = Field("holdout", description="rows of the same kind that no model was trained on")
    share: float = Field(0.4, gt=0, le=1, description="share of tokens that min-k looks at")
    limit: int | None = Field(None, ge=1, description="rows per split, the first ones in their order; None: all")


class PrivLeak(Audit):
    """Relative gap of the min-k attack to the retrained model."""

    Settings, tiny = PrivLeakSettings, {"limit": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """One finding `privleak`."""
        where, other = self.settings.split, self.settings.holdout
        note = missing(data, where) or missing(data, other)
        if note:
            return [nothing(self, "privleak", note, where, "reference")]
        models = [readings] if reference is None else [readings, reference]
        sides = [cut(data[name], self.settings.limit) for name in (where, other)]
        scores = [[min_k(model, side, self.settings.share) for side in sides] for model in models]
        good = [np.all([np.isfinite(pair[k]) for pair in scores], 0) for k in (0, 1)]
        scores = [[side[keep] for side, keep in zip(pair, good, strict=True)] for pair in scores]
        areas = [auc(*pair) for pair in scores]
        if None in areas:
            return [nothing(self, "privleak", "no row of one side could be scored", where, "reference")]
        retrained = 0.5 if reference is None else areas[1]
        value = privleak(areas[0], retrained)
        if value is None:
            return [nothing(self, "privleak", "on the retrained model too the attack separates all rows", where, "reference")]
        notes = ["" if reference is not None else "without a retrained model: against an AUC of 0.5"]
        extra = {"auc": areas[0], "retrained": retrained, "convention": "100 (A - A_r) / A_r with A = 1 - AUC, AUC 1 is full exposure"}
        n = len(scores[0][0])
        spread = None
        if min(n, len(scores[0][1])) > 1:
            drawn = [drawn_areas(*pair, generator(run, where, other)) for pair in scores]  # the same rows for both models
            never = drawn[1] if reference is not None else [np.full(RESAMPLES, 0.5)]
            spread = percentiles(np.concatenate([100 * (r - a)[r < 1] / (1 - r[r < 1]) for a in drawn[0] for r in never]))
        known = {"n": n, "interval": spread, "direction": "reference", "extra": extra}
        return [finding(self, "privleak", where, value, note="; ".join(part for part in notes if part), **known)]
