"""Logit flattening: pull the top logit of forget positions to the mean, towards saying nothing.

A cross-entropy to the uniform distribution loses its gradient near the goal. This one works on logits, without a softmax.

    L = (1 / m) sum_j (max_v z_jv - mean_v z_jv)^2        z_j: logits that predict answer token j; m answer tokens of the step

It is 0 exactly where all logits are equal, and a constant added to all logits of a position changes nothing. The gradient is
2 (max - mean) (onehot(top) - 1 / v): only the token on top is pulled, whichever it is. Vocabulary entries beyond the tokenizer are
padding and do not count. The value is in squared logits, hundreds at the start, so the retain term needs a weight of that order (the
paper's first multiplier, 100). The loss alone of PDU; its constraint on the retain loss is a gradient rule. The published code reads the
positions one later, missing the first answer token and reading past the last; here they are those that predict the answer. A flat answer
is itself a trace: no retrained model gives it. arXiv:2506.05314. Card: pdu.
"""

from __future__ import annotations

from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.maths.token_losses import squared_peak
from letheon.train.feed import Feed
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term


class LogitFlatteningSettings(ObjectiveSettings):
    """Defaults of the paper's TOFU runs, with the first multiplier as a fixed weight."""

    epochs: int = Field(10, ge=1, description="passes over the forget split")
    retain_weight: float = Field(100.0, ge=0, description="factor of the retain term, against squared logits")


class LogitFlattening(Objective):
    """Squared distance of the top logit from the mean."""

    Settings, tiny = LogitFlatteningSettings, {"steps": 3}
    live: int | None = None

    def start(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Note how many vocabulary entries stand for tokens."""
        self.live = len(subject.encoder.tokenizer)

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Sum of the squared peaks at the positions that predict forget answer tokens."""
        hidden, head = batches.hidden(subject.module)
        each = squared_peak(hidden["forget"].states, head, self.live)  # (m,)
        return {"forget": Term(each.sum(), per="token", weight=self.settings.forget_weight)}
