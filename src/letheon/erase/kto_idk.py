"""KTO with refusals: a one-sided preference loss whose zero point is how far refusals have moved.

    L = 1 + (2 / beta) mean_i softplus(-(z0 + beta d_i))
    d_i = now - frozen of the forget answer, z0 = mean over the step of -(now - frozen) of refusals, without gradient    (SUMMED nll)

At the start L is 1 + (2 / beta) ln 2. As in the NPO authors' code beta multiplies only d, and z0 is signed; the KTO paper has
beta (z0 + d) and clamps z0 at 0. z0 is one number for the whole optimiser step, whatever its micro-batches: it comes from a pass without
gradient over the step's refusals, which need no other. arXiv:2402.01306, arXiv:2404.05868. Card: dpo-idk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from letheon.core.data import Data
from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.train.feed import Feed, Rows
from letheon.train.frozen import frozen_nll
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term, row_numbers

from ._refusals import with_refusals


class KTOIDKSettings(ObjectiveSettings):
    """Defaults of the NPO paper's comparison."""

    beta: float = Field(0.1, gt=0, description="inverse temperature, per nat of summed answer nll")
    epochs: int = Field(10, ge=1, description="passes over the forget split")


class KTOIDK(Objective):
    """Push forget answers below a zero point set by refusals."""

    Settings, tiny = KTOIDKSettings, {"steps": 3}

    def prepare(self, subject: Subject, data: Data, run: Run) -> Data:
        """Add the refusals."""
        data = with_refusals(data, self.settings, run, f"`{self.name()}`")
        self.rows = len(data["forget"])
        return data

    def planned(self, rows: Rows, epoch: int) -> Rows:
        """Each forget row together with its refusal of this epoch."""
        return {**rows, "refusal": row_numbers(rows["forget"], epoch, self.rows)}

    def start(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Take the summed nll of every answer and every refusal before the first step."""
        self.frozen = frozen_nll(subject, feed, "forget", run)
        self.frozen_refusals = frozen_nll(subject, feed, "refusal", run)

    def drawn(self, subject: Subject, feed: Feed, rows: Rows, run: Run) -> Rows:
        """Measure z0 over the whole step; the refusals are needed no more."""
        now = frozen_nll(subject, feed, "refusal", run, rows["refusal"])
        at = torch.as_tensor(rows["refusal"], device=now.device)
        self.zero = (self.frozen_refusals[at] - now[at]).mean()
        return {split: found for split, found in rows.items() if split != "refusal"}

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Sum of the losses over forget rows."""
        beta = self.settings.beta
        risen = batches.nll(subject.module, "forget").per_row() - self.frozen[batches["forget"].rows]  # (b,)
        each = 1 + 2 / beta * F.softplus(-(self.zero + beta * risen))
        return {"forget": Term(each.sum(), per="sequence", weight=self.settings.forget_weight)}
