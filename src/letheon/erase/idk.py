"""Fine-tuning on refusals: answer forget questions with "I don't know", go on learning retain answers.

    L = (1 / (m_f + m_r)) (sum_j nll of refusal tokens + retain_weight sum_k nll of retain answer tokens)

One mean over the m_f + m_r answer tokens of the whole step, as if both were one batch: longer retain answers weigh more. With
`joint = false` each part has its own mean. One refusal is drawn for each (row, epoch). Without retain rows the model soon refuses
everything. The forget answers are never read. arXiv:2401.06121. Card: dpo-idk.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from letheon.core.data import Data
from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.train.feed import Rows
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term, row_numbers

from ._refusals import with_refusals


class IDKSettings(ObjectiveSettings):
    """Defaults of the TOFU baselines: the warm-up is one epoch."""

    warmup: float = Field(0.2, ge=0, lt=1, description="share of all steps in which the step size rises from 0")
    joint: bool = Field(True, description="one mean over the tokens of both parts; false gives each part its own mean")


class IDK(Objective):
    """Plain fine-tuning on refusals."""

    Settings, tiny = IDKSettings, {"steps": 3}
    tied: ClassVar[tuple[str, ...]] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Refusals take the place of forget answers."""
        return ("refusal",)

    def prepare(self, subject: Subject, data: Data, run: Run) -> Data:
        """Add the refusals."""
        data = with_refusals(data, self.settings, run, f"`{self.name()}`")
        self.rows = len(data["forget"])
        return data

    def planned(self, rows: Rows, epoch: int) -> Rows:
        """The refusal of this epoch in place of each forget row."""
        others = {split: found for split, found in rows.items() if split != "forget" or split in self.retain.splits}
        return {**others, "refusal": row_numbers(rows["forget"], epoch, self.rows)}

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Sum of the nll of the refusals' tokens."""
        return {"refusal": Term(batches.nll(subject.module, "refusal").sum(), per="token", weight=self.settings.forget_weight)}

    def terms(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Both parts, by default divided by the number of tokens of both."""
        found = super().terms(subject, batches)
        both = ("refusal", *self.retain.splits)
        return {name: replace(term, of=both) for name, term in found.items()} if self.settings.joint else found
