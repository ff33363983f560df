"""A random coreset: any rows, as the baseline that a clever selection has to beat.

On published benchmarks a random twentieth of the forget rows unlearns as well as all of them, so measure the rows that were left out.

    chosen = the first max(1, floor(fraction n)) rows of a permutation of all n

With `nested` the permutation depends on the seed alone, so a smaller fraction is part of a larger one; without, each fraction has its own.
fraction = 1 gives every row once. The card is a reconstruction of the protocol; a uniform draw leaves nothing open. Card: mu-coreset.
"""

from __future__ import annotations

import numpy as np
import torch

from letheon.core.data import Data, Split
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.core.subject import Subject

from ._coreset import Coreset, CoresetSettings


class RandomSettings(CoresetSettings):
    """How rows are drawn."""

    nested: bool = Field(True, description="a smaller fraction is part of a larger one")


class Random(Coreset):
    """Uniform, without replacement."""

    Settings, tiny = RandomSettings, {"fraction": 0.5}

    def scores(self, split: Split, data: Data, run: Run, subject: Subject | None) -> np.ndarray:
        """Minus the place of each row in the permutation."""
        purpose = () if self.settings.nested else (repr(self.settings.fraction),)
        order = torch.randperm(len(split), generator=run.rng("coreset", "random", *purpose)).numpy()
        places = np.empty(len(split))
        places[order] = np.arange(len(split))
        return -places
