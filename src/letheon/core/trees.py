"""Rows that begin alike, laid out as one tree of tokens, so that their common beginning is computed once.

The right answer, its paraphrase and five wrong answers to one question share the prompt, and often the first words too. Every distinct
beginning becomes one node. A node attends to its ancestors and has the position it would have in its own row, so its hidden state is the
one that the separate row would give.

    rows  A B C D     tree  A B C D E     position  0 1 2 3 2     E attends to A, B, E
          A B E
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .encode import Encoded


@dataclass(frozen=True)
class Tree:
    """One tree over some rows. The last token of a row is only ever predicted, so it is no node.

    Attributes:
        tokens: (t,) token of each node; a parent always stands before its children.
        depth: (t,) position of each node in its row.
        branches: (first, stop, ancestors) for every chain of new nodes: they attend to one another causally and to `ancestors`.
        node: (m,) the node that predicts each scored token, rows in the order given.
        targets: (m,) the scored tokens.
    """

    tokens: np.ndarray
    depth: np.ndarray
    branches: tuple[tuple[int, int, np.ndarray], ...]
    node: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)


def plant(encoded: Encoded, rows: Sequence[int]) -> Tree:
    """Make the tree of some rows of `encoded`."""
    texts = [encoded.row(row) for row in rows]
    order = sorted(range(len(rows)), key=lambda k: texts[k].tolist())  # neighbours share the longest beginnings
    tokens, depth, branches, paths = [], [], [], {}
    before, path, size = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64), 0
    for k in order:
        body = texts[k][:-1]
        room = min(len(body), len(before))
        differ = np.flatnonzero(body[:room] != before[:room])
        shared = int(differ[0]) if len(differ) else room
        fresh = len(body) - shared
        if fresh:
            branches.append((size, size + fresh, path[:shared]))
            tokens.append(body[shared:])
            depth.append(np.arange(shared, len(body)))
        before, path = body, np.concatenate([path[:shared], np.arange(size, size + fresh)])
        paths[k], size = path, size + fresh
    first = [max(int(encoded.starts[row]), 1) for row in rows]
    return Tree(
        np.concatenate(tokens) if tokens else before,
        np.concatenate(depth) if depth else np.zeros(0, dtype=np.int64),
        tuple(branches),
        np.concatenate([paths[k][first[k] - 1 :] for k in range(len(rows))]),
        np.concatenate([texts[k][first[k] :] for k in range(len(rows))]),
    )


def groves(encoded: Encoded, owner: np.ndarray, most: int) -> list[list[int]]:
    """Put the rows of each owner together, in runs whose tree has at most `most` nodes (or one row).

    Attention over a tree costs the square of its size, so a very large tree is cut.

    Args:
        encoded: the rows.
        owner: (k,) ascending; rows of one owner share their prompt.
        most: nodes per tree.
    """
    lengths, starts = encoded.lengths.tolist(), encoded.starts.tolist()
    out: list[list[int]] = []
    size = 0
    for row, who in enumerate(owner.tolist()):
        fresh = lengths[row] - 1 - starts[row]
        if out and owner[out[-1][0]] == who and size + fresh <= most:
            out[-1].append(row)
            size += fresh
        else:
            out.append([row])
            size = lengths[row] - 1
    return out


def lay(trees: Sequence[Tree], pad: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (b, t), positions (b, t) and what attends to what (b, t, t) of trees laid side by side; padding attends to itself."""
    longest = max(len(tree) for tree in trees)
    ids = np.full((len(trees), longest), pad, dtype=np.int64)
    positions = np.zeros((len(trees), longest), dtype=np.int64)
    seen = np.zeros((len(trees), longest, longest), dtype=bool)
    lower = np.tri(longest, dtype=bool)
    for k, tree in enumerate(trees):
        ids[k, : len(tree)], positions[k, : len(tree)] = tree.tokens, tree.depth
        for first, stop, ancestors in tree.branches:
            seen[k, first:stop, ancestors] = True
            seen[k, first:stop, first:stop] = lower[: stop - first, : stop - first]
        blank = np.arange(len(tree), longest)
        seen[k, blank, blank] = True
    return torch.from_numpy(ids).to(device), torch.from_numpy(positions).to(device), torch.from_numpy(seen).to(device)


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask (b, 1, t, t) that attention adds to its scores: 0 where `seen`, the lowest number elsewhere."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
