"""AltPO: prefer another, plausible answer in the subject's own words over the forget answer.

A model that is only pushed away from its answers has nothing left to say, and says it incoherently, which shows that something was removed.

    L = (2 / beta) mean_i softplus(-beta (d_i - w_i))
    d_i = now - frozen of the forget answer,  w_i = now - frozen of an alternate answer to the same question      (SUMMED nll, (b,))

One code path with NPO (w = 0) and IDK-DPO (a refusal as alternate); at the start L is (2 / beta) ln 2. The subject writes `alternates`
answers to each question before the first step: asked for one with the true answer before it, as in the paper, or, where it cannot follow an
instruction, answering with the words of the true answer forbidden. Pass e of the forget split takes alternate e modulo `alternates`, so
each pair is seen once in that many passes. Alternates that share too many words with the truth are drawn again. All are written to
`alternates.jsonl`; more than a few passes over each of them make them the next secret. arXiv:2409.13474. Card: altpo.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from letheon.core.data import Data
from letheon.core.errors import DataError
from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.maths.preference import preference_loss
from letheon.train.feed import Feed, Rows
from letheon.train.frozen import frozen_nll
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term, row_numbers

from ._alternates import Writing, alternates, as_rows
from ._refusals import passes

SPLIT = "alternate"


class AltPOSettings(ObjectiveSettings):
    """The authors' recipe for TOFU: ten passes over the questions, two over each pair, the first half of all steps to warm up."""

    beta: float = Field(0.1, gt=0, description="inverse temperature, per nat of summed answer nll")
    alternates: int = Field(5, ge=1, description="alternate answers of each question; no more are written than there are passes")
    writer: Literal["asked", "banned"] | None = Field(
        None, description="how: asked for one, or with the true words forbidden; unset: asked where the tokenizer has a chat template"
    )
    temperature: float = Field(1.0, gt=0, description="of the draws")
    longest: int = Field(200, ge=1, description="tokens of an alternate")
    alike: float = Field(0.5, ge=0, lt=1, description="largest share of words (not in the question) that alternate and truth may share")
    tries: int = Field(20, ge=1, description="draws of an alternate before giving up")
    epochs: int = Field(10, ge=1, description="passes over the forget split")
    learning_rate: float = Field(5e-5, gt=0, description="peak step size of AdamW")
    warmup: float = Field(0.5, ge=0, lt=1, description="share of all steps in which the step size rises from 0")


class AltPO(Objective):
    """Preference of the subject's own alternates over forget answers."""

    Settings, tiny = AltPOSettings, {"steps": 3, "longest": 8}
    tied: ClassVar[tuple[str, ...]] = ("forget", SPLIT)

    def prepare(self, subject: Subject, data: Data, run: Run) -> Data:
        """Let the subject write the alternates.

        Raises:
            DataError: a split is missing, or a forget row has no question.
            MethodError: the subject writes nothing but the truth.
        """
        settings = self.settings
        data.need(*self.splits, why=f"`{self.name()}`")
        bare = next((row for row in data["forget"] if not row.prompt), None)
        if bare is not None:
            what = f"`{self.name()}` answers questions, but row `{bare.id}` of `forget` has no prompt"
            raise DataError(what, "For plain text use `npo` or `rmu`")
        self.rows, self.count = len(data["forget"]), min(settings.alternates, passes(settings, len(data["forget"])))
        banned = settings.writer == "banned" if settings.writer else not subject.encoder.chat
        how = Writing(self.count, banned, settings.temperature, settings.longest, settings.alike, settings.tries)
        found, self.thrown = alternates(subject.to(run.device), data["forget"], how, run)
        self.writer = "banned" if banned else "asked"
        return data.with_split(SPLIT, as_rows(data["forget"], found, SPLIT))

    def planned(self, rows: Rows, epoch: int) -> Rows:
        """Each forget row together with its alternate of this pass."""
        return {**rows, SPLIT: row_numbers(rows["forget"], epoch % self.count, self.rows)}

    def start(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Take the summed nll of every answer and every alternate before the first step."""
        self.frozen = {split: frozen_nll(subject, feed, split, run) for split in self.tied}
        self.digest = feed.data[SPLIT].digest

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Sum of the preference losses over forget rows."""
        risen = {
            split: batches.nll(subject.module, split).per_row() - self.frozen[split][batches[split].rows] for split in self.tied
        }  # (b,) each
        each = preference_loss(risen["forget"], self.settings.beta, winner=risen[SPLIT])
        return {"forget": Term(each.sum(), per="sequence", weight=self.settings.forget_weight)}

    def finish(self, subject: Subject) -> dict[str, Any]:
        """Which alternates these were."""
        return {"writer": self.writer, "alternates": self.count, "thrown_away": self.thrown, "alternates_digest": self.digest}
