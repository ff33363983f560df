"""Causal tracing: which feed-forward layers bring a fact back when the name it is about has been made unreadable.

    effect_l = mean_i (p_i with noise on the name and layers l - reach .. l + reach as without noise) - (p_i with noise)

p is the geometric mean of the probabilities of the answer tokens. The noise has three times the spread of the embeddings; the outputs are
put back at the last token of the name. Rows whose name is not known have noise on the whole prompt, plain text on the whole text.
arXiv:2202.05262.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from letheon.core.batching import Batch
from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.train.feed import Feed

from ._linears import down_projections, watched
from ._names import name_span, names_of

SPREAD = 3.0


@contextlib.contextmanager
def replaced(parts: Mapping[nn.Module, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Inside the block the output of each part is what its function makes of it."""

    def hook(change: Callable[[Tensor], Tensor]) -> Callable[..., object]:
        def changed(part: nn.Module, given: object, out: object) -> object:
            return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)  # type: ignore[arg-type]

        return changed

    handles = [part.register_forward_hook(hook(change)) for part, change in parts.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def spans(subject: Subject, feed: Feed, split: str, rows: Sequence[int]) -> list[tuple[int, int]]:
    """For each row the tokens that are made unreadable: the name, else the prompt, else all but the last token."""
    encoded, data = feed.encoded[split], feed.data[split]
    names, found = names_of(data), []
    for row in rows:
        example, begun = data[row], len(subject.encoder.begin)
        span = name_span(subject.encoder, example.prompt, names[example.group]) if example.prompt and example.group in names else None
        found.append(span or (begun, int(encoded.starts[row]) if example.prompt else int(encoded.lengths[row]) - 1))
    return found


def noise(subject: Subject, batch: Batch, where: Sequence[tuple[int, int]], run: Run) -> Tensor:
    """(b, t, d), zero but on the given tokens; depends on the row, not on the batch."""
    table = subject.module.get_input_embeddings().weight
    out = table.new_zeros(*batch.ids.shape, table.shape[1])
    for i, (row, (first, stop)) in enumerate(zip(batch.rows.tolist(), where, strict=True)):
        drawn = torch.randn(stop - first, table.shape[1], generator=run.rng("trace", row))
        out[i, first:stop] = (SPREAD * table.float().std() * drawn.to(table.device)).to(out.dtype)
    return out


def probability(module: nn.Module, batch: Batch) -> Tensor:
    """Geometric mean of the probabilities of the answer tokens, (b,)."""
    return (-Batches({"forget": batch}).nll(module, "forget").per_row_mean()).exp().double()


@torch.no_grad()
def causal_effects(subject: Subject, feed: Feed, rows: Sequence[int], reach: int, run: Run) -> Tensor:
    """The effect of each feed-forward layer on forget rows, (layers,)."""
    module, parts = subject.module, down_projections(subject.module)
    embed, layers, names = module.get_input_embeddings(), list(parts.values()), list(parts)
    total = torch.zeros(len(layers), dtype=torch.float64, device=feed.device)
    for group in (rows[i : i + 16] for i in range(0, len(rows), 16)):
        batch, where = feed.batch("forget", group), spans(subject, feed, "forget", group)
        added = noise(subject, batch, where, run)
        at = torch.arange(len(batch), device=feed.device), torch.tensor([stop - 1 for _, stop in where], device=feed.device)
        with run.autocast():
            with watched(parts) as seen:
                probability(module, batch)
            clean = [seen[name][1][at].clone() for name in names]
            with replaced({embed: lambda out, added=added: out + added}):
                lost = probability(module, batch)
                for k in range(len(layers)):
                    near = range(max(0, k - reach), min(len(layers), k + reach + 1))
                    with replaced({layers[j]: _put(at, clean[j]) for j in near}):
                        total[k] += (probability(module, batch) - lost).sum()
    return total.cpu() / max(1, len(rows))


def _put(at: tuple[Tensor, Tensor], values: Tensor) -> Callable[[Tensor], Tensor]:
    def put(out: Tensor) -> Tensor:
        out = out.clone()
        out[at] = values.to(out.dtype)
        return out

    return put


def best_window(effects: Tensor, width: int) -> int:
    """First layer of the `width` neighbours with the largest sum of effects."""
    return int(effects.unfold(0, min(width, len(effects)), 1).sum(-1).argmax())
