"""UNDIAL: distil the model into itself with the memorised token's logit lowered, a target to rest at.

Ascent and NPO have no place to arrive at; longer training means more damage. Here the optimum is known before the first step.

    L = (1 / m) sum_j -sum_v q_jv log p_jv           q_j = softmax(z_j - beta onehot(y_j)),  z: logits of the incoming model

The gradient on the logits is (p - q) / m. At the optimum the token keeps the probability p0 e^-beta / (1 - p0 + p0 e^-beta), not 0: from
p0 = 0.999 that is 0.980 at beta 3 and 0.043 at beta 10, so beta has to fit p0; `target_probability` chooses it for each token. Answer
tokens only; the published code also counts prompts and padding and penalises a stray token there. The incoming model is not kept: its
final hidden states at the answer tokens say the same. arXiv:2402.10052. Card: undial.
"""

from __future__ import annotations

from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.settings import Choice
from letheon.core.subject import Subject
from letheon.maths.divergence import adjusted_cross_entropy, by_penalty, to_probability
from letheon.train.feed import Feed
from letheon.train.frozen import FrozenStates
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term


class UNDIALSettings(ObjectiveSettings):
    """Defaults of the paper: adapters of rank 8, no retain term. Moving all weights wants a lower step size."""

    beta: float = Field(10.0, ge=0, description="penalty on the logit of every answer token")
    target_probability: float | None = Field(None, gt=0, lt=1, description="what each answer token is left with; given, it replaces `beta`")
    epochs: int = Field(10, ge=1, description="passes over the forget split")
    learning_rate: float = Field(1e-4, gt=0, description="peak step size of AdamW")
    parameters: Choice = Field("lora", description="parameter space: which weights may move")  # type: ignore[assignment]
    retain: Choice = Field("none", description="retain term: what holds the rest in place")  # type: ignore[assignment]


class UNDIAL(Objective):
    """Self-distillation with adjusted logits."""

    Settings, tiny = UNDIALSettings, {"steps": 3}

    def start(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Cache what the incoming model says at every forget answer token."""
        most = self.settings.target_probability
        self.lowered = by_penalty(self.settings.beta) if most is None else to_probability(most)
        self.frozen = FrozenStates(subject, feed, "forget", run)

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Sum of the cross-entropies to the adjusted distributions."""
        hidden, head = batches.hidden(subject.module)
        now = hidden["forget"]
        then = self.frozen.of(batches["forget"])
        each = adjusted_cross_entropy(now.states, head, then, self.frozen.head, now.targets, self.lowered)  # (m,)
        return {"forget": Term(each.sum(), per="token", weight=self.settings.forget_weight)}
