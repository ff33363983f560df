"""Can anyone tell from whole texts what was trained on?

Privacy leakage as in MUSE and DUSK, and the retain deviation of DUSK. Each text (or each block of `block` tokens of all texts of a split
laid end to end) gets one membership score, higher for members: min-k, min-k++ (of `share` = 40% of its tokens), or loss. The DIRECTION of
the area is named here once:

    A(model) = P(a holdout text scores higher than a forget text) + P(tie) / 2          the holdout counts as positive, as in MUSE
    privleak = 100 (A - A_r) / A_r                                                      A_r: of the retrained model

    R(model) = P(a retained text scores higher than a holdout text) + P(tie) / 2        the retained texts count as positive
    retain-deviation = 100 |R - R_r| / R_r

0 is best for both. A model that knows the forget texts has A near 0 and privleak near -100; one pushed too far has A near 1 and privleak
far above 0. (AUC_u - AUC_r) / AUC_r with AUC = 1 - A is a DIFFERENT number. DUSK's code takes min-k++ and these two orientations, MUSE's
takes min-k. Without a retrained model A_r is taken as 0.5 and the retain deviation has no value. `extra` holds A, A_r and their AUC.

With about 50 blocks a side the error of an area is near 0.06: read the interval. Where the two sides do not overlap every resample gives
the same area, and both ends of the interval of `auc_interval` take its place. Texts longer than the context are read in windows; the note
says how many. Here the end token of a text never counts. Fixed points: the retrained model gives 0 and 0; a model with uniform output
gives A = 0.5. arXiv:2407.06460, arXiv:2505.15209 (a reconstruction where its card says so). Cards: muse, dusk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.maths.membership import privleak
from letheon.maths.recall import segment_means, without_last
from letheon.maths.stats import RESAMPLES, auc, drawn_areas, percentiles

from ._attacks import min_k, min_k_plus
from ._parts import cut, finding, generator, missing, nothing
from ._texts import TextReadings, as_text, blocks

if TYPE_CHECKING:
    from letheon.core.readings import Readings

DIGITS = 9  # of a score: sums of equal numbers differ in the last digits, and ties must be ties
SMALL = 0.1  # an area of the retrained model below which its quotient says little


class TextPrivacySettings(Settings):
    forget: str = Field("", description="texts that were to be forgotten; empty: forget-texts, else forget")
    retain: str = Field("", description="texts that stay; empty: retain-texts, else retain")
    holdout: str = Field("holdout", description="texts of the same kind that no model was trained on")
    statistic: Literal["min-k", "min-k++", "loss"] = Field("min-k", description="score of a text: min-k in MUSE, min-k++ in DUSK")
    share: float = Field(0.4, gt=0, le=1, description="share of tokens that min-k and min-k++ look at")
    block: int | None = Field(None, ge=8, description="tokens of a block (1024 in DUSK); None: each row is one text")
    limit: int | None = Field(None, ge=1, description="texts or blocks per split, the first ones in their order; None: all")


class TextPrivacy(Audit):
    """Privacy leakage and retain deviation over texts."""

    Settings, tiny = TextPrivacySettings, {"limit": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Findings `privleak` and `retain-deviation`."""
        chosen = self.settings
        models = [TextReadings.of(model) for model in (readings, reference) if model is not None]
        forget = chosen.forget or as_text(data, "forget-texts", "forget")
        retain = chosen.retain or as_text(data, "retain-texts", "retain")
        return [
            self._gap("privleak", models, data, (forget, chosen.holdout), forget, run),
            self._gap("retain-deviation", models, data, (chosen.holdout, retain), retain, run),
        ]

    def _gap(self, name: str, models: list[Readings], data: Data, sides: tuple[str, str], where: str, run: Run) -> Finding:
        """100 (A - A_r) / A_r, A = P(second side above first); its size alone for the retain deviation."""
        note = missing(data, sides[0]) or missing(data, sides[1])
        if name == "retain-deviation" and len(models) == 1:
            note = note or "there is no retrained model to compare with"
        if note:
            return nothing(self, name, note, where, "reference")
        texts = [cut(blocks(models[0], data[side], self.settings.block), self.settings.limit) for side in sides]
        scores = [[self._scores(model, split) for split in texts] for model in models]
        good = [np.all([np.isfinite(pair[k]) for pair in scores], 0) for k in (0, 1)]
        scores = [[side[keep] for side, keep in zip(pair, good, strict=True)] for pair in scores]
        areas = [auc(*pair) for pair in scores]  # of the first side as members: A = 1 - area
        if None in areas:
            return nothing(self, name, "no text of one side could be scored", where, "reference")
        never = areas[1] if len(models) > 1 else 0.5
        value = privleak(areas[0], never)
        if value is None:
            return nothing(self, name, "on the retrained model too the attack separates all texts", where, "reference")
        size: Callable = abs if name == "retain-deviation" else lambda gap: gap
        notes = [models[0].cut(split) for split in texts if isinstance(models[0], TextReadings)]
        notes += ["without a retrained model: against an area of 0.5"] * (len(models) == 1)
        notes += [f"the retrained model has an area of {1 - never:.2f} only, which swells this quotient"] * (1 - never < SMALL)
        extra = {
            "area": 1 - areas[0],
            "area_retrained": 1 - never if len(models) > 1 else None,
            "auc": areas[0],
            "convention": f"area = P({sides[1]} scores higher than {sides[0]}), scores are higher for members; auc = 1 - area",
            "statistic": self.settings.statistic,
            "texts": {side: len(split) for side, split in zip(sides, texts, strict=True)},
        }
        n = int(good[0].sum() if where == sides[0] else good[1].sum())
        spread = self._spread(scores, sides, size, run)
        known = {"n": n, "interval": spread, "direction": "reference", "extra": extra}
        return finding(self, name, where, size(value), note="; ".join(dict.fromkeys(filter(None, notes))), **known)

    def _spread(
        self, scores: list[list[np.ndarray]], sides: tuple[str, str], size: Callable, run: Run
    ) -> tuple[float, float] | None:
        if min(map(len, scores[0])) < 2:
            return None
        drawn = [[1 - area for area in drawn_areas(*pair, generator(run, *sides))] for pair in scores]  # the same texts for both models
        never = drawn[1] if len(drawn) > 1 else [np.full(RESAMPLES, 0.5)]
        return percentiles(size(np.concatenate([100 * (a - r)[r > 0] / r[r > 0] for a in drawn[0] for r in never])))

    def _scores(self, readings: Readings, split: Split) -> np.ndarray:
        """A membership score per text, (n,)."""
        score = {"min-k": partial(min_k, share=self.settings.share), "min-k++": partial(min_k_plus, share=self.settings.share)}
        return np.round(score.get(self.settings.statistic, mean_log_probability)(readings, split), DIGITS)


def mean_log_probability(readings: Readings, split: Split) -> np.ndarray:
    """The mean log-probability of the tokens of each text without its end token, (n,)."""
    answers = readings.answers(split)
    keep, offsets = without_last(answers.offsets)
    return segment_means(answers.log_probability[keep].astype(np.float64), offsets)
