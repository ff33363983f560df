"""Walks every split in its own shuffled order, so that each row of every split gets its turn.

The leading split decides how many steps an epoch has; the others go on where the last epoch stopped and are shuffled anew each time they
have been walked through.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from letheon.core.run import Run
from letheon.core.settings import Settings
from letheon.train.parts import Sampler

from ._passes import stream


class Cyclic(Sampler):
    """Every row of every split in turn."""

    Settings, tiny = Settings, {}

    def epoch(self, sizes: Mapping[str, int], lead: str, rows: int, run: Run, epoch: int) -> list[dict[str, np.ndarray]]:
        """Steps of one epoch over the leading split; the last one may be smaller."""
        n = sizes[lead]
        order = torch.randperm(n, generator=run.rng("order", lead, epoch)).numpy()
        partners = {split: stream(size, epoch * n, n, run, split) for split, size in sizes.items() if split != lead}
        return [
            {lead: order[i : i + rows], **{split: drawn[i : i + rows] for split, drawn in partners.items()}} for i in range(0, n, rows)
        ]
