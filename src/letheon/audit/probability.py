"""Length-normalised probability of the true answer, or its share among given options.

    nll_i = mean over the answer's tokens, end token included, of -log p(token)
    P_i   = exp(-nll_i)                          the geometric mean of the token probabilities
    share = P / (P + sum_j P(wrong_j))           on splits that have wrong answers and no paraphrase (real authors, world facts)
    value = mean_i; of shares `extra` holds chance, mean_i 1 / (1 + wrong_i)

A row whose tokens are all certain gives 1. The prompt never counts. The OpenUnlearning toolkit adds 1e-10 to the denominator of the
share; here nothing is added, since the sum holds P itself. arXiv:2401.06121. Card: tofu.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.maths.stats import mean

from ._parts import ProbeSettings, over_splits, row_finding, toward
from ._truth import has_wrong, log_true, log_wrong, paraphrased

if TYPE_CHECKING:
    from letheon.core.readings import Readings


class ProbabilitySettings(ProbeSettings):
    options: Literal["auto", "never"] = Field(
        "auto", description="auto: a share among the options on splits with wrong answers and no paraphrase; never: the plain probability"
    )


class Probability(Audit):
    """Mean probability of true answers, per split."""

    Settings, tiny = ProbabilitySettings, {"limit": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """One finding `probability` per split."""

        def one(where: str, split: Split) -> list[Finding]:
            log_probability = log_true(readings, split, "answer")
            among = self.settings.options == "auto" and has_wrong(split) and not paraphrased(split)
            note, chance = "", None
            if among:
                counts = np.array([len(row.wrong) for row in split])
                log_sum = log_wrong(readings, split, "arithmetic") + np.log(np.maximum(counts, 1))
                log_probability = log_probability - np.logaddexp(log_probability, log_sum)
                note = "the share of the true answer among the options"
                chance = mean(np.where(np.isfinite(log_probability), 1 / (1 + counts), np.nan))
            why = "no wrong answers beside the true one" if among else "no answer token to score"
            extra = {"normalised": among, "chance": chance}
            values = np.exp(log_probability)
            return [row_finding(self, "probability", where, values, run, direction=toward(where), note=note, why=why, **extra)]

        return over_splits(self, data, ["probability"], one)
