"""Rows that begin alike, laid out as one tree of tokens, so that their common beginning is computed once.

The right answer, its paraphrase and five wrong answers to one question share the prompt, and often the first words too. Every distinct
beginning becomes one node. A node attends to its ancestors and has the position it would have in its own row, so its hidden state is the
one that the separate row would give.

    rows  A B C D     tree  A B C D E     position  0 1 2 3 2     E attends to A, B, E
          A B E

Trees are laid side by side with a mask (`lay`), or end to end, where each chain of new nodes attends to its own path only (`paths`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .encode import Encoded

ABREAST, KEYS = 12, 4096  # paths of one attention call, and their nodes, at most: they fit a cache

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


@dataclass(frozen=True)
class Paths:
    """Some chains of trees laid end to end, each with the whole path that it ends: p paths of at most s nodes, aligned to the right.

    Attributes:
        keys: (p, s) nodes of the path; a shorter path begins with any node.
        queries: (p, t) the last nodes of the path: the longest chain has t nodes, shorter ones ask again for ancestors.
        target: (p t,) the node that a query answers for; the number of all nodes for what is not of the chain.
        mask: (p, 1, t, s) added to scores: 0 where a query looks, the lowest number elsewhere.
    """

    keys: Tensor
    queries: Tensor
    target: Tensor
    mask: Tensor


def paths(trees: Sequence[Tree], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, list[Paths]]:
    """Tokens (1, n), positions (1, n) and paths of trees laid end to end; every node is answered for once."""
    n = 0
    chains: list[tuple[np.ndarray, int]] = []  # path, new nodes at its end
    for tree in trees:
        chains += [(np.concatenate([ancestors, np.arange(first, stop)]) + n, stop - first) for first, stop, ancestors in tree.branches]
        n += len(tree)
    chains.sort(key=lambda chain: chain[1])
    groups: list[Paths] = []
    some: list[tuple[np.ndarray, int]] = []
    for chain in chains:
        if some and (len(some) == ABREAST or sum(len(path) for path, _ in some) + len(chain[0]) > KEYS):
            groups.append(_abreast(some, n, dtype, device))
            some = []
        some.append(chain)
    groups.append(_abreast(some, n, dtype, device))
    ids = np.concatenate([tree.tokens for tree in trees]).astype(np.int64)
    positions = np.concatenate([tree.depth for tree in trees])
    return torch.from_numpy(ids)[None].to(device), torch.from_numpy(positions)[None].to(device), groups


def _abreast(chains: list[tuple[np.ndarray, int]], n: int, dtype: torch.dtype, device: torch.device) -> Paths:
    s, t = max(len(path) for path, _ in chains), max(fresh for _, fresh in chains)
    keys, target = np.zeros((len(chains), s), dtype=np.int64), np.full((len(chains), t), n, dtype=np.int64)
    for k, (path, fresh) in enumerate(chains):
        keys[k, s - len(path) :], target[k, t - fresh :] = path, path[len(path) - fresh :]
    begin = s - np.array([len(path) for path, _ in chains])
    seen = (np.arange(s) >= begin[:, None, None]) & np.tri(t, s, s - t, dtype=bool)
    parts = [torch.from_numpy(part).to(device) for part in (keys, np.ascontiguousarray(keys[:, s - t :]), target.ravel(), seen)]
    return Paths(parts[0], parts[1], parts[2], additive(parts[3], dtype))


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
