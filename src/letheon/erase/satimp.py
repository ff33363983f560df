"""Saturation and importance in one weight: push tokens that are still known but not taken for granted.

Two wishes hide in the weights of ascent: stop where forgetting is done (saturation) and push the tokens that carry the secret rather
than the function words that every model is certain of (importance). SatImp has one smooth factor for each.

    L = -(1 / m) sum_j w_j nll_j           w_j = p_j^beta1 (1 - p_j)^beta2 without gradient; m answer tokens of the step

(0, 0) is ascent, (b, 0) WGA, (0, b) SimImp. The gradient is that of the incomplete beta function, (1 / m) sum_j B(p_j; beta1, beta2 + 1).
The weight is largest at p = beta1 / (beta1 + beta2) and 0 at both ends, so a model that is certain of its answers (p above 0.999) starts
to forget SLOWLY: lower beta2 there. Each term lies between -max_p p^beta1 (1 - p)^beta2 (-log p) and 0. 1 - p is taken as -expm1(-nll) in
float32, else tokens known beyond bfloat16 are never unlearned. beta2: 1 in public benchmarks (the default), 0.1 in the authors' notes.
In the authors' code one setting is named otherwise (hyper_param is beta1, beta is beta2) and the retain factor wanders between terms.
arXiv:2505.11953. Card: satimp.
"""

from __future__ import annotations

from letheon.core.forward import Batches
from letheon.core.subject import Subject
from letheon.maths.token_losses import importance, saturation, weighted_ascent
from letheon.train.objective import Field, Objective, Term

from ._reweighted import ReweightedSettings


class SatImpSettings(ReweightedSettings):
    """Two exponents."""

    beta1: float = Field(5.0, ge=0, description="saturation: exponent of the token's probability")
    beta2: float = Field(1.0, ge=0, description="importance: exponent of one minus the token's probability")


class SatImp(Objective):
    """Ascent weighted by saturation times importance."""

    Settings, tiny = SatImpSettings, {"steps": 3}

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Minus the weighted sum of the nll of the forget answer tokens."""
        nll = batches.nll(subject.module, "forget").values  # (m,)
        weights = saturation(nll, self.settings.beta1) * importance(nll, self.settings.beta2)
        return {"forget": Term(weighted_ascent(nll, weights).sum(), per="token", weight=self.settings.forget_weight)}
