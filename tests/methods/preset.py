"""Losses on given logits in float64: batches whose forward pass is replaced by random numbers, to compare gradients exactly."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from torch import Tensor

from letheon.core.batching import Batch
from letheon.core.forward import Batches, Hidden
from letheon.maths.likelihood import Head

NOBODY = SimpleNamespace(module=None)  # stands for a subject whose module is never called
V = 11


@dataclass
class Preset:
    """Random logits for rows with the given answer lengths.

    Attributes:
        batches: what an objective's `loss` takes.
        logits: split -> (m, v) float64 leaves with gradient.
        targets, row: split -> (m,).
    """

    counts: dict[str, list[int]]
    seed: int = 0
    logits: dict[str, Tensor] = field(init=False)
    targets: dict[str, Tensor] = field(init=False)
    row: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        self.logits, self.targets, self.row = {}, {}, {}
        for split, counts in self.counts.items():
            self.targets[split] = torch.randint(V, (sum(counts),), generator=generator)
            self.row[split] = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
            self.logits[split] = torch.randn(sum(counts), V, generator=generator, dtype=torch.float64).mul_(2).requires_grad_()

    @property
    def batches(self) -> Batches:
        """Batches whose scored tokens have these logits; each row has a prompt of two tokens."""
        made = {}
        for split, counts in self.counts.items():
            ids = torch.zeros(len(counts), 2 + max(counts), dtype=torch.long)
            for i, part in enumerate(self.targets[split].split(counts)):
                ids[i, 2 : 2 + len(part)] = part
            starts, lengths = torch.full((len(counts),), 2), torch.tensor(counts) + 2
            made[split] = Batch(ids, starts, lengths, torch.arange(len(counts)))
        batches = Batches(made)
        batches._passed = (torch.empty(0), Head(torch.eye(V, dtype=torch.float64)))
        batches._scored[False] = {
            split: Hidden(self.logits[split], self.targets[split], self.row[split], len(counts)) for split, counts in self.counts.items()
        }
        return batches

    def nll(self, split: str) -> Tensor:
        """Summed nll of each row, (b,), by plain log-softmax."""
        each = -self.logits[split].log_softmax(-1)[torch.arange(len(self.targets[split])), self.targets[split]]
        return torch.stack([part.sum() for part in each.split(self.counts[split])])

    def grad(self, value: Tensor, split: str = "forget") -> Tensor:
        """Gradient on the logits of a split, (m, v); zeros where it plays no part."""
        (found,) = torch.autograd.grad(value, self.logits[split], allow_unused=True)
        return torch.zeros_like(self.logits[split]) if found is None else found

    def onehot(self, split: str) -> Tensor:
        """(m, v)."""
        return torch.nn.functional.one_hot(self.targets[split], V).double()
