"""Gradient surgery: a gradient gives way only where it points against another one.

    for each term i, for every other term j in turn:   if <p_i, g_j> < 0:   p_i <- p_i - <p_i, g_j> / <g_j, g_j> g_j
    g = sum_i p_i                                      p_i begins as weight_i g_i; g_j is never changed

Terms that do not conflict are added as they are, so with orthogonal or friendly gradients g is the plain sum. `yields` = forget is the
one-sided form: only that term gives way, to all others in turn, which stay whole. With `metric` = adam the inner product is that of
Adam's denominators, and the one-sided form is `geometric` without its cut where the overlap helps. The paper draws the order of j anew in
every step; two terms leave no choice, and with more the order moves on by one each step, so that runs repeat and resume. One term alone
is the plain sum. A term of weight 0 is switched off: nothing gives way to it. arXiv:2001.06782. Card: geometric-unlearning (its
one-sided form).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from letheon.core.errors import MethodError
from letheon.core.settings import Field, Settings
from letheon.train.parts import Part, Rule

from ._vectors import FLOOR, Metric, denominators, inner, plus, weighted_sum


class PCGradSettings(Settings):
    """The paper's symmetric form."""

    yields: str = Field("all", min_length=1, description="who gives way: all, or the one term of this name, such as forget")
    metric: Metric = Field("euclidean", description="inner product: 1, or Adam's denominators")  # type: ignore[assignment]


def _given_way(own: list[Tensor], others: Sequence[Sequence[Tensor]], over: Sequence[Tensor | None]) -> tuple[list[Tensor], int]:
    """`own` after it has given way to each of the others in turn, and how often it did."""
    conflicts = 0
    for other in others:
        dot, length = inner(own, other, over), inner(other, other, over)
        if dot < 0 and length > FLOOR:
            own, conflicts = plus(own, -dot / length, other), conflicts + 1
    return own, conflicts


class PCGrad(Rule):
    """Projection of conflicting gradients; logs how many conflicts a step had."""

    Settings, tiny, separate = PCGradSettings, {}, True

    def __init__(self, /, **values: object):
        super().__init__(**values)
        self.step = 0

    def combine(
        self, parts: Mapping[str, Part], named: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> tuple[list[Tensor], dict[str, float]]:
        """The sum of the gradients after they gave way.

        Raises:
            MethodError: no term has the name in `yields`.
        """
        gives = self.settings.yields
        if gives not in ("all", *parts):
            there = ", ".join(sorted(parts))
            raise MethodError(f"`pcgrad` lets the term `{gives}` give way, but the terms are {there}", "Name one in `yields`")
        names, total, conflicts = sorted(name for name, part in parts.items() if part.weight), None, 0
        if not names:
            return weighted_sum(parts.values()), {"conflicts": 0.0}
        over = denominators(named, optimizer, self.settings.metric)
        shift = self.step % len(names)
        order = names[shift:] + names[:shift]
        for name in names:
            own, more = weighted_sum([parts[name]]), 0
            if gives in ("all", name):
                own, more = _given_way(own, [parts[other].gradient for other in order if other != name], over)
            total, conflicts = own if total is None else plus(total, 1.0, own), conflicts + more
        self.step += 1
        return total or [], {"conflicts": float(conflicts)}

    def state(self) -> dict[str, Tensor]:
        """How far the order has moved on."""
        return {"step": torch.tensor(self.step)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take it back."""
        self.step = int(state["step"])
