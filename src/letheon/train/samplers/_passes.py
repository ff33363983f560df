"""Endless shuffled passes over the rows of a split."""

from __future__ import annotations

import numpy as np
import torch

from letheon.core.run import Run


def stream(size: int, begin: int, count: int, run: Run, split: str) -> np.ndarray:
    """Items `begin` to `begin + count` of an endless row of shuffled passes over `size` rows."""
    first, last = begin // size, (begin + count - 1) // size
    passes = [torch.randperm(size, generator=run.rng("pass", split, k)) for k in range(first, last + 1)]
    return torch.cat(passes)[begin - first * size :][:count].numpy()
