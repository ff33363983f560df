"""What a training run eats: encoded splits and the plan of all its steps, fixed before the first one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from letheon.core import processes
from letheon.core.batching import Batch, by_length, collate
from letheon.core.data import Data
from letheon.core.encode import Encoded
from letheon.core.forward import Batches

if TYPE_CHECKING:
    from letheon.core.run import Run

    from .objective import Objective
    from .parts import Sampler

Rows = dict[str, np.ndarray]


def plan_steps(objective: Objective, sampler: Sampler, data: Data, run: Run) -> list[Rows]:
    """All steps of a training run, fixed before the first one."""
    settings, sizes = objective.settings, {split: len(data[split]) for split in objective.splits}
    sampler.start(data)
    plan: list[Rows] = []
    epoch = 0
    while epoch < settings.epochs if settings.steps is None else len(plan) < settings.steps:
        plan += [objective.planned(rows, epoch) for rows in sampler.epoch(sizes, objective.lead, settings.batch_size, run, epoch)]
        epoch += 1
    return plan[: settings.steps]


@dataclass(frozen=True)
class Feed:
    """Encoded splits and the plan.

    Attributes:
        data: the splits, possibly with some that the objective added.
        encoded: their tokens.
        plan: one dict per optimiser step: split -> row indices.
        pad, device: how batches are made.
        budget: padded tokens per micro-batch, all splits together.
    """

    data: Data
    encoded: dict[str, Encoded]
    plan: list[Rows]
    pad: int
    device: torch.device
    budget: int

    def used(self, split: str) -> np.ndarray:
        """The distinct rows of a split that the plan will draw, ascending."""
        drawn = [step[split] for step in self.plan if split in step]
        return np.unique(np.concatenate(drawn)) if drawn else np.zeros(0, dtype=np.int64)

    def batch(self, split: str, rows: Sequence[int]) -> Batch:
        """One batch of the given rows."""
        return collate(self.encoded[split], rows, self.pad, self.device)

    def sweep(self, split: str, rows: np.ndarray | None = None, *, shared: bool = False) -> Iterator[Batch]:
        """Batches over the given rows of a split (None: all that the plan will draw), longest first.

        Args:
            shared: only those that fall to this process, of several; they are the same batches.
        """
        rows = self.used(split) if rows is None else rows
        for k, group in enumerate(by_length(self.encoded[split].lengths[rows], 2 * self.budget)):
            if not shared or k % processes.size() == processes.rank():
                yield self.batch(split, rows[group])

    def counts(self, step: Rows) -> dict[tuple[str, str], int]:
        """(split, unit) -> how many tokens or rows one optimiser step scores."""
        found = {}
        for split, rows in step.items():
            found[split, "sequence"] = len(rows)
            found[split, "token"] = int(self.encoded[split].scored[rows].sum())
        return found

    def _by_length(self, step: Rows, tied: Sequence[str]) -> Rows:
        """The rows of a step, longest first; those of the splits in `tied` by the longest at the same position."""
        lengths = {split: self.encoded[split].lengths[rows] for split, rows in step.items()}
        together = [split for split in step if split in tied]
        joint = np.max([lengths[split] for split in together], axis=0) if together else None
        order = {split: np.argsort(-(joint if split in together else lengths[split]), kind="stable") for split in step}
        return {split: rows[order[split]] for split, rows in step.items()}

    def share(self, step: Rows, tied: Sequence[str], rank: int, world: int) -> Rows:
        """The part of one optimiser step that falls to process `rank` of `world`: of every length as many rows as the others have."""
        dealt = {}
        for split, rows in self._by_length(step, tied).items():
            at = np.arange(len(rows))
            turn = np.where(at // world % 2, world - 1 - at % world, at % world)  # there and back again
            dealt[split] = rows[turn == rank]
        return {split: rows for split, rows in dealt.items() if len(rows)}

    def micro_steps(self, step: Rows, tied: Sequence[str], least: int = 1) -> list[Rows]:
        """Cut one optimiser step into micro-steps whose padded size stays within the budget; none for a step without rows.

        Rows are sorted by length first, so the rows of one micro-step are alike. The splits in `tied` are row-aligned with one another
        (the same position belongs together) and are sorted as one.

        Args:
            tied: splits that must stay aligned.
            least: make at least this many (empty ones at the end if there are too few rows).
        """
        if not step:
            return []
        order = self._by_length(step, tied)
        most = max(len(rows) for rows in step.values())
        for parts in range(least, max(most, least) + 1):
            micro = [{split: np.array_split(rows, parts)[k] for split, rows in order.items()} for k in range(parts)]
            if all(self._padded(piece) <= self.budget for piece in micro):
                break
        return [{split: rows for split, rows in piece.items() if len(rows)} for piece in micro]

    def _padded(self, piece: Rows) -> int:
        longest = max((int(self.encoded[split].lengths[rows].max(initial=0)) for split, rows in piece.items()), default=0)
        return longest * sum(len(rows) for rows in piece.values())

    def batches(self, piece: Rows, *, apart: bool = False) -> Batches:
        """The batches of one micro-step; `apart`: with a forward pass for each split."""
        return Batches({split: self.batch(split, rows) for split, rows in piece.items()}, apart=apart)
