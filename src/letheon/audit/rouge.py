"""ROUGE-L recall: the share of the true answer's words that the model says when asked.

    LCS = longest common subsequence of words (lower case, Porter stems), recall_i = LCS / words of the true answer, value = mean_i

Greedy generation from the prompt alone, cut at the end token. Recall rewards long outputs: a model that runs on says more of every
answer. Rows of plain text have no prompt to ask with, and an answer without a single letter a-z or digit has no words in ROUGE's sense:
both are None. One value that must hold: an answer said word for word gives 1. arXiv:2401.06121. Card: tofu.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.maths.recall import rouge_l

from ._parts import ProbeSettings, over_splits, row_finding, toward
from ._said import said

if TYPE_CHECKING:
    from letheon.core.readings import Readings


class RougeSettings(ProbeSettings):
    max_new_tokens: int = Field(200, ge=1, description="longest generation, tokens")


class Rouge(Audit):
    """Mean ROUGE-L recall of greedy generations, per split."""

    Settings, tiny = RougeSettings, {"limit": 4, "max_new_tokens": 8}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """One finding `rouge-l-recall` per split."""

        def one(where: str, split: Split) -> list[Finding]:
            values = recalls(split, said(readings, split, self.settings.max_new_tokens))
            why = "no prompt to ask with, or no word in the answer"
            return [row_finding(self, "rouge-l-recall", where, values, run, direction=toward(where), why=why)]

        return over_splits(self, data, ["rouge-l-recall"], one)


def recalls(split: Split, texts: list[str | None]) -> np.ndarray:
    """ROUGE-L recall per row, (n,); NaN where nothing was said or asked."""
    scores = [None if text is None else rouge_l(row.answer, text) for row, text in zip(split, texts, strict=True)]
    return np.array([np.nan if score is None else score[1] for score in scores])
