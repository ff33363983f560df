"""Gradient ascent: make forget answers less likely without end; with a retain term it is GradDiff.

The plainest erasure, and what most others become in some limit. Its gradient does not shrink once an answer is already unlikely, so
without a stop it destroys the model; a retain term only buys time.

    L = -(1 / m) sum_j nll_j             m answer tokens of the forget rows of the step, end token included

Its gradient is exactly the negative of the fine-tuning gradient; on the logits of one token it is (onehot - p) / m, near 0 while the
token is certain and of constant size once it is gone. One mean over all tokens of the whole optimiser step, where published trainers
average over micro-batches; `floor` ends the run, say at the nll of a model that never saw the data. arXiv:2210.01504, arXiv:2401.06121.
Card: grad-ascent.
"""

from __future__ import annotations

from collections.abc import Mapping

from letheon.core.forward import Batches
from letheon.core.settings import Choice
from letheon.core.subject import Subject
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term


class GradAscentSettings(ObjectiveSettings):
    """Defaults of the TOFU baselines: the warm-up is one epoch."""

    warmup: float = Field(0.2, ge=0, lt=1, description="share of all steps in which the step size rises from 0")
    retain: Choice = Field("none", description="retain term: `nll` makes it GradDiff, `kl` holds distributions")  # type: ignore[assignment]
    floor: float | None = Field(None, gt=0, description="end once the forget answers of a step have a mean nll above this (nats per token)")


class GradAscent(Objective):
    """Ascent on the token-mean nll of the forget answers."""

    Settings, tiny = GradAscentSettings, {"steps": 3}

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Minus the sum of the nll of the forget answer tokens."""
        return {"forget": Term(-batches.nll(subject.module, "forget").sum(), per="token", weight=self.settings.forget_weight)}

    def done(self, values: Mapping[str, float]) -> bool:
        """Whether the forget answers are unlikely enough."""
        return self.settings.floor is not None and -values["forget"] > self.settings.floor
