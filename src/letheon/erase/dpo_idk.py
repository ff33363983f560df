"""IDK-DPO: prefer a refusal over the forget answer, both measured from where they started.

Instead of only pushing an answer down, give the model something to say.

    L = (2 / beta) mean_i softplus(-beta (d_i - w_i))
    d_i = now - frozen of the forget answer,  w_i = now - frozen of a refusal to the same question      (SUMMED nll, (b,))

At the start L is (2 / beta) ln 2 and its gradient that of mean(log p(answer) - log p(refusal)) whatever beta is. Without w it is NPO, bit
for bit: the factor is 2 / beta, not the 1 of plain preference optimisation. One refusal is drawn for each (row, epoch). The first public
TOFU code scored the answer with labels of another batch. arXiv:2401.06121, arXiv:2404.05868. Card: dpo-idk.
"""

from __future__ import annotations

from typing import ClassVar

from letheon.core.data import Data
from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.maths.preference import preference_loss
from letheon.train.feed import Feed, Rows
from letheon.train.frozen import frozen_nll
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term, row_numbers

from ._refusals import with_refusals


class DPOIDKSettings(ObjectiveSettings):
    """Defaults of the NPO paper's comparison."""

    beta: float = Field(0.1, gt=0, description="inverse temperature, per nat of summed answer nll")
    epochs: int = Field(10, ge=1, description="passes over the forget split")


class DPOIDK(Objective):
    """Preference of refusals over forget answers."""

    Settings, tiny = DPOIDKSettings, {"steps": 3}
    tied: ClassVar[tuple[str, ...]] = ("forget", "refusal")

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
        self.frozen = {split: frozen_nll(subject, feed, split, run) for split in self.tied}

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Sum of the preference losses over forget rows."""
        risen = {
            split: batches.nll(subject.module, split).per_row() - self.frozen[split][batches[split].rows] for split in self.tied
        }  # (b,) each
        each = preference_loss(risen["forget"], self.settings.beta, winner=risen["refusal"])
        return {"forget": Term(each.sum(), per="sequence", weight=self.settings.forget_weight)}
