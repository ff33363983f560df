"""Token-wise forget losses: ascent with a weight on every token, and the bounded losses that turn out to be such ascents.

Notation: m scored tokens, v vocabulary, d width. p = exp(-nll): probability of the scored token, u: the same number without gradient,
q: the same number of the frozen model, z: logits. Each loss is one number per token, (m,); callers sum.

    weighted_ascent = -w nll              its gradient is w grad log p, so a weight says how hard a token is pushed

    w = 1                                 ascent
    w = u^beta                            saturation (WGA): the gradient of p^beta / beta, at beta 1 of p itself
    w = (1 - u)^beta                      importance (SimImp)
    w = u^b1 (1 - u)^b2                   SatImp: the gradient of the incomplete beta function B(p; b1, b2 + 1), largest at b1 / (b1 + b2)
    w = 2 u^beta / (u^beta + q^beta)      relative (TNPO): 1 at the start
    w = 2 u^beta / (u^beta + (1-u)^beta)  CATNIP: at beta 1 twice WGA with beta 1
    w = u / (1 - u)                       unlikelihood -log(1 - p), which is CE-U; twice that is CATNIP at beta 1 with an attached reference

Whatever holds 1 - p inside a logarithm is computed from log-odds, which lose nothing where p rounds to 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .likelihood import Head, chunked, rival_nll


def weighted_ascent(nll: Tensor, weight: Tensor) -> Tensor:
    """-w nll per token or per row, (m,) in nats. The weight is a number: no gradient flows through it."""
    return -weight.detach() * nll


def saturation(nll: Tensor, beta: float) -> Tensor:
    """u^beta, (m,) in [0, 1]: small where the token is unlikely already. 0^0 is 1."""
    return (-_settled(nll)).exp().pow(beta)


def importance(nll: Tensor, beta: float) -> Tensor:
    """(1 - u)^beta, (m,) in [0, 1]: small where the token is certain. 0^0 is 1."""
    return (-torch.expm1(-_settled(nll))).pow(beta)


def relative(nll: Tensor, frozen: Tensor, beta: float, epsilon: float) -> Tensor:
    """2 u^beta / (u^beta + q^beta + epsilon), (m,) in [0, 2].

    Args:
        nll, frozen: (m,) of the model now and of the frozen one.
        epsilon: takes weight from tokens that both models find unlikely.
    """
    now, then = -beta * _settled(nll), -beta * _settled(frozen)  # logarithms of u^beta and q^beta
    against = then - now
    if epsilon:
        against = torch.logaddexp(against, math.log(epsilon) - now)
    return 2 * torch.sigmoid(-against)


def group_means(weights: Tensor, row: Tensor, size: int) -> Tensor:
    """Each weight replaced by the mean of its group, (m,).

    The tokens of a row are sorted by weight and cut into consecutive groups of `size`; the last group of a row may be smaller.

    Args:
        weights: (m,).
        row: (m,) position of each token's row, ascending.
        size: tokens per group, at least 1.
    """
    order = weights.argsort(stable=True)
    order = order[row[order].argsort(stable=True)]  # by row, and by weight within a row
    counts = torch.bincount(row)
    within = torch.arange(len(row), device=row.device) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    _, group = torch.stack([row[order], within // size]).unique_consecutive(dim=1, return_inverse=True)
    sums = weights.new_zeros(len(row)).index_add(0, group, weights[order])
    means = sums / torch.bincount(group, minlength=len(row)).clamp(min=1)
    return torch.empty_like(weights).index_copy(0, order, means[group])


def log_odds(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    """log p - log(1 - p) of `targets` (m,) given `hidden` (m, d), in nats, (m,): z_y - logsumexp of all other logits."""

    def piece(part: Tensor, target: Tensor) -> Tensor:
        logits = head.logits(part)  # (c, v)
        own = logits.gather(-1, target[:, None]).squeeze(-1)
        return own - logits.scatter_(-1, target[:, None], -math.inf).logsumexp(-1)

    return chunked(piece, head, hidden, targets)


def unlikelihood(odds: Tensor) -> Tensor:
    """-log(1 - p) per token, (m,) in nats, from log-odds (m,)."""
    return F.softplus(odds)


def calibrated(odds: Tensor, attached: bool) -> Tensor:
    """Log-odds (m,) whose gradient is that of log p alone, unless the reference 1 - p stays `attached`."""
    if attached:
        return odds
    own = F.logsigmoid(odds)  # log p
    return odds.detach() + (own - own.detach())


def inverted_hinge(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    """1 + p_y - max over v != y of p_v, per token, (m,) in [0, 2]."""
    own, other = (-rival_nll(hidden, head, targets)).exp().unbind(-1)
    return 1 + own - other


def squared_peak(hidden: Tensor, head: Head, live: int | None = None) -> Tensor:
    """(max_v z_v - mean_v z_v)^2 per token, (m,): 0 where all logits are equal.

    Args:
        hidden: (m, d).
        live: how many of the first vocabulary entries stand for tokens; the rest is padding and does not count. None: all.
    """

    def piece(part: Tensor) -> Tensor:
        logits = head.logits(part)[:, :live]
        return (logits.max(-1).values - logits.mean(-1)).square()

    return chunked(piece, head, hidden)


def _settled(nll: Tensor) -> Tensor:
    """Without gradient, and without the rounding that makes a certain token's nll negative."""
    return nll.detach().clamp(min=0)
