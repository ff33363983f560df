"""Batches: right-padded rows of similar length under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .encode import Encoded

WINDOW = 384  # rows of a split that are held as tokens at once when it is read: memory does not grow with the split


@dataclass(frozen=True)
class Batch:
    """Right-padded rows. Causal attention never looks to the right, so padding needs no attention mask.

    Attributes:
        ids: (b, t) token ids.
        starts: (b,) position of the first answer token.
        lengths: (b,) tokens per row.
        rows: (b,) index of each row in its split.
    """

    ids: Tensor
    starts: Tensor
    lengths: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def mask(self) -> Tensor:
        """(b, t), true on real tokens."""
        return torch.arange(self.ids.shape[1], device=self.ids.device) < self.lengths[:, None]

    @property
    def scored_mask(self) -> Tensor:
        """(b, t), true on answer tokens (never on the first token of a row)."""
        at = torch.arange(self.ids.shape[1], device=self.ids.device)
        return (at >= self.starts.clamp(min=1)[:, None]) & (at < self.lengths[:, None])


def collate(encoded: Encoded, rows: Sequence[int], pad: int, device: torch.device | str = "cpu") -> Batch:
    """Make one batch of the given rows, padded to the longest."""
    lengths = encoded.lengths[np.asarray(rows, dtype=np.int64)]
    ids = np.full((len(rows), int(lengths.max(initial=1))), pad, dtype=np.int64)
    for k, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        ids[k, :length] = encoded.row(row)
    index = np.asarray(rows, dtype=np.int64)
    return Batch(
        torch.from_numpy(ids).to(device),
        torch.from_numpy(encoded.starts[index].astype(np.int64)).to(device),
        torch.from_numpy(lengths.astype(np.int64)).to(device),
        torch.from_numpy(index).to(device),
    )


def by_length(lengths: np.ndarray, budget: int, *, most: int = 1 << 30, padded: bool = True) -> Iterator[list[int]]:
    """Rows sorted by falling length, cut into groups whose size, padded or not, stays within `budget` tokens (or one row).

    The longest group comes first, so that a lack of memory shows at once.
    """
    group: list[int] = []
    size = 0
    for row in np.argsort(-lengths, kind="stable"):
        length = int(lengths[group[0] if group and padded else row])
        if group and (size + length > budget or len(group) >= most):
            yield group
            group, size, length = [], 0, int(lengths[row])
        group.append(int(row))
        size += length
    if group:
        yield group
