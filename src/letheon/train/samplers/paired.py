"""Walks the leading split in shuffled order and draws a random row of each other split beside it.

A row of the other splits comes up again only when all of them have been drawn in this epoch. With `fixed`, a leading row meets the same
partner in every epoch, as in the code of NPO's authors (arXiv:2404.05868).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.train.parts import Sampler


class PairedSettings(Settings):
    """How partners are drawn."""

    fixed: bool = Field(False, description="a leading row meets the same partners in every epoch")


class Paired(Sampler):
    """One partner of every other split for each leading row."""

    Settings, tiny = PairedSettings, {}

    def epoch(self, sizes: Mapping[str, int], lead: str, rows: int, run: Run, epoch: int) -> list[dict[str, np.ndarray]]:
        """Steps of one epoch over the leading split; the last one may be smaller."""
        n = sizes[lead]
        order = torch.randperm(n, generator=run.rng("order", lead, epoch)).numpy()
        partners = {}
        for split, size in sizes.items():
            if split != lead:
                rng = run.rng("partners", split, 0 if self.settings.fixed else epoch)
                drawn = [torch.randperm(size, generator=rng) for _ in range(-(-n // size))]
                partners[split] = torch.cat(drawn)[:n].numpy()
        steps = []
        for i in range(0, n, rows):
            at = order[i : i + rows]
            steps.append({lead: at, **{split: drawn[at] for split, drawn in partners.items()}})
        return steps
