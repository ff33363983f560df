"""Curvature of the outputs of a causal model on some rows, and the gradient of others, for chosen linear layers.

A weight and its bias are one matrix (o, i + 1) whose last input is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from letheon.core.batching import Batch
from letheon.core.errors import SubjectError
from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.maths.curvature import Curvature, SecondMoment, sampled_scores
from letheon.maths.divergence import kl_to_frozen
from letheon.maths.likelihood import Head, token_nll

from ._linears import matrix, watched

Layers = Mapping[str, nn.Module]


def joined(part: nn.Module, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Weight and bias of a layer, or their gradients, as one matrix in at least float32; a copy."""
    whole = weight if type(part) is nn.Linear else weight.T
    whole = whole if bias is None else torch.cat([whole, bias[:, None]], -1)
    return whole.detach().to(torch.promote_types(whole.dtype, torch.float32), copy=True)


@torch.no_grad()
def write(part: nn.Module, whole: Tensor) -> None:
    """Put a matrix (o, i + 1) back into weight and bias, rounded to their number format."""
    weight = matrix(part)
    weight.copy_(whole[:, : weight.shape[1]])
    if part.bias is not None:
        part.bias.copy_(whole[:, -1])


@dataclass(frozen=True)
class Seen:
    """What one layer saw in one pass: inputs a (b, t, i) and gradients g (b, t, o) of the loss by its outputs."""

    a: Tensor
    g: Tensor


def only_trainable(module: nn.Module, layers: Layers) -> list[Tensor]:
    """Let gradients flow to the weights and biases of these layers alone; returns them."""
    module.requires_grad_(False)
    found = [tensor for part in layers.values() for tensor in (part.weight, part.bias) if tensor is not None]
    for tensor in found:
        tensor.requires_grad_(True)
    return found


def sampled_passes(
    module: nn.Module, layers: Layers, batches: Sequence[Batch], run: Run, purpose: str, prompts: bool
) -> Iterator[tuple[Batch, dict[str, Seen], int]]:
    """Each batch with what the layers saw and how many tokens were drawn; the loss is a sum over drawn tokens."""
    only_trainable(module, layers)
    for k, batch in enumerate(batches):
        with torch.enable_grad(), watched(layers) as seen:
            hidden, head = Batches({"retain": batch}).hidden(module, prompts=prompts)
            states = hidden["retain"].states
            with torch.no_grad():
                draws = torch.rand(len(states), 2, generator=run.rng("labels", purpose, k), dtype=torch.float64).to(states.device)
                rows = head.rows_per_chunk(states)
                found = [sampled_scores(head.logits(part), draw) for part, draw in zip(states.split(rows), draws.split(rows), strict=True)]
                labels, factors = (torch.cat(column) for column in zip(*found, strict=True))
            nll = token_nll(states, head, labels)
            loss = (nll * factors.to(nll.dtype)).sum()
        missing = next((name for name in layers if name not in seen), None)
        if missing is not None:
            raise SubjectError(f"The layer `{missing}` was not used in a forward pass", "Choose other `layers`")
        grads = torch.autograd.grad(loss, [seen[name][1] for name in layers])
        found = {
            name: Seen(_rows(part, seen[name][0], batch), _grid(grad, batch))
            for (name, part), grad in zip(layers.items(), grads, strict=True)
        }
        yield batch, found, len(states)


def _grid(x: Tensor, batch: Batch) -> Tensor:
    """(b, t, width), also for layers that lay all tokens end to end."""
    b, t = batch.ids.shape
    if x.numel() != b * t * x.shape[-1]:
        raise SubjectError("A linear layer does not see every token of a row once", "Mixtures of experts have no curvature of this kind")
    x = x.reshape(b, t, x.shape[-1])
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _rows(part: nn.Module, a: Tensor, batch: Batch) -> Tensor:
    """Inputs with the constant 1 of a bias; zero where nothing follows that could be changed (padding and the last token)."""
    a = _grid(a.detach(), batch)
    a = a if part.bias is None else torch.cat([a, a.new_ones(*a.shape[:2], 1)], -1)
    at = torch.arange(a.shape[1], device=a.device)
    return a * (at < batch.lengths[:, None] - 1)[..., None]


