"""Round-to-nearest weight quantisation: what a deployed model is made of.

    int       Delta_G = max over a group of |w| / 2^(bits - 1)        Q(w) = Delta_G * round(w / Delta_G)
    nf4       Q(w) = max over a group of |w| * the nearest of 16 levels, quantiles of the normal distribution scaled to -1..1

A group is `group` consecutive input weights of one output row. Codes are not clipped: the largest |w| of a group has the code 2^(bits - 1)
and is kept exactly. arXiv:2410.16454; the levels of nf4: arXiv:2305.14314.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor


def scales(weight: Tensor, bits: int, group: int) -> Tensor:
    """Step sizes (o, groups) in float32 of a weight (o, i); the last group of a row may be shorter."""
    rows = _grouped(weight, group)
    return rows.abs().amax(-1) / 2 ** (bits - 1)


def rounded(weight: Tensor, bits: int, group: int = 64) -> Tensor:
    """The weight (o, i) as its quantised copy stands for it, in its own number format.

    Args:
        weight: a matrix; a group runs along its second dimension.
        bits: 2 to 16.
        group: weights that share a step size.
    """
    return _back(codes(weight, bits, group) * scales(weight, bits, group)[..., None], weight)


def codes(weight: Tensor, bits: int, group: int = 64) -> Tensor:
    """The whole numbers (o, groups, group) that stand for a weight, as float32; 0 where a group is all zero."""
    step = scales(weight, bits, group)[..., None]
    return (_grouped(weight, group) / step.where(step > 0, torch.ones_like(step))).round()


@functools.cache
def normal_levels() -> Tensor:
    """The 16 levels of nf4, ascending: 8 negative, zero, 7 positive; each side spaced by equal shares of a normal distribution, (16,)."""
    from scipy.stats import norm

    furthest = (1 - 1 / 30 + 1 - 1 / 32) / 2  # keeps the outermost quantile finite
    sides = [norm.ppf(torch.linspace(furthest, 0.5, n, dtype=torch.float64).numpy())[:-1] for n in (9, 8)]
    levels = torch.tensor([*sides[0], 0.0, *-sides[1]], dtype=torch.float64).sort().values
    return (levels / levels.abs().max()).float()


def normal_float(weight: Tensor, group: int = 64) -> Tensor:
    """The weight (o, i) as its nf4 copy stands for it, in its own number format."""
    rows = _grouped(weight, group)
    largest = rows.abs().amax(-1, keepdim=True)
    levels = normal_levels().to(weight.device)
    middle = (levels[1:] + levels[:-1]) / 2
    share = (rows / largest.where(largest > 0, torch.ones_like(largest))).contiguous()
    return _back(levels[torch.bucketize(share, middle)] * largest, weight)


def _grouped(weight: Tensor, group: int) -> Tensor:
    """(o, i) -> (o, groups, group), filled up with zeros."""
    short = -weight.shape[1] % group
    return torch.nn.functional.pad(weight.float(), (0, short)).unflatten(1, (-1, group))


def _back(grouped: Tensor, weight: Tensor) -> Tensor:
    return grouped.flatten(1)[:, : weight.shape[1]].to(weight.dtype)
