"""Token-wise NPO: every answer token fades by its own ratio to the start, whatever its length.

NPO gives a whole answer one weight from a sum over its tokens: long answers lose theirs early. Here each token has its own.

    L = -(1 / m) sum_j w_j nll_j           w_j = 2 p_j^beta / (p_j^beta + q_j^beta + epsilon), times p_j^alpha; no gradient through it
                                           p, q: probability of answer token j now and before the first step; m answer tokens of the step

With epsilon 0 and alpha 0 every weight is 1 at the start: the first step is that of ascent. epsilon, as published, takes weight from
tokens that were never likely (with beta 4 those below about 0.06). alpha 1.5 is the variant WTNPO. The code weighs and detaches, as here;
its value is no preference loss, only its gradient is that of one. q is one float per token, taken before the first step: no second model.
From the code of the WGA paper, arXiv:2502.19301. Card: npo.
"""

from __future__ import annotations

from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.maths.token_losses import relative, saturation, weighted_ascent
from letheon.train.feed import Feed
from letheon.train.frozen import FrozenScores
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term


class TNPOSettings(ObjectiveSettings):
    """Weights as published, the rest as for NPO."""

    beta: float = Field(4.0, gt=0, description="exponent of both probabilities")
    alpha: float = Field(0.0, ge=0, description="exponent of a further factor, the token's probability now; 1.5 is WTNPO")
    epsilon: float = Field(1e-5, ge=0, description="added below the fraction; 0 makes every weight 1 at the start")
    epochs: int = Field(10, ge=1, description="passes over the forget split")


class TNPO(Objective):
    """Ascent weighted by each token's ratio to the start."""

    Settings, tiny = TNPOSettings, {"steps": 3}

    def start(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Take the nll of every forget answer token before the first step."""
        self.frozen = FrozenScores(subject, feed, "forget", run)

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Minus the weighted sum of the nll of the forget answer tokens."""
        settings = self.settings
        nll = batches.nll(subject.module, "forget").values  # (m,)
        weights = relative(nll, self.frozen.of(batches["forget"]), settings.beta, settings.epsilon)
        weights = weights * saturation(nll, settings.alpha)
        return {"forget": Term(weighted_ascent(nll, weights).sum(), per="token", weight=settings.forget_weight)}
