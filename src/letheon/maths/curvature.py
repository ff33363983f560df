"""Kronecker-factored curvature of linear layers: factors, their eigenbases, preconditioned directions, trust regions.

Notation: s = W a with W (o, i); n positions, rows of a (n, i) and of g = dl/ds (n, o). The Fisher block of W is about S x A with

    A = mean a a^T (i, i),   S = mean g g^T (o, o),   1/2 tr(D^T S D A) = 1/2 sum_jk values_jk (U_S^T D U_A)_jk^2   for a change D (o, i)

K-FAC takes values = l_S l_A^T from the eigenvalues of the factors; EK-FAC keeps the eigenvectors and measures the values, the mean square
of each coordinate of the gradient in that basis, which is the best diagonal there. A factor that is too large to decompose is cut into
diagonal blocks. arXiv:1503.05671, arXiv:1806.03884.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


class SecondMoment:
    """The running sum of x x^T over rows, as diagonal blocks of at most `largest` wide; at least float32."""

    def __init__(self, width: int, largest: int, like: Tensor):
        parts = math.ceil(width / largest)
        self.widths = [width // parts + (k < width % parts) for k in range(parts)]
        dtype = torch.promote_types(like.dtype, torch.float32)
        self.blocks = [torch.zeros(size, size, dtype=dtype, device=like.device) for size in self.widths]

    def add(self, rows: Tensor) -> None:
        """Add rows (n, width)."""
        for block, part in zip(self.blocks, rows.to(self.blocks[0].dtype).split(self.widths, -1), strict=True):
            block.addmm_(part.T, part)

    def basis(self, count: float) -> Basis:
        """Eigenvectors and eigenvalues of the sum divided by `count`."""
        found = [torch.linalg.eigh(block / count) for block in self.blocks]
        return Basis(tuple(vectors for _, vectors in found), torch.cat([values.clamp(min=0) for values, _ in found]))


@dataclass(frozen=True)
class Basis:
    """Eigenvectors of a symmetric matrix with diagonal blocks, in columns, and its eigenvalues (n,) in the same order."""

    vectors: tuple[Tensor, ...]
    values: Tensor

    def turn(self, x: Tensor) -> Tensor:
        """Coordinates of rows x (..., n) in the basis: x U."""
        return torch.cat([part @ block for part, block in zip(self._parts(x), self.vectors, strict=True)], -1)

    def back(self, x: Tensor) -> Tensor:
        """Rows (..., n) from their coordinates: x U^T."""
        return torch.cat([part @ block.T for part, block in zip(self._parts(x), self.vectors, strict=True)], -1)

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.to(self.values.dtype).split([len(block) for block in self.vectors], -1)


@dataclass(frozen=True)
class Curvature:
    """The curvature of one layer: `values` (o, i) in the bases of its outputs and inputs."""

    outputs: Basis
    inputs: Basis
    values: Tensor

    @classmethod
    def kfac(cls, outputs: Basis, inputs: Basis) -> Curvature:
        """With the products of the eigenvalues of both factors."""
        return cls(outputs, inputs, torch.outer(outputs.values, inputs.values))

    def turn(self, matrix: Tensor) -> Tensor:
        """Coordinates U_S^T M U_A of matrices (..., o, i)."""
        return self.outputs.turn(self.inputs.turn(matrix).mT).mT

    def back(self, coordinates: Tensor) -> Tensor:
        """The matrix of its coordinates."""
        return self.outputs.back(self.inputs.back(coordinates).mT).mT

    def preconditioned(self, gradient: Tensor, damping: float) -> Tensor:
        """(F + d I)^-1 G with d = damping * mean(values); coordinates of no curvature are left out where there is no damping."""
        scale = self.values + damping * self.values.mean()
        return self.back(torch.where(scale > 0, self.turn(gradient) / scale.clamp(min=torch.finfo(scale.dtype).tiny), 0))

    def cost(self, change: Tensor) -> Tensor:
        """1/2 tr(D^T S D A), the predicted divergence of the outputs: a scalar."""
        return 0.5 * (self.values * self.turn(change).square()).sum()


def trust_step(directions: Mapping[str, Tensor], gradients: Mapping[str, Tensor], radius: float) -> float:
    """The factor sqrt(2 radius / sum <D, G>): with D = F^-1 G the step has the predicted cost `radius`; 0 where nothing pulls."""
    pull = sum(float((directions[name] * gradients[name].to(directions[name].dtype)).sum(dtype=torch.float64)) for name in directions)
    return math.sqrt(2 * radius / pull) if pull > 0 else 0.0


def sampled_scores(logits: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """One token y per row of logits (m, v) and a factor f with E[f^2 (e_y - p)(e_y - p)^T] = diag(p) - p p^T, E[f (e_y - p)] = 0.

    Drawn from p itself, with f = 1, a model that is sure of its next token gives a gradient near zero nearly always and a large one
    once in a while. Here y is drawn from q ~ p |e_y - p| with f = +-sqrt(p_y / q_y): the same moments, and every draw counts alike.

    Args:
        draws: (m, 2) uniform on [0, 1): for the token, for the sign.
    """
    p = logits.double().softmax(-1)
    q = p * ((1 - p).square() + (p.square().sum(-1, keepdim=True) - p.square()).clamp(min=0)).sqrt()
    total = q.cumsum(-1)
    at = torch.searchsorted(total, draws[:, :1].double() * total[:, -1:], right=True).clamp(max=logits.shape[-1] - 1)
    ratio = p.gather(-1, at) * total[:, -1:] / q.gather(-1, at).clamp(min=torch.finfo(q.dtype).tiny)
    factor = torch.where(total[:, -1:] > 0, ratio.sqrt(), 0) * torch.where(draws[:, 1:] < 0.5, -1.0, 1.0)
    return at.squeeze(-1), factor.squeeze(-1)
