"""Finding concept vectors in a model: the words of a concept, the columns of down projections that say them, and noise that drowns one.

A block adds sum_j a_j v_j to the residual stream, v_j the columns of its down projection. arXiv:2406.11614.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from letheon.core.data import Split
from letheon.core.errors import DataError
from letheon.core.forward import head_of
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.maths.concepts import concept_share, concept_zscores

from ._linears import matrix

RANDOM = 512  # vectors that show what chance gives
Place = tuple[str, int]  # name of a down projection, column


def concept_words(subject: Subject, words: Sequence[str], forget: Split, retain: Split, lift: float) -> Tensor:
    """(v,), true on the tokens of `words`, or of those `lift` times as frequent in forget answers as in retain answers.

    Raises:
        DataError: there is none.
    """
    tokenizer = subject.encoder.tokenizer
    if words:
        texts = [form for word in words for form in (word, f" {word}")]
        ids = {token for row in tokenizer(texts, add_special_tokens=False)["input_ids"] for token in row}
    else:
        own, others = (_counts(subject, split) for split in (forget, retain))
        rate = lift / sum(others.values())
        ids = {token for token, n in own.items() if n / sum(own.values()) >= rate * (others[token] + 1)}
    embedding = head_of(subject.module).weight
    mask = torch.zeros(len(embedding), dtype=torch.bool, device=embedding.device)
    mask[sorted(ids - set(tokenizer.all_special_ids))] = True
    if not mask.any():
        raise DataError("No token sets the forget answers apart from the retain answers", "Give `words`, or a lower `lift`")
    return mask


def _counts(subject: Subject, split: Split) -> Counter[int]:
    """How often each token stands in the answers of a split."""
    encoded = subject.encoder.encode(split)
    return Counter(int(token) for i in range(len(split)) for token in encoded.row(i)[encoded.starts[i] :])


def vector_scores(layers: Mapping[str, nn.Module], embedding: Tensor, words: Tensor, top: int, run: Run) -> dict[Place, float]:
    """How far each column's share of concept words lies above that of random vectors, in their standard deviations."""
    chance = torch.randn(RANDOM, embedding.shape[1], generator=run.rng("chance")).to(embedding.device)
    share = concept_share(chance, embedding, words, top)
    found: dict[Place, float] = {}
    for name, part in layers.items():
        own = concept_share(matrix(part).T.float(), embedding, words, top)
        for k, score in enumerate(concept_zscores(own, share, words, top).tolist()):
            found[name, k] = score
    return found


def noise(column: Tensor, size: float, place: Place, run: Run) -> Tensor:
    """Gaussian noise for a column (d,), `size` times its root mean square entry."""
    draw = torch.randn(len(column), generator=run.rng("noise", *place)).to(column.device)
    return (size * column.float().square().mean().sqrt() * draw).to(column.dtype)


@contextlib.contextmanager
def drowned(layers: Mapping[str, nn.Module], place: Place, size: float, run: Run) -> Iterator[None]:
    """Inside the block one column has noise added; afterwards it has its bits back."""
    column = matrix(layers[place[0]])[:, place[1]]
    kept = column.clone()
    column += noise(column, size, place, run)
    try:
        yield
    finally:
        column.copy_(kept)
