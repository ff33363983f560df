"""What coresets of the forget rows share: how many rows, which of them, and the splits that come out.

    forget       the coreset, in the order of the rows
    forget-all   all rows that were to be forgotten
    forget-rest  those that were left out; absent where none was

Whatever a model forgets of `forget-rest`, it was never asked to: measure it beside the coreset (audits take `splits`).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.errors import MethodError
from letheon.core.method import Curator
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject

WHOLE, REST = "forget-all", "forget-rest"


class CoresetSettings(Settings):
    """How much of the forget rows is kept."""

    fraction: float = Field(0.1, gt=0, le=1, description="share of the forget rows that is kept, rounded down, at least one row")


def size_of(fraction: float, n: int) -> int:
    """Rows of a coreset: max(1, floor(fraction n)), where 0.29 of 100 are 29."""
    return max(1, int(fraction * n + 1e-9))


def best(scores: np.ndarray, size: int) -> np.ndarray:
    """Rows with the largest scores, ascending by row; of equal scores the earlier row, (size,)."""
    return np.sort(np.argsort(-scores, kind="stable")[:size])


def needed(subject: Subject | None, name: str) -> Subject:
    """The model that a selection looks at.

    Raises:
        MethodError: there is none.
        SubjectError: its weights are damaged.
    """
    if subject is None:
        raise MethodError(f"`{name}` selects rows by what a model says of them and was given no model", "`random` needs none")
    subject.check_finite()
    return subject


class Coreset(Curator):
    """Keeps the forget rows with the largest scores."""

    Settings: ClassVar[type[CoresetSettings]] = CoresetSettings

    @abstractmethod
    def scores(self, split: Split, data: Data, run: Run, subject: Subject | None) -> np.ndarray:
        """One number for each row, (n,); the largest are kept."""

    def curate(self, data: Data, run: Run, subject: Subject | None = None) -> Data:
        """The data with the coreset as its `forget` split.

        Raises:
            DataError: there are no rows to forget.
            MethodError: a model is needed and none was given.
        """
        data.need("forget", why=f"`{self.name()}`")
        whole = data["forget"]
        chosen = best(self.scores(whole, data, run, subject), size_of(self.settings.fraction, len(whole)))
        rest = np.setdiff1d(np.arange(len(whole)), chosen)
        out = data.with_split("forget", [whole[i] for i in chosen]).with_split(WHOLE, whole)
        return out.with_split(REST, [whole[i] for i in rest]) if len(rest) else out
