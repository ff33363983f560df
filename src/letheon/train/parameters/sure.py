"""Only the rows of weights with the largest forget gradient may move, in steps as large as you like.

Small updates vanish when a model is rounded to 4 bits; large ones ruin it. SURE keeps the large step and limits where it acts.

    g = gradient of the forget loss at the incoming weights, over all forget rows; no retain term
    s_i = |g_i|_2          i: the weights of one output unit, a row of a matrix (`grain` = tensor: a whole tensor); a scalar of a vector
    move where s_i >= the q-th percentile of all s_i of the network, q = `percentile`

What does not move keeps its bits: its gradient is taken out before the rule, clipping and moments see it, and weight decay is put back
after each step. q = 0 moves all weights, in the steps that `all` would make; q = 100 only ties with the largest. The mask does not depend
on step size, retain data or a factor of the forget loss. A tensor without any moving unit gets no gradient and no moments.

`saliency` = loss takes the objective's own terms; nll, the answers' nll, for an objective that is at rest at the start. An embedding
that is also the output head stays, as its rows are tokens read and tokens said (`tied` lets them move). The published code applies its
mask in a hook that its trainer never calls, and makes it anew each step; here it is made once, as in the paper, from the forget rows that
the plan draws. arXiv:2410.16454. Card: sure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from letheon.core import processes
from letheon.core.errors import MethodError
from letheon.core.forward import Batches, unwrapped
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject
from letheon.train.feed import Feed
from letheon.train.parts import ParameterSpace

from ._adapters import is_transposed

log = logging.getLogger("letheon")


class SURESettings(Settings):
    """The scripts' mask."""

    percentile: float = Field(90.0, ge=0, le=100, description="units below this percentile of saliency do not move")
    grain: Literal["row", "tensor"] = Field("row", description="what moves or stays as one")
    saliency: Literal["loss", "nll"] = Field("loss", description="whose gradient: the objective's forget terms, or the forget answers' nll")
    tied: bool = Field(False, description="let an embedding that is also the output head move")


