"""Inverted hinge loss: hand the probability of each forget token to the runner-up, and stop there.

Ascent spreads the mass of a forgotten token over the whole vocabulary, which reads as gibberish. This loss is bounded and moves it to the
one token that the model would have said instead.

    L = (1 / m) sum_j (1 + p_jy - p_jr)           y: true token, r: the most likely other token; m answer tokens of the step

Each term lies in [0, 2]: 2 when the model is certain of y, 1 at a tie, 0 when r has taken all (the published max(0, .) never acts). With
d = p_r - p_y the gradient on the logits is p_y (1 + d) on y, -p_r (1 - d) on r and p_v d on every other v. So at a tie only two tokens
move, and a model that is certain of its answers starts slowly. The loss alone of LoKU; its adapters that start on weights that matter to
the forget rows are a parameter space. The published helper may skip the softmax when all logits lie in [0, 1]; here it never does.
arXiv:2408.06621. Card: loku.
"""

from __future__ import annotations

from letheon.core.forward import Batches
from letheon.core.settings import Choice
from letheon.core.subject import Subject
from letheon.maths.token_losses import inverted_hinge
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term


class InvertedHingeSettings(ObjectiveSettings):
    """The paper's recipe for adapters, its warm-up of one epoch among it. Moving all weights wants a lower step size."""

    learning_rate: float = Field(1e-4, gt=0, description="peak step size of AdamW")
    warmup: float = Field(0.2, ge=0, lt=1, description="share of all steps in which the step size rises from 0")
    parameters: Choice = Field("lora", description="parameter space: which weights may move")  # type: ignore[assignment]


class InvertedHinge(Objective):
    """The hinge between each forget token and its runner-up."""

    Settings, tiny = InvertedHingeSettings, {"steps": 3}

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Sum of the hinges of the forget answer tokens."""
        hidden, head = batches.hidden(subject.module)
        now = hidden["forget"]
        each = inverted_hinge(now.states, head, now.targets)  # (m,)
        return {"forget": Term(each.sum(), per="token", weight=self.settings.forget_weight)}
