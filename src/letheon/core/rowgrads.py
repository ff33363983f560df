"""Gradient norms per row and parameter from one forward and one backward pass: hooks see the inputs and output gradients of all layers."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from letheon.maths.likelihood import CHUNK, Head
from letheon.maths.products import linear

from .batching import Batch
from .forward import final_hidden, logits_are_linear, unwrapped

_SCALES: weakref.WeakKeyDictionary[nn.Module, tuple[int, bool]] = weakref.WeakKeyDictionary()
FEW = 1 << 16  # most parameters of a part that is differentiated per row by vectorisation


class NotCoveredError(Exception):
    """A parameter whose gradient per row cannot be told from inputs and output gradients of its layer."""


def squared_product(a: Tensor, g: Tensor, table: Tensor | None = None) -> Tensor:
    """Squared norm of sum_t g_t a_t^T for each row, (b,); a (b, t, i), g (b, t, o), `table` the products a a^T (b, t, t) if known."""
    t, i, o = a.shape[1], a.shape[2], g.shape[2]
    if t * (i + o) > 2 * i * o:
        return torch.bmm(g.transpose(1, 2), a).square().sum((1, 2))
    table = torch.bmm(a, a.transpose(1, 2)) if table is None else table
    return (table * torch.bmm(g, g.transpose(1, 2))).sum((1, 2)).clamp(min=0)


class Record:
    """Watches one forward and backward pass and keeps squared gradient norms (b,) of every use of every parameter."""

    def __init__(self, module: nn.Module, b: int):
        self.b = b
        self.squared: dict[Tensor, list[Tensor]] = {}
        self.looked_up: dict[Tensor, Tensor] = {}  # embedding weight -> gradient (b, t, d) of the rows it gave
        self.leaves: list[Tensor] = []
        self.tables: dict[int, tuple[Tensor, Tensor]] = {}  # id of an input -> the input and its products: layers share inputs
        owners = [part for part in module.modules() if any(value is not None for value in part._parameters.values())]
        self.handles = [part.register_forward_hook(self._seen) for part in owners]

    def close(self) -> None:
        """Remove all hooks."""
        for handle in self.handles:
            handle.remove()

    def forget(self) -> None:
        """Let go of the pass: tensors that know this record through their hooks would otherwise wait for the collector of cycles."""
        self.leaves, self.tables = [], {}

    def add(self, parameter: Tensor, squared: Tensor) -> None:
        """Keep one use of a parameter."""
        self.squared.setdefault(parameter, []).append(squared)

    def _seen(self, part: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        plain = len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)
        if not plain or inputs[0].shape[:2] != output.shape[:2] or len(output) != self.b:
            raise NotCoveredError(f"{type(part).__name__} takes or gives something else than one tensor of rows")
        if not output.requires_grad:
            if not isinstance(part, nn.Embedding):
                raise NotCoveredError(f"{type(part).__name__} stands before the embedding")
            self.leaves.append(output.requires_grad_(True))
        given, said = inputs[0], output.detach()
        output.register_hook(lambda grad: self._returned(part, given, said, grad))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _returned(self, part: Any, given: Tensor, said: Tensor, grad: Tensor) -> None:
        if isinstance(part, nn.Embedding):
            self._embedding(part, given, grad)
        elif _is_linear(part):
            a, g = given.flatten(1, -2).float(), grad.flatten(1, -2).float()
            if id(given) not in self.tables and a.shape[1] <= min(a.shape[2], g.shape[2]):
                self.tables[id(given)] = (given, torch.bmm(a, a.transpose(1, 2)))
            self.add(part.weight, squared_product(a, g, self.tables.get(id(given), (None, None))[1]))
            if part.bias is not None:
                self.add(part.bias, g.sum(1).square().sum(-1))
        else:
            self._small(part, given, said, grad)

    def _embedding(self, part: nn.Embedding, ids: Tensor, grad: Tensor) -> None:
        if part.scale_grad_by_freq or part.max_norm is not None:
            raise NotCoveredError("the embedding scales its gradient")
        grad = grad.float()
        if part.padding_idx is not None:
            grad = grad * (ids != part.padding_idx)[..., None]
        same = ids[:, :, None] == ids[:, None, :]  # (b, t, t)
        self.add(part.weight, (torch.bmm(grad, grad.transpose(1, 2)) * same).sum((1, 2)).clamp(min=0))
        self.looked_up[part.weight] = grad

    def _small(self, part: Any, given: Tensor, said: Tensor, grad: Tensor) -> None:
        own = {name: value for name, value in part._parameters.items() if value is not None}
        if sum(value.numel() for value in own.values()) > FEW or next(part.children(), None) is not None:
            raise NotCoveredError(f"{type(part).__name__} holds parameters of an unknown kind")
        self.close()  # the part runs once more, and its hook must not see that
        if list(own) == ["weight"] and _scales(part, given, said):  # d (w x) / dw = x, which is what came out over w
            found = (grad.float() * said.float()).flatten(1, -2).sum(1) / part.weight.float()
            self.add(part.weight, found.square().sum(1))
            return

        def of_row(x: Tensor, g: Tensor) -> dict[str, Tensor]:
            back: Any = vjp(lambda weights: functional_call(part, weights, (x[None],))[0], own)[1]
            found: dict[str, Tensor] = back(g)[0]
            return found

        for name, found in vmap(of_row)(given.detach(), grad).items():
            self.add(own[name], found.flatten(1).float().square().sum(1))


def _scales(part: Any, given: Tensor, said: Tensor) -> bool:
    """Whether a part's output is a normalised input times its weight vector, as in RMSNorm; tried once per weight."""
    weight = part.weight
    known = _SCALES.get(part)
    if known is None or known[0] != weight._version:
        fine = weight.ndim == 1 and said.shape[-1] == len(weight) and bool(weight.abs().min() > 1e-3 * weight.abs().max())
        if fine:
            twice = functional_call(part, {"weight": 2 * weight}, (given[:1].detach(),))
            fine = torch.allclose(twice, 2 * said[:1], rtol=1e-3, atol=1e-3 * float(said[:1].abs().max()))
        known = _SCALES[part] = (weight._version, fine)
    return known[1]


