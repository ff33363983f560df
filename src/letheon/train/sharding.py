"""Weights, gradients and moments cut up over processes (FSDP2), for models whose training does not fit into one.

It is on where `accelerate launch --use_fsdp` says so (ACCELERATE_USE_FSDP=true in the environment). Each block is a unit that is whole
only while it runs; the rest of the network is the root. Everything before the first step, and the model that comes out, is whole in every
process, so a model must fit once into the memory of each; its gradients and AdamW's moments need not. Each process writes its parts into
a checkpoint, which any number of processes can take up; all must be at the same step and see the same folder: none at an interruption.

All passes of a process run inside the forward pass of one wrapper, whose hooks gather the root; all processes take equally many. Where a
rule wants the gradient of each term, there is a forward and a backward pass for each.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from letheon.core import processes
from letheon.core.errors import MethodError
from letheon.core.forward import logits_are_linear, unwrapped
from letheon.core.method import Method

from .checkpoint import whole
from .parts import ParameterSpace
from .taps import block_names

if TYPE_CHECKING:
    from .feed import Rows
    from .objective import Objective


def asked_for() -> bool:
    """Whether weights are to be cut up."""
    return processes.size() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")


def check(objective: Objective) -> None:
    """Refuse what needs whole weights or gradients in a step.

    Raises:
        MethodError: says what stands in the way.
    """
    from .objective import Objective

    hint = "Start without FSDP: data-parallel processes can do it"
    if any(_has_own(objective.space, ParameterSpace, hook) for hook in ("terms", "limit", "stepped")):
        raise MethodError(f"The parameter space `{objective.space.name()}` needs whole weights, which FSDP cuts up", hint)
    if any(_has_own(objective, Objective, hook) for hook in ("drawn", "stepped", "finish", "terms")):
        raise MethodError(f"`{objective.name()}` reads or runs parts of the network in its own way, which FSDP does not allow", hint)


def _has_own(method: Method, base: type[Method], hook: str) -> bool:
    return getattr(type(method), hook) is not getattr(base, hook)


class _Whole(nn.Module):
    """A forward pass that is whatever function is given."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


class Sharded:
    """A module that is to be cut up over all processes, in place, and the way back.

    Attributes:
        run: calls a function that gives a dict of tensors inside the forward pass, once the module is cut.
    """

    run: Any

    def __init__(self, module: nn.Module, device: torch.device):
        logits_are_linear(module)  # finds out by running it, once
        self.whole, self.device = module, device
        empty = {id(parameter): nn.Parameter(parameter.to("meta"), parameter.requires_grad) for parameter in module.parameters()}
        self.shell = copy.deepcopy(module, empty)

    def cut(self) -> None:
        """Leave each process its part."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        module, mesh = self.whole, init_device_mesh(self.device.type, (processes.size(),))
        for name in block_names(module):
            fully_shard(unwrapped(module).get_submodule(name), mesh=mesh)
        self.run = fully_shard(_Whole(module), mesh=mesh)
        for part in self.run.modules():
            if isinstance(part, FSDPModule):
                part.set_gradient_divide_factor(1.0)  # sums: every mean was divided by the counts of the whole step
                part.set_force_sum_reduction_for_comms(True)  # gloo knows no other

    def module(self) -> nn.Module:
        """The module as it was before, with the weights as they are now, in every process."""
        now = {name.removeprefix("inner."): whole(parameter.detach()) for name, parameter in self.run.named_parameters()}
        filled = {id(p): nn.Parameter(now[name], p.requires_grad) for name, p in self.shell.named_parameters()}
        return copy.deepcopy(self.shell, filled)


def norm(gradients: Sequence[Tensor]) -> float:
    """The length of all gradients together."""
    return float(whole(torch.nn.utils.get_total_norm(gradients)))


def clip(parameters: Sequence[nn.Parameter], most: float, length: float) -> None:
    """Scale gradients of that length down to `most`."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if any(hasattr(gradient, "to_local") for gradient in gradients):
        torch._foreach_mul_([g.to_local() if hasattr(g, "to_local") else g for g in gradients], most / (length + 1e-6))
    else:
        torch.nn.utils.clip_grads_with_norm_(parameters, most, torch.tensor(length, device=gradients[0].device))


@contextlib.contextmanager
def unbroken() -> Iterator[processes.agreed]:
    """As `processes.agreed`, for a block in which processes exchange weights: an error there ends this process, and so the others."""
    here = processes.agreed()
    with processes.answered(("onnection", "imed out", "imeout", "losed by peer")):
        yield here
    here.__exit__(None, None, None)


def padded(pieces: list[Rows], rows: Rows | None) -> list[tuple[Rows, float]]:
    """As many pieces as the process with the most has, each with its factor: one made up of the first of `rows` counts nothing.

    Args:
        rows: None, where weights are not cut up, adds none.
    """
    found = [(piece, 1.0) for piece in pieces]
    if rows is None:
        return found
    return found + [({split: at[:1] for split, at in rows.items()}, 0.0)] * (max(processes.exchanged(len(pieces))) - len(pieces))


def in_turn(
    means: dict[str, Tensor],
    again: Callable[[], dict[str, Tensor]],
    parameters: Sequence[nn.Parameter],
    separate: dict[str, list[Tensor]],
    reached: bytearray,
) -> None:
    """Add the gradient of each term to its own in `separate`, from a pass of its own, whose one backward pass FSDP can follow.

    All processes do it for all terms that one of them has, in the same order; who has no row of a term counts another one 0 times.

    Args:
        means: the terms of a first pass.
        again: takes another pass.
        reached: one byte per parameter, set to 1 where some term has a gradient.
    """
    for k, name in enumerate(sorted({name for theirs in processes.exchanged(list(means)) for name in theirs})):
        found = again() if k else means
        (found[name] if name in found else 0.0 * sum(found.values())).backward()
        had = separate.setdefault(name, [torch.zeros_like(parameter) for parameter in parameters])
        for at, parameter in enumerate(parameters):
            if parameter.grad is not None:
                had[at] += parameter.grad
                reached[at] = 1
                parameter.grad = None
