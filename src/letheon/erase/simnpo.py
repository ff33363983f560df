"""SimNPO: NPO without a reference, on the mean nll of each answer, so that length tilts no weight.

NPO counts from the incoming model and sums over tokens: rows that were never known well keep a full weight, long rows lose theirs early.

    L = (2 / beta) mean_i softplus(-beta (s_i / n_i - delta))      s_i: summed answer nll of row i, n_i: its answer tokens

The gradient is that of ascent on the log-likelihood of row i with the weight (2 / n_i) sigmoid(-beta (s_i / n_i - delta)). A fully
memorised row (s = 0, delta = 0) gives (2 / beta) ln 2, a forgotten one 0. The paper subtracts the margin outside the product with beta,
its code inside; `margin` chooses. Some published ports feed raw logits or a batch mean, which is another method. arXiv:2410.07163.
Card: simnpo.
"""

from __future__ import annotations

from typing import Literal

from letheon.core.forward import Batches
from letheon.core.subject import Subject
from letheon.maths.preference import preference_loss
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term


class SimNPOSettings(ObjectiveSettings):
    """Defaults of the paper's TOFU forget10 recipe."""

    beta: float = Field(4.5, gt=0, description="inverse temperature, per nat of mean answer nll")
    delta: float = Field(0.0, ge=0, description="margin: nats per token (`inside`) or pure number (`outside`)")
    margin: Literal["inside", "outside"] = Field("inside", description="beta (s/n - delta), as coded, or beta s/n - delta, as printed")
    forget_weight: float = Field(0.125, ge=0, description="factor of the forget term")
    epochs: int = Field(10, ge=1, description="passes over the forget split")


class SimNPO(Objective):
    """Reference-free, length-normalised NPO."""

    Settings, tiny = SimNPOSettings, {"steps": 3}

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Sum of the bounded losses over forget rows."""
        settings = self.settings
        delta = settings.delta if settings.margin == "inside" else settings.delta / settings.beta
        mean = batches.nll(subject.module, "forget").per_row_mean()
        return {"forget": Term(preference_loss(mean - delta, settings.beta).sum(), per="sequence", weight=settings.forget_weight)}
