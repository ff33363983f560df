"""Keeps the retain loss below a bound: the retain weight is a multiplier that the run finds.

A fixed weight gives no say over how much may be lost, and the right one differs per model and set. Here forgetting goes on SUBJECT TO a
retain loss of at most epsilon.

    g = f + multiplier r                                 f: sum of the weighted gradients of the other terms, r: of the retain term
    multiplier <- max(0, multiplier + rate (L - epsilon))          L: mean retain loss of the step, or its running average
    epsilon = max((1 + slack) L0, L0 + margin)           L0: retain loss of the model as it came in, over `start_rows` rows

The multiplier begins at the term's weight (`retain_weight`) and moves once per optimiser step, after the gradient of that step is made,
by the loss averaged over the whole step; with `rate` = 0 this is `sum`. A model that stands still moves it by exactly rate (L - epsilon).
The authors' code moves it once per micro-batch and process, and takes epsilon as a number per model: one below L0 makes it grow without
end, one far above pins it at 0. Their forget loss is a separate objective; any will do here, but `retain_weight` and `rate` must be of
its size. Warm-up counts steps, not epochs. arXiv:2506.05314. Card: pdu.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from letheon.core.errors import MethodError
from letheon.core.settings import Field, Settings
from letheon.train.parts import Part, Rule

from ._vectors import plus, weighted_sum


class PrimalDualSettings(Settings):
    """The bound, and how the multiplier moves."""

    epsilon: float | None = Field(None, ge=0, description="largest allowed mean of the retain term, in its unit; none: from the start")
    slack: float = Field(0.1, ge=0, description="allowed rise over the start as a share of it, where `epsilon` is none")
    margin: float = Field(0.05, ge=0, description="allowed rise over the start in the term's unit, where that is more")
    start_rows: int = Field(256, ge=1, description="retain rows on which the start is measured")
    rate: float = Field(1.0, ge=0, description="step size of the multiplier")
    warmup: int = Field(0, ge=0, description="optimiser steps before the multiplier may move")
    smoothing: float = Field(0.0, ge=0, lt=1, description="decay of the running average of the retain loss; 0: the step's own")


class PrimalDual(Rule):
    """A Lagrange multiplier on the retain term; logs it beside the bound and by how much the step misses that."""

    Settings, tiny, separate, protects = PrimalDualSettings, {"epsilon": 0.5, "smoothing": 0.5}, True, True

    def __init__(self, /, **values: object):
        super().__init__(**values)
        self.epsilon: float | None = self.settings.epsilon
        self.multiplier: float | None = None
        self.average: float | None = None
        self.step = 0

    def start(self, retain: Callable[[int], float]) -> None:
        """Derive the bound, where none is given, from the model as it came in."""
        if self.settings.epsilon is None:
            first = retain(self.settings.start_rows)
            self.epsilon = max((1 + self.settings.slack) * first, first + self.settings.margin)

    def combine(
        self, parts: Mapping[str, Part], named: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> tuple[list[Tensor], dict[str, float]]:
        """The gradient with the multiplier as it stands, which then moves.

        Raises:
            MethodError: the rule was never started and has no bound.
        """
        if "retain" not in parts:
            return weighted_sum(parts.values()), {}
        if self.epsilon is None:
            raise MethodError("`primal-dual` has no bound: it was not started", "Give `epsilon`, or call `start` first")
        retain = parts["retain"]
        multiplier = retain.weight if self.multiplier is None else self.multiplier
        others = [part for name, part in parts.items() if name != "retain"]
        own = [multiplier * g for g in retain.gradient]
        found = plus(weighted_sum(others), 1.0, own) if others else own
        told = {"multiplier": multiplier, "epsilon": self.epsilon, "violation": retain.mean - self.epsilon}
        self._move(multiplier, retain.mean, self.epsilon)
        return found, told

    def _move(self, multiplier: float, mean: float, epsilon: float) -> None:
        settings = self.settings
        self.average = mean if self.average is None else settings.smoothing * self.average + (1 - settings.smoothing) * mean
        self.step += 1
        moves = self.step > settings.warmup
        self.multiplier = max(0.0, multiplier + settings.rate * (self.average - epsilon)) if moves else multiplier

    def state(self) -> dict[str, Tensor]:
        """Bound, multiplier, running average and steps; what is not known yet is stored as NaN."""
        values = [math.nan if value is None else value for value in (self.epsilon, self.multiplier, self.average)]
        return {"dual": torch.tensor([*values, float(self.step)], dtype=torch.float64)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take them back."""
        *values, step = state["dual"].tolist()
        self.epsilon, self.multiplier, self.average = (None if math.isnan(value) else value for value in values)
        self.step = int(step)
