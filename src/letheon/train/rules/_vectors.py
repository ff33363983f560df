"""Gradients as vectors: lists of one tensor per parameter, summed, scaled and multiplied in the optimiser's own metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from letheon.core import processes
from letheon.train.checkpoint import here, is_cut
from letheon.train.parts import Part

Metric = Literal["adam", "euclidean"]
FLOOR = 1e-12  # a squared length below this is no direction


def weighted_sum(parts: Iterable[Part]) -> list[Tensor]:
    """sum_k weight_k g_k."""
    columns = zip(*([part.weight * g for g in part.gradient] for part in parts), strict=True)
    return [torch.stack(column).sum(0) if len(column) > 1 else column[0] for column in columns]


def plus(a: Sequence[Tensor], factor: float, b: Sequence[Tensor]) -> list[Tensor]:
    """a + factor * b."""
    return [x + factor * y for x, y in zip(a, b, strict=True)]


def denominators(named: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, metric: Metric) -> list[Tensor | None]:
    """What the optimiser divides each coordinate of a gradient by, as it stands before the step; None stands for 1.

        h = sqrt(v / (1 - beta2^s)) + eps          v: second moment after the s steps made so far

    A parameter without a second moment (before the first step, or under plain gradient descent) has h = 1.
    """
    if metric == "euclidean":
        return [None] * len(named)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    found: list[Tensor | None] = []
    for parameter in named.values():
        state = optimizer.state.get(parameter, {})
        if "exp_avg_sq" not in state:
            found.append(None)
            continue
        group = groups[id(parameter)]
        unbiased = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
        found.append(unbiased.sqrt_().add_(group["eps"]))
    return found


def inner(a: Sequence[Tensor], b: Sequence[Tensor], over: Sequence[Tensor | None]) -> float:
    """sum_i a_i b_i / h_i over all coordinates, also those that other processes hold, summed in float64."""
    each = [here((x if h is None else x / h) * y).sum(dtype=torch.float64) for x, y, h in zip(a, b, over, strict=True)]
    if not each:
        return 0.0
    total = torch.stack(each).sum()
    if any(map(is_cut, a)):
        processes.summed([total])
    return float(total)
