"""Fine-tuning: go on learning the answers of a split, and its questions too where asked.

    L = (1 / m) sum_j w_j nll_j             m answer tokens of the step; w_j = 1 on answers, `prompt_weight` on prompts

With `prompt_weight` 0 this is the usual token-mean cross-entropy on answers, end token included, and minus its gradient is that of
`grad-ascent`. The sum is divided by the answer tokens alone, so that `prompt_weight` does not change what an answer token counts.
Card: grad-ascent.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from letheon.core.forward import Batches
from letheon.core.learned import noted
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.maths.likelihood import scored_positions, token_nll
from letheon.train.feed import Feed
from letheon.train.objective import Field, Objective, Term, TrainSettings


class FinetuneSettings(TrainSettings):
    """What is learned."""

    split: str = Field("retain", min_length=1, description="the split that is learned")
    prompt_weight: float = Field(0.0, ge=0, description="weight of a prompt token against an answer token")


class Finetune(Objective):
    """Token-mean cross-entropy on one split."""

    Settings, tiny = FinetuneSettings, {"steps": 3}
    tied: ClassVar[tuple[str, ...]] = ()

    @property
    def lead(self) -> str:  # type: ignore[override]
        """The split that is learned."""
        return self.settings.split

    def start(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Remember which rows are learned."""
        self.learned = noted(feed.data[self.settings.split], self.settings.split)

    def finish(self, subject: Subject) -> dict[str, Any]:
        """A digest of the rows, by which an audit knows a retrained model that was taught others."""
        return dict(self.learned)

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Weighted sum of the nll."""
        split = self.settings.split
        if not self.settings.prompt_weight:
            return {"nll": Term(batches.nll(subject.module, split).sum(), per="token", of=split)}
        batch = batches[split]
        found, head = batches.hidden(subject.module, prompts=True)
        nll = token_nll(found[split].states, head, found[split].targets)  # (m,) prompt and answer tokens
        row, at = scored_positions(torch.zeros_like(batch.starts), batch.lengths)
        weights = torch.where(at < batch.starts[row], self.settings.prompt_weight, 1.0)
        return {"nll": Term((weights * nll).sum(), per="token", of=split)}