def curvature(
    module: nn.Module, layers: Layers, batches: Sequence[Batch], run: Run, *, measured: bool, prompts: bool, largest: int
) -> dict[str, Curvature]:
    """The Fisher matrix of the outputs per scored token, by layer.

    Args:
        batches: rows; their labels are drawn from the model.
        measured: measure the eigenvalues (EK-FAC).
        prompts: count prompt tokens as scored.
        largest: widest factor that is decomposed whole.
    """
    inputs: dict[str, SecondMoment] = {}
    outputs: dict[str, SecondMoment] = {}
    places, scored = 0, 0
    for batch, seen, count in sampled_passes(module, layers, batches, run, "factors", prompts):
        for name, one in seen.items():
            if name not in inputs:
                inputs[name], outputs[name] = (SecondMoment(x.shape[-1], largest, x) for x in (one.a, one.g))
            inputs[name].add(one.a.flatten(0, 1))
            outputs[name].add(one.g.flatten(0, 1))
        places, scored = places + int((batch.lengths - 1).sum()), scored + count
    # sum over positions of (g g^T) x (a a^T), per scored token: one factor is a mean over positions, the other a sum per scored token
    found = {name: Curvature.kfac(outputs[name].basis(scored), inputs[name].basis(places)) for name in layers}
    if not measured:
        return found
    values = {name: torch.zeros_like(one.values) for name, one in found.items()}
    for _, seen, _ in sampled_passes(module, layers, batches, run, "eigenvalues", prompts):
        for name, one in seen.items():
            for g, a in zip(found[name].outputs.turn(one.g), found[name].inputs.turn(one.a), strict=True):
                values[name] += (g.T @ a).square()
    return {name: Curvature(one.outputs, one.inputs, values[name] / scored) for name, one in found.items()}


def mean_nll(module: nn.Module, batches: Sequence[Batch]) -> float:
    """Mean nll of the answer tokens, in nats."""
    with torch.no_grad():
        found = [Batches({"forget": batch}).nll(module, "forget").values for batch in batches]
    return float(torch.cat(found).mean(dtype=torch.float64))


def gradient(module: nn.Module, layers: Layers, batches: Sequence[Batch]) -> tuple[dict[str, Tensor], float]:
    """The gradient (o, i + 1) of the mean nll of the answer tokens, by layer, and that mean."""
    tensors = only_trainable(module, layers)
    count = sum(int(batch.scored_mask.sum()) for batch in batches)
    sums: list[Tensor] = []
    total = 0.0
    for batch in batches:
        with torch.enable_grad():
            loss = Batches({"forget": batch}).nll(module, "forget").sum()
        found = torch.autograd.grad(loss, tensors)
        found = tuple(grad.to(torch.promote_types(grad.dtype, torch.float32)) for grad in found)
        sums = [one + two for one, two in zip(sums, found, strict=True)] if sums else list(found)
        total += float(loss.detach())
    parts = iter(sums)
    grads = {name: joined(part, next(parts), None if part.bias is None else next(parts)) / count for name, part in layers.items()}
    return grads, total / count


class Drift:
    """The KL of a model to itself as it is now, on the scored tokens of some rows."""

    @torch.no_grad()
    def __init__(self, module: nn.Module, batches: Sequence[Batch], prompts: bool):
        self.module, self.batches, self.prompts = module, batches, prompts
        self.states, self.head = [], Head(None)
        for batch in batches:
            hidden, head = Batches({"retain": batch}).hidden(module, prompts=prompts)
            self.states.append(hidden["retain"].states)
            self.head = head.frozen()

    @torch.no_grad()
    def now(self) -> float:
        """Mean KL(then || now) per token, in nats."""
        total, count = 0.0, 0
        for batch, then in zip(self.batches, self.states, strict=True):
            hidden, head = Batches({"retain": batch}).hidden(self.module, prompts=self.prompts)
            each = kl_to_frozen(hidden["retain"].states, head, then, self.head)
            total, count = total + float(each.sum(dtype=torch.float64)), count + len(each)
        return total / count
