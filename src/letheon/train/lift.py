"""Lifts the loss where gradients pass through float16, whose smallest number is 6e-8: what is less would become 0 without a word.

    g = (d (factor L) / d w) / factor          factor: a power of two, so that no other digit changes

Where a gradient does not fit above, which shows as infinity, the step is taken again with a quarter of the factor. The factor never rises,
and is kept in checkpoints. In float32 and bfloat16 nothing is done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from letheon.core.run import Run

from .checkpoint import here
from .sharding import norm

FIRST = 2.0**16
_KEY = "loop/factor"


class Lift:
    """The factor on the loss; 1 where none is needed."""

    def __init__(self, run: Run):
        self.factor = FIRST if run.compute_dtype == torch.float16 else 1.0

    def up(self, value: Tensor) -> Tensor:
        """What a gradient is taken of."""
        return value if self.factor == 1 else self.factor * value

    def down(self, value: Tensor) -> Tensor:
        """What it stands for."""
        return value if self.factor == 1 else value / self.factor

    def fits(self, gradients: Sequence[Tensor | None], means: Mapping[str, float]) -> bool:
        """Divide gradients by the factor, in place, and say whether they came through.

        Returns:
            False, and the factor is less now, where they are not finite though the means of all terms are: they have to be taken again.
        """
        found = [gradient for gradient in gradients if gradient is not None]
        if self.factor == 1 or not found:
            return True
        torch._foreach_div_([here(gradient) for gradient in found], self.factor)
        if math.isfinite(norm(found)) or not all(map(math.isfinite, means.values())):
            return True
        self.factor = max(1.0, self.factor / 4)
        return False

    def state(self) -> dict[str, Tensor]:
        """What has to be stored to resume."""
        return {} if self.factor == 1 else {_KEY: torch.tensor(self.factor, dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave out of what a checkpoint holds."""
        self.factor = float(state.pop(_KEY, self.factor))
