"""Concept vectors: columns of a down projection whose projection on the vocabulary lists the words of one concept.

Notation: E (v, d) output embedding, x (n, d) vectors. What a vector says are the `top` tokens with the largest entries of E x.
"""

from __future__ import annotations

import torch
from torch import Tensor


def top_tokens(x: Tensor, embedding: Tensor, top: int) -> Tensor:
    """The `top` tokens that each vector says, most likely first, (n, top)."""
    return (x.to(embedding.dtype) @ embedding.T).topk(top, -1).indices


def concept_share(x: Tensor, embedding: Tensor, words: Tensor, top: int) -> Tensor:
    """Share of what each vector says that belongs to a concept, (n,); `words` (v,) is true on its tokens."""
    return words[top_tokens(x, embedding, top)].to(torch.float64).mean(-1)


def concept_zscores(share: Tensor, chance: Tensor, words: Tensor, top: int) -> Tensor:
    """How far each share lies above those of random vectors, in their standard deviations, (n,).

    The deviation is at least that of tokens drawn without replacement, so that a few random vectors without any hit give no infinity.
    """
    v, m = len(words), int(words.sum())
    drawn = (m / v * (1 - m / v) / top * (v - top) / max(1, v - 1)) ** 0.5
    spread = max(float(chance.std(correction=0)), drawn, torch.finfo(torch.float64).tiny)
    return (share - chance.mean()) / spread


def compared(before: Tensor, after: Tensor, embedding: Tensor, embedding_after: Tensor, top: int) -> dict[str, float]:
    """How much of one concept vector (d,) is left: cosine, L2 distance, and Jaccard index of what both say."""
    one, two = before.double(), after.double()
    cosine = float(torch.nn.functional.cosine_similarity(one, two, dim=0).clamp(max=1))
    then, now = (set(top_tokens(x[None], e, top)[0].tolist()) for x, e in ((before, embedding), (after, embedding_after)))
    return {"cosine": cosine, "distance": float((one - two).norm()), "jaccard": len(then & now) / len(then | now)}


def related(
    before: Tensor, after: Tensor, embedding: Tensor, embedding_after: Tensor, words: Tensor, top: int
) -> tuple[float, float] | None:
    """Of the concept words r that a vector (d,) said, the share it still says, and the number of concept words it says now over |r|.

    None where it said none. `words` (v,) is true on the tokens of the concept.
    """
    then, now = (top_tokens(x[None], e, top)[0] for x, e in ((before, embedding), (after, embedding_after)))
    said = set(then[words[then]].tolist())
    left = now[words[now]].tolist()
    return (len(said & set(left)) / len(said), len(left) / len(said)) if said else None