def _is_linear(part: nn.Module) -> bool:
    """A linear layer, or the transposed one of GPT-2 (its squared norm is the same)."""
    return type(part) is nn.Linear or (type(part).__name__ == "Conv1D" and type(part).__module__ == "transformers.pytorch_utils")


@dataclass(frozen=True)
class FromHead:
    """What the output embedding gives: the gradient (b, t, d) of the final hidden states and its own part of the norms.

    Attributes:
        states: (b, t, d).
        weight: (b,) squared norm.
        bias: (b,) squared norm, or None.
        shared: (b, t, d) its gradient at the vocabulary rows of the input tokens, for a tied embedding.
    """

    states: Tensor
    weight: Tensor
    bias: Tensor | None
    shared: Tensor


@torch.no_grad()
def from_head(states: Tensor, head: Head, batch: Batch) -> FromHead:
    """Differentiate the mean NLL of each row with respect to hidden states and output embedding, some rows at a time."""
    b, t, _ = states.shape
    table = cast(Tensor, head.weight)  # callers have seen that logits are a linear map
    mask = batch.scored_mask[:, 1:]  # (b, t - 1): position i predicts token i + 1
    width = int(mask.sum(1).max())
    rows = max(1, CHUNK // (4 * width * table.shape[0]))  # small tables of logits stay in the cache
    gradient, shared = torch.zeros_like(states), torch.zeros_like(states, dtype=torch.float32)
    weight, bias = [], []
    for first in range(0, b, rows):
        part = slice(first, min(first + rows, b))
        count = mask[part].sum(1)
        at = batch.starts[part].clamp(min=1)[:, None] - 1 + torch.arange(width, device=states.device)  # (r, m)
        real = torch.arange(width, device=states.device) < count[:, None]
        at = at.clamp(max=t - 2)
        hidden = states[part].gather(1, at[..., None].expand(-1, -1, states.shape[2]))  # (r, m, d)
        delta = head.logits(hidden).softmax(-1)
        delta.scatter_add_(2, batch.ids[part].gather(1, at + 1)[..., None], delta.new_full((*at.shape, 1), -1.0))
        delta.mul_((real / count[:, None])[..., None])
        back = linear(delta.to(table.dtype), table.T).to(states.dtype)
        gradient[part].scatter_add_(1, at[..., None].expand_as(back), back)
        inputs = delta.gather(2, batch.ids[part][:, None, :].expand(-1, width, -1))  # (r, m, t)
        shared[part] = torch.bmm(inputs.transpose(1, 2), hidden.float())
        weight.append(squared_product(hidden.float(), delta))
        bias.append(delta.sum(1).square().sum(-1))
    return FromHead(gradient, torch.cat(weight), None if head.bias is None else torch.cat(bias), shared)


def fast_norms(module: nn.Module, batch: Batch) -> Tensor:
    """Norms (b, number of parameters), in the order of `module.parameters()`, by one forward and one backward pass for all rows.

    Raises:
        NotCoveredError: the model has a parameter whose part in each row's gradient cannot be told.
    """
    if not logits_are_linear(module):
        raise NotCoveredError("logits are no linear map of the final hidden states")
    for own in module.parameters():
        own.requires_grad_(False)  # gradients of activations are enough
    record = Record(module, len(batch))
    try:
        with torch.enable_grad():
            positions = torch.arange(batch.ids.shape[1], device=batch.ids.device).expand_as(batch.ids)
            states, head = final_hidden(module, batch.ids, position_ids=positions)
        found = from_head(states.detach(), head, batch)
        torch.autograd.grad(states, record.leaves, found.states)
    finally:
        record.close()
        record.forget()
    output = unwrapped(module).get_output_embeddings()
    for parameter, uses in record.squared.items():
        if len(uses) > 1:
            raise NotCoveredError(f"a parameter of shape {tuple(parameter.shape)} is used {len(uses)} times")
    weight = found.weight
    if output.weight in record.squared:  # tied: |a + b|^2 = |a|^2 + |b|^2 + 2 a.b
        weight = weight + record.squared[output.weight][0] + 2 * (record.looked_up[output.weight] * found.shared).sum((1, 2))
    record.squared[output.weight] = [weight.clamp(min=0)]
    if found.bias is not None:
        record.add(output.bias, found.bias)
    nothing = [torch.zeros_like(weight)]
    parameters = [parameter for parameter in module.parameters() if parameter.is_floating_point()]
    return torch.stack([record.squared.get(parameter, nothing)[0] for parameter in parameters], 1).sqrt()
