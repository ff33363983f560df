"""Directions that some inputs hardly use, so that weights may move along them without changing what those inputs give."""

from __future__ import annotations

import torch
from torch import Tensor


def null_projector(covariance: Tensor, gamma: float) -> Tensor:
    """The orthogonal projector (d, d), float64, onto the directions of least energy that together hold at most the share `gamma` of it.

    For inputs a with mean a a' = covariance and any matrix D the mean of |D P a|^2 is at most |D|^2 gamma trace(covariance). At 0 only
    directions that no input uses are left, at 1 all of them.

    Args:
        covariance: (d, d), uncentred.
        gamma: in [0, 1].
    """
    identity = torch.eye(len(covariance), dtype=torch.float64, device=covariance.device)
    if gamma >= 1:
        return identity
    energy, vectors = torch.linalg.eigh(covariance.double())  # ascending
    energy = torch.where(energy > len(energy) * torch.finfo(torch.float64).eps * energy[-1], energy, 0.0)  # rounding is no energy
    used = energy.cumsum(0) <= gamma * energy.sum()
    return vectors[:, used] @ vectors[:, used].T if used.any() else torch.zeros_like(identity)
