"""A Min-K coreset: the forget rows that the model has memorised most.

    score_i = mean of the lowest `share` of row i's token log-probabilities, in nats        the LARGEST scores are kept

A memorised row has no unlikely token, so its score is near 0. A public re-implementation negates the mean and still keeps the largest,
which are the rows memorised least; `keep = "least"` gives that. On a model that knows half of the rows, that half comes first. One forward
pass; end tokens count. arXiv:2504.10185 for the use, arXiv:2310.16789 for the score. A reconstruction: the paper's code was not
available. Card: mu-coreset.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.core.subject import Subject
from letheon.maths.membership import lowest_mean

from ._coreset import Coreset, CoresetSettings, needed


class MinKSettings(CoresetSettings):
    """Which tokens count, and which rows are kept."""

    share: float = Field(0.4, gt=0, le=1, description="share of a row's tokens, the least likely ones, that its score is the mean of")
    keep: Literal["most", "least"] = Field("most", description="keep the rows memorised most, or least")


class MinK(Coreset):
    """Rows without an unlikely token."""

    Settings, tiny = MinKSettings, {"fraction": 0.5}

    def scores(self, split: Split, data: Data, run: Run, subject: Subject | None) -> np.ndarray:
        """Means of the lowest log-probabilities of the answers."""
        found = Readings(needed(subject, self.name()), run).answers(split.bare)
        memorised = lowest_mean(found.log_probability, found.offsets, self.settings.share)
        return memorised if self.settings.keep == "most" else -memorised
