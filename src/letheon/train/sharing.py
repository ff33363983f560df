"""One optimiser step that several processes share: what each found becomes what one process would have found.

Rows of a step are dealt by length (`Feed.share`), so that all have alike to do. Every term is divided by counts over the whole step before
it is passed on, so sums are all that is needed: for the numbers, and for the gradients, one per term where the rule wants them apart. All
processes get the same bits, and their weights stay the same. What differs from one process is the order of adding up.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from letheon.core import processes
from letheon.core.errors import RunError

log = logging.getLogger("letheon")


@dataclass(frozen=True)
class Share:
    """What one process says of its part of a step.

    Attributes:
        means: name of a term -> its sum here, divided by the count over the whole step.
        weights: their factors, and those of terms on weights alone.
        moved: one byte per parameter, 1 where it has a gradient from some term.
    """

    means: dict[str, float]
    weights: dict[str, float]
    moved: bytes


def has_gradient(parameters: Sequence[nn.Parameter]) -> bytes:
    """`Share.moved` of these parameters."""
    return bytes(parameter.grad is not None for parameter in parameters)


def together(shares: Sequence[Share], parameters: Sequence[nn.Parameter], separate: dict[str, list[Tensor]] | None) -> Share:
    """Add up what all processes found: the means that are returned, and in place the gradients.

    Args:
        separate: term -> its gradient, one tensor per parameter; None: they are in `.grad` of the parameters. A parameter that no
            process has a gradient for keeps None.
    """
    if len(shares) == 1:
        return shares[0]
    weights = {name: weight for share in shares for name, weight in share.weights.items()}
    moved = bytes(map(max, *(share.moved for share in shares)))
    means: dict[str, float] = {}
    for share in shares:
        for name, mean in share.means.items():
            means[name] = means.get(name, 0.0) + mean
    if separate is not None:
        had = dict(separate)
        separate.clear()  # a term may have no row here: all need the same terms in the same order
        for name in [*means, *(name for name in weights if name not in means)]:
            separate[name] = had[name] if name in had else [torch.zeros_like(parameter) for parameter in parameters]
        processes.summed([gradient for gradients in separate.values() for gradient in gradients])
        return Share(means, weights, moved)
    some = [parameter for k, parameter in enumerate(parameters) if moved[k]]
    for parameter in some:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    processes.summed([parameter.grad for parameter in some if parameter.grad is not None])
    return Share(means, weights, moved)


def same_work(described: Mapping[str, Any]) -> None:
    """Check that all processes were given the same model, data, method, settings and seed.

    Raises:
        RunError: they were not; it names what differs.
    """
    for number, other in enumerate(processes.exchanged(dict(described))):
        differs = [key for key, value in described.items() if other[key] != value]
        if differs:
            what = f"Process {number} was given another `{differs[0]}` than process {processes.rank()}"
            raise RunError(what, "Start all of them with the same command, on the same files")


def same_weights(module: nn.Module, mark: str) -> str:
    """Give all processes the weights and the fingerprint of the first one, should theirs differ; returns the fingerprint.

    They do where processors of several kinds round what a parameter space has measured in several ways.
    """
    marks = processes.exchanged(mark)
    if len(set(marks)) > 1:
        log.warning("The machines round differently: all take what the first one measured")
        tensors = {name: tensor for name, tensor in module.state_dict().items()}
        found = processes.sent(tensors if processes.first() else None, next(module.parameters()).device)
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(found[name])
    return marks[0]
