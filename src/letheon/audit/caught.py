"""Share of prompts that a guard catches: hits on what is to be forgotten, false alarms elsewhere.

    caught = prompts that the model's guards keep it from answering / prompts

On splits whose name begins with `forget` more is better, elsewhere less. A model without a guard catches nothing. Everything in a guard
rests on these two numbers: a prompt that is not caught is answered with all the model knows. Card: eco.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Direction, Finding
from letheon.core.guard import watches
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field

from ._parts import ProbeSettings, cut, missing, nothing, row_finding

if TYPE_CHECKING:
    from letheon.core.readings import Readings

_ASKED = ("forget", "retain", "neighbours", "holdout", "world-facts", "real-authors")


class CaughtSettings(ProbeSettings):
    splits: tuple[str, ...] = Field(
        (), description="splits to measure; empty: all whose name begins with forget, retain or holdout, and neighbours and known facts"
    )


class Caught(Audit):
    """Hits and false alarms of the guards."""

    Settings, tiny = CaughtSettings, {"limit": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """One finding `caught` per split."""
        named = [name for start in _ASKED for name in data if name.startswith(start)]
        return [self._one(readings, data, where, run) for where in self.settings.splits or named or ("forget",)]

    def _one(self, readings: Readings, data: Data, where: str, run: Run) -> Finding:
        direction: Direction = "higher" if where.startswith("forget") else "lower"
        note = missing(data, where)
        if note:
            return nothing(self, "caught", note, where, direction)
        split, guards = cut(data[where], self.settings.limit), watches(readings.subject.module)
        values = np.zeros(len(split))
        for watch in guards:
            values = np.maximum(values, watch.caught(_tokens(readings, split)))
        note = "" if guards else "the model has no guard"
        return row_finding(self, "caught", where, values, run, direction=direction, note=note)


def _tokens(readings: Readings, split: Split) -> list[list[int]]:
    """What the model would be asked: the prompt of each row, or its plain text."""
    encoder = readings.subject.encoder
    prompts, texts = encoder.prompts(split), encoder.encode(split)
    return [prompt if row.prompt else texts.row(i).tolist() for i, (row, prompt) in enumerate(zip(split, prompts, strict=True))]
