"""The bounded preference loss that NPO, SimNPO and DPO share.

    loss = (2 / beta) softplus(-beta margin) = -(2 / beta) log sigmoid(beta margin)

At margin 0 it is (2 / beta) ln 2 and its slope is -1 whatever beta is: the first step is that of plain ascent. It falls to 0 as the margin
grows, and the slope -2 sigmoid(-beta margin) with it, so that what is already forgotten is left alone.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def preference_loss(loser: Tensor, beta: float, winner: Tensor | None = None) -> Tensor:
    """One loss per row, (b,), with margin = loser - winner.

    Args:
        loser: (b,) how much the nll of the unwanted answer has risen, in nats.
        beta: inverse temperature, per nat; above 0.
        winner: (b,) how much the nll of the wanted answer has risen; None means that nothing is wanted instead.
    """
    margin = loser if winner is None else loser - winner
    return 2 / beta * F.softplus(-beta * margin)
