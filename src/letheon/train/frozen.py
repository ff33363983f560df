"""Numbers of the subject as it came in, taken once before training, so that no second model is ever kept or run again.

They are exact: the incoming weights do not change, so neither do their log-probabilities and hidden states. Rows that the plan never
draws are not measured. The pass runs in the number format of training, so that a loss at the start has the value it has on paper. Of
several processes each measures its share of the batches; then all have all numbers, and the bits are those of one process.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from letheon.core import processes
from letheon.core.batching import Batch
from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.maths.likelihood import Head

from .feed import Feed


@torch.no_grad()
def frozen_nll(subject: Subject, feed: Feed, split: str, run: Run, rows: np.ndarray | None = None) -> Tensor:
    """Summed answer nll of the rows of a split, (n,) in nats, without gradient; NaN for rows that are not asked for.

    Args:
        rows: which rows; None means all that the plan will draw.
    """
    found = torch.zeros(len(feed.encoded[split]), device=feed.device)
    rows = feed.used(split) if rows is None else np.unique(rows)  # a row that came up in the batches of two processes would count twice
    with processes.agreed():
        for batch in feed.sweep(split, rows, shared=True):
            with run.autocast():
                found[batch.rows] = Batches({split: batch}).nll(subject.module, split).per_row()
    processes.summed([found])
    left = torch.ones(len(found), dtype=torch.bool, device=feed.device)
    left[torch.from_numpy(rows).to(feed.device)] = False
    return found.masked_fill_(left, float("nan"))


def _share(feed: Feed, split: str) -> Iterator[tuple[Batch, bool]]:
    """The batches of this process, and true; where none falls to it, the first of all and false, so that it knows the shapes."""
    some = False
    for batch in feed.sweep(split, shared=True):
        some = True
        yield batch, True
    if not some:
        yield from ((batch, False) for batch in itertools.islice(feed.sweep(split), 1))


class Placed:
    """Where the numbers of each scored token lie: rows that the plan will draw, laid end to end."""

    def __init__(self, feed: Feed, split: str):
        scored = feed.encoded[split].scored.copy()
        unused = np.ones(len(scored), dtype=bool)
        unused[feed.used(split)] = False
        scored[unused] = 0
        self.offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(scored)])).to(feed.device)

    def places(self, batch: Batch) -> Tensor:
        """Where the scored tokens of a batch lie, (m,), in the order of `Scores.values`."""
        first, last = self.offsets[batch.rows], self.offsets[batch.rows + 1]
        counts = last - first
        within = torch.arange(int(counts.sum()), device=counts.device) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        return torch.repeat_interleave(first, counts) + within


class FrozenScores(Placed):
    """The nll of the incoming subject at every scored token of a split: one float per token."""

    @torch.no_grad()
    def __init__(self, subject: Subject, feed: Feed, split: str, run: Run):
        super().__init__(feed, split)
        self.values: Tensor | None = None
        with processes.agreed():
            for batch, ours in _share(feed, split):
                with run.autocast():
                    found = Batches({split: batch}).nll(subject.module, split).values
                if self.values is None:
                    self.values = found.new_zeros(int(self.offsets[-1]))
                if ours:
                    self.values[self.places(batch)] = found
        if self.values is not None:
            processes.summed([self.values])

    def of(self, batch: Batch) -> Tensor:
        """The nll of the scored tokens of a batch, (m,) in nats, in the order of `Scores.values`."""
        if self.values is None:
            raise LookupError("no row of this split was planned")
        return self.values[self.places(batch)]


class FrozenStates(Placed):
    """Final hidden states of the incoming subject at the scored tokens of a split, and its output head.

    One (d,) vector per scored token stands for a full distribution over the vocabulary: d numbers instead of v.
    """

    @torch.no_grad()
    def __init__(self, subject: Subject, feed: Feed, split: str, run: Run):
        super().__init__(feed, split)
        self.head = Head(None)
        self.states: Tensor | None = None
        with processes.agreed():
            for batch, ours in _share(feed, split):
                with run.autocast():
                    hidden, head = Batches({split: batch}).hidden(subject.module)
                states = hidden[split].states
                if self.states is None:
                    self.head = head.frozen()
                    self.states = states.new_zeros(int(self.offsets[-1]), states.shape[-1])
                if ours:
                    self.states[self.places(batch)] = states
        if self.states is not None:
            processes.summed([self.states])

    def of(self, batch: Batch) -> Tensor:
        """The states at the scored tokens of a batch, (m, d), in the order of `Hidden.states`."""
        if self.states is None:
            raise LookupError("no row of this split was planned")
        return self.states[self.places(batch)]
