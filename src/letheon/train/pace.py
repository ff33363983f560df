"""How fast weights move: AdamW, and the factor on its step size over a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from .objective import TrainSettings


def rate_factor(step: int, total: int, warmup: float, schedule: str) -> float:
    """Factor on the peak step size at 0-based `step`: linear rise over the warm-up, then the schedule down towards 0."""
    rising = math.ceil(warmup * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    if schedule == "constant":
        return 1.0
    left = (total - step) / max(1, total - rising)
    return left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def optimizer_for(parameters: Sequence[nn.Parameter], settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over these weights; vectors do not decay."""
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate, betas=settings.betas, fused=True)
