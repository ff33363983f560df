"""The largest number of each row and where it stands: a maximum over blocks first, several times faster."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64


def largest(table: Tensor) -> tuple[Tensor, Tensor]:
    """Values and places of the maxima over the last dimension; the first of equal ones, and NaN counts as largest, as in `torch.max`."""
    n = table.shape[-1]
    if table.device.type != "cpu" or n < 4 * BLOCK:
        found = table.max(-1)
        return found.values, found.indices
    whole = n - n % BLOCK
    tops = table[..., :whole].unflatten(-1, (-1, BLOCK)).amax(-1)
    if whole < n:
        tops = torch.cat([tops, table[..., whole:].amax(-1, keepdim=True)], -1)
    values, block = tops.max(-1)
    places = (block[..., None] * BLOCK + torch.arange(BLOCK)).clamp(max=n - 1)
    return values, places.gather(-1, table.gather(-1, places).argmax(-1, keepdim=True)).squeeze(-1)
