"""Truth ratio: does the model prefer the true answer in new words over wrong answers of the same form?

    R = M / P(paraphrase)     M = exp(-mean_j nll_j), the geometric mean over the wrong answers; `arithmetic`: mean_j exp(-nll_j)
    forget   mean_i min(R, 1 / R)      1: the model cannot tell
    others   mean_i max(0, 1 - R)      1: the model knows the truth
    `probability`: mean_i 1 / (1 + R), the share of the paraphrase; any split

nll is a mean over tokens, end token included. Where a split has no paraphrases the original answer takes their place. One value that
must hold: P = 0.9 and wrong = {0.1, 0.3} give R = sqrt(0.03) / 0.9, arithmetic 0.2 / 0.9. The paper's formula is usually quoted with the
arithmetic mean; all published tables and the OpenUnlearning toolkit use the geometric one, which is the default here. `extra` keeps
log R per row, so that the KS test can be made later. arXiv:2401.06121. Card: tofu.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field

from ._parts import ProbeSettings, nothing, over_splits, plain, row_finding, toward
from ._truth import Average, has_wrong, log_ratios, paraphrased

if TYPE_CHECKING:
    from letheon.core.readings import Readings

Score = Literal["closer-to-1", "true-better", "probability"]


class TruthRatioSettings(ProbeSettings):
    average: Average = Field("geometric", description="how the probabilities of a row's wrong answers are averaged")
    score: Literal["auto"] | Score = Field(
        "auto", description="what is averaged over rows; auto: closer-to-1 on splits whose name begins with forget, true-better on others"
    )


class TruthRatio(Audit):
    """Mean score of truth ratios, per split."""

    Settings, tiny = TruthRatioSettings, {"limit": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """One finding `truth-ratio` per split; None where the split has no wrong answers."""

        def one(where: str, split: Split) -> list[Finding]:
            if not has_wrong(split):
                return [nothing(self, "truth-ratio", f"the rows of `{where}` have no wrong answers", where)]
            score = self.settings.score
            if score == "auto":
                score = "closer-to-1" if where.startswith("forget") else "true-better"
            log_ratio = log_ratios(readings, split, self.settings.average)
            note = "" if paraphrased(split) or not where.startswith("forget") else "no paraphrases: the original answers take their place"
            known = {"direction": toward(where), "note": note, "why": "no paraphrase or no wrong answer"}
            more = {"score": score, "log_ratio": plain(log_ratio)}
            return [row_finding(self, "truth-ratio", where, scored(log_ratio, score), run, **known, **more)]

        return over_splits(self, data, ["truth-ratio"], one)


def scored(log_ratio: np.ndarray, score: Score) -> np.ndarray:
    """Scores in [0, 1] of log R, (n,); NaN stays."""
    if score == "closer-to-1":
        return np.exp(-np.abs(log_ratio))
    if score == "true-better":
        return np.where(np.isnan(log_ratio), np.nan, np.maximum(0.0, -np.expm1(np.minimum(log_ratio, 0.0))))
    return np.where(np.isnan(log_ratio), np.nan, np.exp(-np.logaddexp(0.0, log_ratio)))
