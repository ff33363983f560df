"""Spoiling embeddings: noise, zero or flipped sign in a few coordinates of chosen tokens.

    noise   e_k + strength z_k          zero   0          flip   -e_k          for every coordinate k that is chosen, others stay
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Kind = Literal["noise", "zero", "flip"]
Where = Literal["first", "top"]


def coordinates(embeddings: Tensor, where: Where, dims: int) -> Tensor:
    """The coordinates of each token that are spoiled, (t, dims): the first ones, or those of largest size."""
    if where == "top":
        return embeddings.abs().topk(dims, dim=-1).indices
    return torch.arange(dims, device=embeddings.device).expand(len(embeddings), dims)


def corrupted(embeddings: Tensor, kind: Kind, where: Where, noise: Tensor) -> Tensor:
    """Spoiled copies of embeddings (t, d); `noise` (t, dims) is what is added, its width says how many coordinates are meant."""
    at = coordinates(embeddings, where, noise.shape[1])
    if kind == "noise":
        return embeddings.scatter_add(-1, at, noise.to(embeddings))
    factor = 0.0 if kind == "zero" else -1.0
    return embeddings.scatter(-1, at, factor * embeddings.gather(-1, at))


def noise_of(prompt: Sequence[int], dims: int, seed: int) -> Tensor:
    """Standard normal numbers (t, dims) that depend on the prompt and the seed only, so that a prompt is always spoiled in the same way."""
    mark = hashlib.sha256(np.asarray([seed, *prompt], dtype=np.int64).tobytes()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mark[:8], "big") >> 1)
    return torch.randn(len(prompt), dims, generator=generator)
