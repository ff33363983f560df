"""Saturation alone, at a grain to choose: ascent that fades where forgetting is done.

The study behind SatImp asks what should share one weight: nothing, a group of tokens, or a whole answer. Per token it is WGA.

    token    L = -(1 / m) sum_j w_j nll_j      w_j = p_j^beta without gradient; m answer tokens of the step
    group    the same, w_j replaced by the mean over its group: the tokens of an answer sorted by weight, cut into pieces of `group`
    answer   L = -(1 / b) sum_i w_i s_i        w_i = exp(-s_i)^beta, s_i: summed answer nll of row i; b rows of the step

Groups of 1 are tokens; beta 0 is ascent (per answer: on the SUMMED log-likelihood). Whole answers of any length have a weight near 0
unless they are known by heart: that is part of the study's finding. The authors' branch without a retain term ignores beta (it is 1
there), and their retain factor multiplies the forget term; here both mean what they say. arXiv:2505.11953. Card: satimp.
"""

from __future__ import annotations

from letheon.core.forward import Batches
from letheon.core.subject import Subject
from letheon.maths.token_losses import saturation
from letheon.train.objective import Objective, Term

from ._reweighted import GrainSettings, grained


class SimSat(Objective):
    """Ascent weighted by likelihood."""

    Settings, tiny = GrainSettings, {"steps": 3}

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Minus the weighted sum of the forget nll, at the asked grain."""
        now = batches.nll(subject.module, "forget")
        return {"forget": grained(now, lambda nll: saturation(nll, self.settings.beta), self.settings)}
