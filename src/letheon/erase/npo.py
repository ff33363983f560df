"""Negative preference optimisation: push forget answers below their start, with a weight that fades.

Gradient ascent runs off because its gradient does not shrink once an answer is already unlikely. NPO is bounded below and switches
itself off row by row.

    L = (2 / beta) mean_i softplus(-beta (now_i - frozen_i))        now, frozen: SUMMED answer nll of row i, (b,)

At the start now = frozen, so L is (2 / beta) ln 2 whatever the data. Its gradient is that of ascent on the summed log-likelihood with the
weight 2 sigmoid(-beta (now_i - frozen_i)) on each row. `frozen` is one float per row, taken before the first step: no second model.
beta is meant for sums; some published ports feed means or raw logits, which is another method. arXiv:2404.05868. Card: npo.
"""

from __future__ import annotations

from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.maths.preference import preference_loss
from letheon.train.feed import Feed
from letheon.train.frozen import frozen_nll
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term


class NPOSettings(ObjectiveSettings):
    """Defaults of the paper's TOFU recipe."""

    beta: float = Field(0.1, gt=0, description="inverse temperature, per nat of summed answer nll")
    epochs: int = Field(10, ge=1, description="passes over the forget split")


class NPO(Objective):
    """NPO with any retain term; the paper's best is `nll`."""

    Settings, tiny = NPOSettings, {"steps": 3}

    def start(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Take the summed nll of every forget answer before the first step."""
        self.frozen = frozen_nll(subject, feed, "forget", run)

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Sum of the bounded preference losses over forget rows."""
        now = batches.nll(subject.module, "forget").per_row()
        frozen = self.frozen[batches["forget"].rows]
        each = preference_loss(now - frozen, self.settings.beta)
        return {"forget": Term(each.sum(), per="sequence", weight=self.settings.forget_weight)}
