"""Cuts the retain direction out of the forget gradient: to first order the retain loss stays put.

Ascent on the forget rows also moves the retain loss, and a retain term alone trades one for the other. With D = diag(h), h the
denominators of Adam, a step -rate D^-1 g leaves the retain loss as it is, to first order, iff g is orthogonal to its gradient in <a, b> =
sum_i a_i b_i / h_i. What is left of the forget gradient is the steepest such direction.

    f = sum of the weighted gradients of all terms but `retain`       r = gradient of the retain term, w its weight
    p = f - U (U' D^-1 U)^+ U' D^-1 f          U = [r] or, with `vectors` = k, r and those of the k - 1 steps before
    g = p + w r                                one coefficient for all tensors: the projection is global

<p, r> = 0, and <p, f> >= 0. The retain gradient needs no weight to be cut out: `retain_weight` = 0 leaves p alone. A helpful overlap
(<f, r> > 0) is cut too; `pcgrad` keeps it. Where r is 0, as with `kl` at the start, p = f. The metric is that of the step before, and
Euclidean in the first step, so under Adam the invariance is exact to first order for that frozen metric only. Momentum and weight decay
add directions of their own: the authors refuse them, here a warning says so. Their k vectors are k retain batches or, in older code,
the first 8 steps, per tensor; here they are the last k steps. A reconstruction from the authors' code and abstract. arXiv:2511.17100.
Card: geometric-unlearning.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence

import torch
from pydantic import field_validator
from torch import Tensor, nn

from letheon.core.errors import SettingsError
from letheon.core.settings import Field, Settings
from letheon.train.checkpoint import like
from letheon.train.parts import Part, Rule

from ._vectors import FLOOR, Metric, denominators, inner, plus, weighted_sum

log = logging.getLogger("letheon")
_ALIKE = 1e-10  # squared sine below which two retain directions count as one


class GeometricSettings(Settings):
    """The authors' late code: one retain vector, all weights, Adam's metric."""

    vectors: int = Field(1, ge=1, le=64, description="retain gradients to be orthogonal to: that of this step and of the steps before it")
    metric: Metric = Field("adam", description="inner product: Adam's denominators, or 1")  # type: ignore[assignment]
    pattern: str = Field(".", min_length=1, description="regular expression searched in parameter names; the others take the plain sum")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value


def without(f: Sequence[Tensor], basis: Sequence[Sequence[Tensor]], over: Sequence[Tensor | None]) -> tuple[list[Tensor], float]:
    """The part of f that is orthogonal to all vectors of a basis, and the length of what was cut off.

    Vectors of no length and vectors that are alike do no harm.
    """
    lengths = [math.sqrt(inner(u, u, over)) for u in basis]
    kept = [(u, length) for u, length in zip(basis, lengths, strict=True) if length**2 > FLOOR]
    if not kept:
        return list(f), 0.0
    gram = torch.tensor([[inner(u, v, over) / (n * m) for v, m in kept] for u, n in kept], dtype=torch.float64)  # (k, k)
    along = torch.tensor([inner(u, f, over) / n for u, n in kept], dtype=torch.float64)  # (k,)
    coefficients = torch.linalg.pinv(gram, rtol=_ALIKE, hermitian=True) @ along
    left = list(f)
    for (u, length), coefficient in zip(kept, coefficients.tolist(), strict=True):
        left = plus(left, -coefficient / length, u)
    return left, math.sqrt(max(0.0, float(along @ coefficients)))


class Geometric(Rule):
    """Projection of the forget gradient, with the angles before and after it among the logged numbers."""

    Settings, tiny, separate, protects = GeometricSettings, {"vectors": 2}, True, True

    def __init__(self, /, **values: object):
        super().__init__(**values)
        self.past: list[list[Tensor]] = []  # retain gradients of the last steps, newest first
        self.warned = False

    def combine(
        self, parts: Mapping[str, Part], named: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> tuple[list[Tensor], dict[str, float]]:
        """The projected forget gradient plus the weighted retain gradient.

        Raises:
            SettingsError: the pattern matches no parameter.
        """
        others = [part for name, part in parts.items() if name != "retain"]
        if "retain" not in parts or not others:
            return weighted_sum(parts.values()), {}
        self._warn(optimizer)
        chosen = [k for k, name in enumerate(named) if re.search(self.settings.pattern, name)]
        if not chosen:
            what = f"`pattern` of `geometric` matches none of {len(named)} weights, got {self.settings.pattern!r}"
            raise SettingsError(what, f"Names look like {next(iter(named))}")
        weight, retain = parts["retain"].weight, parts["retain"].gradient
        step = weighted_sum(others)
        over = denominators(named, optimizer, self.settings.metric)
        f, r, over = ([each[k] for k in chosen] for each in (step, retain, over))
        basis = [r, *([like(t, own) for t, own in zip(past, r, strict=True)] for past in self.past)]
        p, cut = without(f, basis, over)
        for k, tensor in zip(chosen, p, strict=True):
            step[k] = tensor
        keep = self.settings.vectors - 1
        self.past = [[t.clone() for t in r], *self.past][:keep] if keep else []
        return plus(step, weight, retain), _told(f, r, p, over, weight, cut)

    def _warn(self, optimizer: torch.optim.Optimizer) -> None:
        spoiled = [group for group in optimizer.param_groups if group.get("betas", (0.0, 0.0))[0] or group.get("weight_decay")]
        if spoiled and not self.warned:
            log.warning("momentum and weight decay move the retain loss past `geometric`: give betas=[0,0.999] and weight_decay=0")
        self.warned = True

    def state(self) -> dict[str, Tensor]:
        """The retain gradients of the steps before."""
        return {f"{age:03d}/{k:06d}": tensor for age, past in enumerate(self.past) for k, tensor in enumerate(past)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take them back."""
        ages = sorted({key.split("/")[0] for key in state})
        self.past = [[state[key] for key in sorted(state) if key.startswith(f"{age}/")] for age in ages]


def _told(
    f: Sequence[Tensor], r: Sequence[Tensor], p: Sequence[Tensor], over: Sequence[Tensor | None], weight: float, cut: float
) -> dict[str, float]:
    """Angles, the share that was cut off, and the slopes of both losses along the step, per unit of step size."""
    before, after, long_f, long_r, long_p = (inner(a, b, over) for a, b in ((f, r), (p, r), (f, f), (r, r), (p, p)))
    told = {"dot": before, "dot_after": after, "conflict": float(before < 0)}
    told |= {"forget_slope": -(inner(p, f, over) + weight * before), "retain_slope": -(after + weight * long_r)}
    if long_f > 0:
        told["cut"] = cut / math.sqrt(long_f)
    for name, dot, length in (("cosine", before, long_f), ("cosine_after", after, long_p)):
        if length * long_r > 0:
            told[name] = dot / math.sqrt(length * long_r)
    return told
