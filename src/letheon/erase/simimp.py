"""Importance alone, at a grain to choose: ascent that spares what the model is certain of.

The other half of the study behind SatImp, kept to compare with: alone it pushes hardest what is already forgotten, as ascent does.

    token    L = -(1 / m) sum_j w_j nll_j      w_j = (1 - p_j)^beta without gradient; m answer tokens of the step
    group    the same, w_j replaced by the mean over its group: the tokens of an answer sorted by weight, cut into pieces of `group`
    answer   L = -(1 / b) sum_i w_i s_i        w_i = (1 - exp(-s_i))^beta, s_i: summed answer nll of row i; b rows of the step

Groups of 1 are tokens; beta 0 is ascent (per answer: on the SUMMED log-likelihood). The loss is not bounded below, so a retain term and
few steps are needed. Weights from hand-marked key tokens, which the paper also tries, are not offered. arXiv:2505.11953. Card: satimp.
"""

from __future__ import annotations

from letheon.core.forward import Batches
from letheon.core.subject import Subject
from letheon.maths.token_losses import importance
from letheon.train.objective import Objective, Term

from ._reweighted import GrainSettings, grained


class SimImp(Objective):
    """Ascent weighted by unlikelihood."""

    Settings, tiny = GrainSettings, {"steps": 3}

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Minus the weighted sum of the forget nll, at the asked grain."""
        now = batches.nll(subject.module, "forget")
        return {"forget": grained(now, lambda nll: importance(nll, self.settings.beta), self.settings)}
