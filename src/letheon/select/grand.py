"""A GraNd coreset: the forget rows that pull hardest on the weights, by the norm of their gradients.

    score_i = mean over points of || d loss_i / d weights ||_2             over all weights together; the largest are kept

loss_i is the row's answer nll, per token by default: a sum would rank rows by their length. At the incoming model the gradient of NPO on
row i is that of ascent on its SUMMED nll, and so is its score (`per_token = false`); a re-implementation that scores with an NPO on raw
logits ranks other rows. With `epochs` the points are the incoming model and the model after each epoch of unlearning by `inner`, every
epoch going on from the one before with a fresh optimiser. One backward pass per row and point. arXiv:2504.10185 for the use,
arXiv:2107.07075 for the score. A reconstruction: the paper's code was not available. Card: mu-coreset.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.gradients import gradient_norms
from letheon.core.registry import make
from letheon.core.run import Run, kept_as_found
from letheon.core.settings import Choice, Field
from letheon.core.subject import Subject

from ._coreset import Coreset, CoresetSettings, needed


class GrandSettings(CoresetSettings):
    """Where gradients are taken, and of what."""

    per_token: bool = Field(True, description="gradient of the mean over a row's answer tokens; false: of the sum")
    epochs: int = Field(0, ge=0, description="epochs of unlearning that are followed; 0 looks at the incoming model alone")
    inner: Choice = Field("npo", description="the method that is followed, with its settings")  # type: ignore[assignment]


class Grand(Coreset):
    """Rows with large gradients."""

    Settings, tiny = GrandSettings, {"fraction": 0.5}

    def __init__(self, /, **values: Any):
        super().__init__(**values)
        self._inner()  # a wrong name or value shows now

    def _inner(self) -> Any:
        return make(Choice(name=self.settings.inner.name, **{**self.settings.inner.settings, "epochs": 1}), "erase")

    def scores(self, split: Split, data: Data, run: Run, subject: Subject | None) -> np.ndarray:
        """Gradient norms, (n,), as means over the points."""
        at = needed(subject, self.name())
        tokens = 1.0 if self.settings.per_token else at.encoder.encode(split).scored
        total = gradient_norms(at, split, end_token=True, whole=True)
        with kept_as_found(at.module):
            for epoch in range(self.settings.epochs):
                part = Run(run.derived_seed("coreset", "grand", epoch), device=str(run.device), dtype=run.dtype, progress=run.progress)
                at = Subject(at.module, at.encoder, at.lineage, at.name, disposable=epoch > 0)  # others still need the first one
                at = self._inner().apply(at, data, part)
                total = total + gradient_norms(at, split, end_token=True, whole=True)
        return tokens * total / (1 + self.settings.epochs)