class SURE(ParameterSpace):
    """A mask of salient units."""

    Settings, tiny = SURESettings, {"percentile": 50.0}

    def __init__(self, /, **values: object):
        super().__init__(**values)
        self.masks: dict[str, Tensor] = {}
        self.scores: dict[str, Tensor] = {}
        self._moving: list[Tensor | None] = []  # per weight that may move: its mask, or None where all of it may
        self._still: list[Tensor | None] = []  # and its incoming values where not all of it may
        self._share = 0.0

    @property
    def splits(self) -> tuple[str, ...]:  # type: ignore[override]
        """The forget rows, where their nll is asked for."""
        return ("forget",) if self.settings.saliency == "nll" else ()

    def start(self, subject: Subject, feed: Feed, run: Run, slope: Callable[[], dict[str, Tensor]]) -> None:
        """Score every unit and draw the line.

        Raises:
            DataError: `saliency` is nll and there is no `forget` split.
            MethodError: the forget loss has no gradient at the start.
        """
        found = slope() if self.settings.saliency == "loss" else nll_slope(subject, feed, run)
        across, both = layout(subject.module)
        self.scores = {}
        for name, gradient in found.items():
            if name not in both or self.settings.tied:
                self.scores[name] = unit_norms(gradient, self.settings.grain, name in across)
        pooled = np.concatenate([score.double().cpu().numpy().ravel() for score in self.scores.values()])
        if not pooled.any():
            raise MethodError("The forget loss has no gradient at the start, so `sure` cannot choose", "Use `parameters.saliency=nll`")
        line = float(np.percentile(pooled, self.settings.percentile))
        self.masks = {name: score.double() >= line for name, score in self.scores.items()}
        log.info("`sure` moves %d of %d units", sum(int(mask.sum()) for mask in self.masks.values()), len(pooled))

    def derived(self) -> dict[str, Tensor]:
        """The masks."""
        return {name: mask.to(torch.uint8) for name, mask in self.masks.items()}

    def open(self, subject: Subject, run: Run) -> Subject:
        """Let the tensors with at least one moving unit move.

        Raises:
            MethodError: the space was not started.
        """
        if not self.masks:
            raise MethodError("`sure` has no mask: it measures the incoming model first", "Call `start` before `open`")
        self._moving, self._still, self._share = [], [], 0.0
        everything = sum(parameter.numel() for parameter in subject.module.parameters())
        for name, parameter in subject.module.named_parameters():
            mask = self.masks.get(name)
            free = mask is not None and bool(mask.any())
            parameter.requires_grad_(free)
            if mask is not None and free:
                whole = bool(mask.all())
                self._share += float(mask.double().mean()) * parameter.numel() / everything
                self._moving.append(None if whole else mask.to(parameter.device))
                self._still.append(None if whole else parameter.detach().clone())
        return subject

    def limit(self, gradients: Sequence[Tensor | None]) -> None:
        """No gradient outside the mask."""
        for gradient, mask in zip(gradients, self._moving, strict=True):
            if gradient is not None and mask is not None:
                gradient.masked_fill_(~mask, 0.0)

    @torch.no_grad()
    def stepped(self, subject: Subject) -> None:
        """The incoming values outside the mask."""
        free = [parameter for parameter in subject.module.parameters() if parameter.requires_grad]
        for parameter, mask, still in zip(free, self._moving, self._still, strict=True):
            if mask is not None and still is not None:
                parameter.copy_(torch.where(mask, parameter, still))

    def finish(self) -> dict[str, Any]:
        """How many units moved, of how many, and what share of all weights they are."""
        moved = sum(int(mask.sum()) for mask in self.masks.values())
        return {"moving_units": moved, "units": sum(mask.numel() for mask in self.masks.values()), "moving_share": round(self._share, 6)}

    def close(self, subject: Subject, run: Run) -> Subject:
        """The subject; the copies of what stayed are dropped."""
        self._moving, self._still = [], []
        return subject


def layout(module: nn.Module) -> tuple[set[str], set[str]]:
    """Names of the matrices whose output units are columns, and of those that are both input embedding and output head."""
    across = {f"{name}.weight" for name, part in module.named_modules() if is_transposed(part)}
    inner = unwrapped(module)
    entry, head = inner.get_input_embeddings(), inner.get_output_embeddings()
    shared = entry is not None and head is not None and entry.weight is head.weight
    return across, {name for name, parameter in module.named_parameters() if shared and parameter is entry.weight}


def unit_norms(gradient: Tensor, grain: str, across: bool) -> Tensor:
    """Norm of each unit, shaped so that it broadcasts over the tensor; `across`: a unit is a column."""
    if grain == "tensor":
        return gradient.float().norm().reshape([1] * gradient.ndim)
    if gradient.ndim < 2:
        return gradient.float().abs()
    if across:
        return gradient.float().norm(dim=0, keepdim=True)
    return gradient.float().flatten(1).norm(dim=1).reshape([-1] + [1] * (gradient.ndim - 1))


def nll_slope(subject: Subject, feed: Feed, run: Run) -> dict[str, Tensor]:
    """Gradient of the summed nll of all forget answers, by the name of the weight."""
    named = {name: parameter for name, parameter in subject.module.named_parameters() if parameter.is_floating_point()}
    for parameter in named.values():
        parameter.requires_grad_(True)
    total = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    with processes.agreed():
        for batch in feed.sweep("forget", np.arange(len(feed.encoded["forget"])), shared=True):
            with run.autocast(lifted=False):
                nll = Batches({"forget": batch}).nll(subject.module, "forget").sum()
            for name, part in zip(named, torch.autograd.grad(nll, list(named.values()), allow_unused=True), strict=True):
                if part is not None:
                    total[name] += part
    processes.summed(list(total.values()))
    return total
