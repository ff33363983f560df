"""What the reweighted ascents share: the recipe of their papers and the grain at which a weight is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from letheon.maths.likelihood import Scores
from letheon.maths.token_losses import group_means, weighted_ascent
from letheon.train.objective import Field, ObjectiveSettings, Term


class ReweightedSettings(ObjectiveSettings):
    """The TOFU recipe of the SatImp paper: the warm-up is one epoch, no weight decay, retain at a tenth of forget."""

    batch_size: int = Field(16, ge=1, description="rows of each split per optimiser step")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of matrices; vectors have none")
    warmup: float = Field(0.2, ge=0, lt=1, description="share of all steps in which the step size rises from 0")
    retain_weight: float = Field(0.1, ge=0, description="factor of the retain term")


class GrainSettings(ReweightedSettings):
    """Settings of a weight with one exponent, taken per token, per group of tokens or per answer."""

    beta: float = Field(1.0, ge=0, description="exponent of the weight; 0 is plain ascent")
    grain: Literal["token", "group", "answer"] = Field("token", description="what shares one weight")
    group: int = Field(5, ge=1, description="tokens of one answer, next to each other in weight, that share their mean weight")


def grained(now: Scores, weight: Callable[[Tensor], Tensor], settings: GrainSettings) -> Term:
    """The weighted ascent at the asked grain: per token, or per row where the whole answer has one weight.

    Args:
        now: nll of the scored tokens.
        weight: from nll (of tokens or of whole answers) to weights of the same shape.
    """
    if settings.grain == "answer":
        whole = now.per_row()  # (b,)
        return Term(weighted_ascent(whole, weight(whole)).sum(), per="sequence", weight=settings.forget_weight)
    weights = weight(now.values)  # (m,)
    if settings.grain == "group":
        weights = group_means(weights, now.row, settings.group)
    return Term(weighted_ascent(now.values, weights).sum(), per="token", weight=settings.forget_weight)
