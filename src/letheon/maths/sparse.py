"""A sparse autoencoder: states as sums of few of many directions.

    z = top k of relu((x / scale - centre) E' + b),   x_hat = scale (z D + centre)        E, D: (m, d), rows of D of length 1

Notation: n states, d width, m latents, k active at most. arXiv:2406.04093.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class SparseAutoencoder:
    """A trained autoencoder; none of its tensors has a gradient.

    Attributes:
        encoder, decoder: (m, d).
        bias: (m,).
        centre: (d,) in units of `scale`.
        scale: divides states, so that their mean length is sqrt(d).
        active: largest number of latents above 0.
    """

    encoder: Tensor
    bias: Tensor
    decoder: Tensor
    centre: Tensor
    scale: float
    active: int

    def encode(self, x: Tensor, leak: float = 0.0) -> Tensor:
        """Latents (n, m). `leak` is the slope with which latents that are not active pass gradients back; values do not change."""
        before = (x / self.scale - self.centre) @ self.encoder.T + self.bias
        chosen = torch.zeros_like(before, dtype=torch.bool).scatter_(-1, before.topk(self.active, -1).indices, True) & (before > 0)
        z = before * chosen
        return z + leak * (before - before.detach()) * ~chosen if leak else z

    def decode(self, z: Tensor) -> Tensor:
        """States (n, d)."""
        return (z @ self.decoder + self.centre) * self.scale

    @torch.no_grad()
    def explained(self, x: Tensor) -> float:
        """Share of the variance of states (n, d) that their reconstructions have."""
        return 1 - float((x - self.decode(self.encode(x))).square().sum() / (x - x.mean(0)).square().sum())


def fit(x: Tensor, m: int, active: int, steps: int, generator: torch.Generator, rows: int = 512, rate: float = 1e-3) -> SparseAutoencoder:
    """Train on states (n, d) with Adam: the mean squared error in units of the variance, unit decoder rows after every step.

    Args:
        x: states.
        m: latents.
        active: latents above 0 at most.
        steps: of Adam.
        generator: on the CPU; draws the start and the batches.
        rows: states per step.
        rate: step size.
    """
    x = x.detach().float()
    scale = float(x.norm(dim=-1).mean()) / x.shape[1] ** 0.5
    start = torch.randn(m, x.shape[1], generator=generator).to(x)
    start /= start.norm(dim=-1, keepdim=True)
    parts = [start.clone(), x.new_zeros(m), start.clone(), x.mean(0) / scale]
    sae = SparseAutoencoder(*(part.requires_grad_() for part in parts), scale, min(active, m))
    optimizer = torch.optim.Adam(parts, lr=rate)
    spread = (x - x.mean(0)).square().sum(-1).mean()
    for _ in range(steps):
        part = x[torch.randint(len(x), (min(rows, len(x)),), generator=generator).to(x.device)]
        loss = (part - sae.decode(sae.encode(part))).square().sum(-1).mean() / spread
        for parameter, gradient in zip(parts, torch.autograd.grad(loss, parts), strict=True):
            parameter.grad = gradient
        optimizer.step()
        with torch.no_grad():
            sae.decoder.div_(sae.decoder.norm(dim=-1, keepdim=True).clamp(min=1e-8))
    names = ("encoder", "bias", "decoder", "centre")
    return replace(sae, **{name: part.detach() for name, part in zip(names, parts, strict=True)})
