"""The axes along which an erasure is composed. Each is a folder of one-file plug-ins beside this file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from letheon.core.data import Data
from letheon.core.forward import Batches
from letheon.core.method import Method
from letheon.core.run import Run
from letheon.core.subject import Subject

from .feed import Feed


@dataclass(frozen=True)
class Term:
    """One part of a loss, as a SUM over what it counts. The loop alone divides, so accumulation and several processes are exact.

    Attributes:
        total: the sum, a scalar with gradient.
        per: the unit that the sum is divided by: answer tokens or rows, counted over the whole optimiser step; or the step itself, for
            a term of a parameter space, which reads no rows.
        of: the split whose tokens or rows are counted, or several that are counted together; None means the split named like the term.
        weight: factor after the division, the same in every micro-step.
    """

    total: Tensor
    per: Literal["token", "sequence", "step"]
    of: str | tuple[str, ...] | None = None
    weight: float = 1.0


class RetainTerm(Method):
    """What holds the rest of the model in place."""

    splits: ClassVar[tuple[str, ...]] = ("retain",)

    def start(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Called once with the subject as it came in, before any step."""

    @abstractmethod
    def term(self, subject: Subject, batches: Batches) -> Term | None:
        """The term of one micro-step; its weight is set by the objective."""


@dataclass(frozen=True)
class Part:
    """What one term brings to an optimiser step, before its weight.

    Attributes:
        gradient: of the mean, one tensor per trainable parameter; not to be written to.
        mean: the term's mean over the whole step.
        weight: its factor in the loss.
    """

    gradient: list[Tensor]
    mean: float
    weight: float


class Rule(Method):
    """How the gradients of the terms become the gradient of the step.

    A rule with `separate` gets one averaged gradient per term; otherwise the loop adds the terms up and asks nothing. A rule with
    `protects` does something for the retain term, and is refused where there is none.
    """

    separate: ClassVar[bool] = False
    protects: ClassVar[bool] = False

    def start(self, retain: Callable[[int], float]) -> None:
        """Called once before the first step, and before `restore`. `retain(rows)`: mean of the retain term over that many rows, now."""

    def combine(
        self, parts: Mapping[str, Part], named: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> tuple[list[Tensor], dict[str, float]]:
        """The gradient of the step, one tensor per parameter, and numbers worth logging.

        Args:
            parts: term name -> what it brings; the retain term is called `retain`.
            named: the trainable parameters by name, in the order of the gradients.
            optimizer: for rules that work in its metric.
        """
        raise AssertionError("a rule with `separate` defines `combine`")

    def state(self) -> dict[str, Tensor]:
        """What has to be stored to resume."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""


class ParameterSpace(Method):
    """Which weights may move.

    `splits` are those that `start` reads: they are there, with rows, and encoded whether or not a step draws from them.
    """

    splits: ClassVar[tuple[str, ...]] = ()

    def start(self, subject: Subject, feed: Feed, run: Run, slope: Callable[[], dict[str, Tensor]]) -> None:
        """Called once with the subject as it came in: the place to measure it.

        `slope()`: gradient of the objective's own terms, without the retain term, by the name of the weight (see `forget_slope`).
        """

    @abstractmethod
    def open(self, subject: Subject, run: Run) -> Subject:
        """Prepare a forked subject: set `requires_grad` on the weights that may move and on no other."""

    def derived(self) -> dict[str, Tensor]:
        """What was worked out from measurements and is not among the weights that move: a run resumes only where it is the same."""
        return {}

    def terms(self, subject: Subject) -> dict[str, Term]:
        """Terms on the weights alone, `per` step: added to the loss once per optimiser step."""
        return {}

    def limit(self, gradients: Sequence[Tensor | None]) -> None:
        """Called with each gradient, in the order of the weights that may move: take out, in place, what is to stay."""

    def stepped(self, subject: Subject) -> None:
        """Called after each optimiser step: the place to put back what weight decay has moved."""

    def finish(self) -> dict[str, Any]:
        """Called after the last step; what it returns goes into the lineage."""
        return {}

    def close(self, subject: Subject, run: Run) -> Subject:
        """The subject as it is handed out after training."""
        return subject


class Sampler(Method):
    """Which rows meet in one optimiser step.

    An epoch walks the leading split once, or, with `repeats`, every leading row at least once.
    """

    repeats: ClassVar[bool] = False

    def start(self, data: Data) -> None:
        """Called once before the first epoch, for a sampler that looks at what the rows say."""

    @abstractmethod
    def epoch(self, sizes: Mapping[str, int], lead: str, rows: int, run: Run, epoch: int) -> list[dict[str, np.ndarray]]:
        """The steps of one epoch: split -> row indices.

        Args:
            sizes: rows per split.
            lead: the split that an epoch walks through.
            rows: rows of each split per step.
        """
