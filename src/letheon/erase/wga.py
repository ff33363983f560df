"""Weighted gradient ascent: ascent that pushes a token the less, the less likely it already is.

Ascent pushes hardest where forgetting is done. One factor turns that round.

    L = -(1 / m) sum_j w_j nll_j           w_j = p_j^beta without gradient; m answer tokens of the step, p_j = exp(-nll_j)

Because the weight is a number, the gradient is exactly that of (1 / (beta m)) sum_j p_j^beta: at beta 1 it lowers the mean probability of
the forget tokens. beta 0 is ascent. At beta 1 each term lies in [-1/e, 0], so the value logged RISES towards 0 as forgetting goes on.
The weights are not normalised, as published. The mean is over the tokens of the whole step, where the published trainer takes it per
micro-batch. Defaults: beta 1 as in public benchmarks; the authors' code falls back to 5. arXiv:2502.19301. Card: satimp.
"""

from __future__ import annotations

from letheon.core.forward import Batches
from letheon.core.subject import Subject
from letheon.maths.token_losses import saturation, weighted_ascent
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term


class WGASettings(ObjectiveSettings):
    """The warm-up is one epoch; no weight decay."""

    beta: float = Field(1.0, ge=0, description="exponent of the token's probability; 0 is plain ascent")
    batch_size: int = Field(16, ge=1, description="rows of each split per optimiser step")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of matrices; vectors have none")
    warmup: float = Field(0.2, ge=0, lt=1, description="share of all steps in which the step size rises from 0")


class WGA(Objective):
    """Ascent weighted by the token's own probability."""

    Settings, tiny = WGASettings, {"steps": 3}

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Minus the weighted sum of the nll of the forget answer tokens."""
        nll = batches.nll(subject.module, "forget").values  # (m,)
        each = weighted_ascent(nll, saturation(nll, self.settings.beta))
        return {"forget": Term(each.sum(), per="token", weight=self.settings.forget_weight)}
