"""CATNIP: token-wise NPO whose reference is the model's own doubt, 1 - p, instead of a frozen copy.

How far a token has moved from the start says little about how well it is known NOW. Here each token is judged by its own odds.

    L = (1 / m) sum_j (2 / beta) log(1 + (p_j / (1 - p_j))^beta)       p_j: probability of answer token j; m answer tokens of the step

With the reference 1 - p `detached` the gradient is that of ascent with the weight 2 p^beta / (p^beta + (1 - p)^beta) on each token: in
[0, 2], 1 at p = 1/2, and at beta 1 exactly twice WGA with beta 1. `attached`, the weight is that over 1 - p, and at beta 1 the loss is
exactly twice the unlikelihood -log(1 - p), whose gradient is that of CE-U. Odds come straight from the logits, so certain tokens need no
clamp. Where weights are near 2 throughout, Adam moves as for ascent: what is known by heart starts fast; stop early.

RECONSTRUCTION: no reference code is public; the equations are rebuilt from the abstract and from what reviews say (reference 1 - p, a
mean over tokens, a weight that rises with p). The authors' beta, detaching and kind of mean are not known, so all are settings.
arXiv:2602.02824. Card: catnip.
"""

from __future__ import annotations

from typing import Literal

from letheon.core.forward import Batches
from letheon.core.settings import Choice
from letheon.core.subject import Subject
from letheon.maths.likelihood import Scores
from letheon.maths.preference import preference_loss
from letheon.maths.token_losses import calibrated, log_odds
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term


class CATNIPSettings(ObjectiveSettings):
    """The recipe of NPO without retain data."""

    beta: float = Field(1.0, gt=0, description="inverse temperature: exponent of the odds; 0.5 and 2 are worth a try")
    reference: Literal["detached", "attached"] = Field("detached", description="whether a gradient flows through the reference 1 - p")
    mean: Literal["token", "sequence"] = Field("token", description="one mean over all tokens, or over rows of the mean in each row")
    epochs: int = Field(10, ge=1, description="passes over the forget split")
    retain: Choice = Field("none", description="retain term: what holds the rest in place")  # type: ignore[assignment]


class CATNIP(Objective):
    """Bounded ascent weighted by each token's own odds."""

    Settings, tiny = CATNIPSettings, {"steps": 3}

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Sum of the losses of forget tokens, or over rows of their means."""
        settings = self.settings
        hidden, head = batches.hidden(subject.module)
        now = hidden["forget"]
        odds = calibrated(log_odds(now.states, head, now.targets), settings.reference == "attached")
        each = Scores(preference_loss(-odds, settings.beta), now.row, now.b)  # (m,)
        total = each.sum() if settings.mean == "token" else each.per_row_mean().sum()
        return {"forget": Term(total, per=settings.mean, weight=settings.forget_weight)}
