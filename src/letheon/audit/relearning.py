"""Does it come back after a little training on other forgotten rows?

The attacker has the rows of some of the forgotten people (of every second row where rows name nobody) and trains for a few steps; what then
comes back of the OTHERS was never gone. The retrained model under the same attack is the control: what it learns to say of them is what the
attacker's rows teach by themselves. Of several step sizes and steps the attacker keeps the best.

    relearned     the largest mean probability of true answers over all budgets, on rows that the attacker does not have

`extra` holds the curve: step -> probability at the best step size, with step 0 as it was. arXiv:2406.13356, arXiv:2410.08827.
Card: relearning-and-extraction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from letheon.core.attention import fast_attention
from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.registry import make
from letheon.core.run import Run, kept_as_found
from letheon.core.settings import Choice, Field
from letheon.core.subject import Subject
from letheon.train.loop import Trainer, feed_for, start

from ._parts import ProbeSettings, cut, missing, nothing, row_finding

if TYPE_CHECKING:
    from letheon.core.readings import Readings


class RelearningSettings(ProbeSettings):
    """The attacker's budget; published with every verdict."""

    splits: tuple[str, ...] = Field(("forget",), min_length=1, max_length=1, description="the split that is relearned")
    steps: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (2, 5, 10, 20, 40), min_length=1, description="optimiser steps after which the other half is asked"
    )
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field((2e-4, 1e-3), min_length=1, description="step sizes; the best counts")
    batch_size: int = Field(8, ge=1, description="rows per step")
    parameters: Choice = Field("all", description="weights that the attacker trains")  # type: ignore[assignment]


class Relearning(Audit):
    """What a short training on some forgotten rows brings back of the others."""

    Settings, tiny = RelearningSettings, {"steps": [1, 2], "learning_rates": [1e-3], "batch_size": 2, "limit": 8}

    def __init__(self, **values: Any):
        super().__init__(**values)
        self._attack(self.settings.learning_rates[0])  # a wrong part shows now

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """One finding, or one without a value and the reason."""
        (where,) = self.settings.splits
        note = missing(data, where)
        if note:
            return [nothing(self, "relearned", note, where)]
        known, asked = halves(cut(data[where], self.settings.limit))
        if not len(known) or not len(asked):
            return [nothing(self, "relearned", f"{len(data[where])} rows cannot be cut into two halves", where)]
        start = np.exp(-readings.answers(asked).nll())
        curves = {rate: [start, *self._kept_curve(readings, known, asked, rate, run)] for rate in self.settings.learning_rates}
        rate = max(curves, key=lambda rate: max(values.mean() for values in curves[rate]))
        best = max(curves[rate], key=lambda values: values.mean())
        curve = {str(step): float(values.mean()) for step, values in zip((0, *self._steps), curves[rate], strict=True)}
        extra = {"curve": curve, "learning_rate": rate, "trained_rows": len(known)}
        return [row_finding(self, "relearned", where, best, run, direction="reference", why="no answer token to score", **extra)]

    @property
    def _steps(self) -> tuple[int, ...]:
        return tuple(sorted(set(self.settings.steps)))

    def _attack(self, rate: float) -> Any:
        values = {"split": "known", "steps": self._steps[-1], "learning_rate": rate, "batch_size": self.settings.batch_size}
        more = {"schedule": "constant", "warmup": 0.0, "parameters": self.settings.parameters.model_dump()}
        return make(Choice(name="finetune", **values, **more), "adapt")

    def _kept_curve(self, readings: Readings, known: Split, asked: Split, rate: float, run: Run) -> np.ndarray:
        """Probabilities (steps, n) of the other half; an attack on the same model is not made twice."""
        both = Split([*known, *asked], "both")
        attack = self._attack(rate).settings.model_dump(mode="json")
        depends = {"attack": attack, "steps": self._steps, "known": len(known), "seed": run.seed}
        return readings.numbers("relearning", both, lambda: np.stack(self._curve(readings, known, asked, rate, run)), **depends)

    def _curve(self, readings: Readings, known: Split, asked: Split, rate: float, run: Run) -> list[np.ndarray]:
        attack = self._attack(rate)
        subject, alone = readings.subject, Run(run.seed, device=str(run.device), dtype="float32")
        found = []
        with kept_as_found(subject.module):
            given = Subject(subject.module, subject.encoder, name=subject.name)
            feed = feed_for(attack, given, Data({"known": known}), alone)
            start(attack, given, feed, alone)
            trainer = Trainer(attack, attack.space.open(given.fork(), alone), feed, alone, "relearning")
        while trainer.step < self._steps[-1]:
            with fast_attention(trainer.subject.module):
                trainer.advance()
            if trainer.step in self._steps:
                now = type(readings)(trainer.subject, alone, tokens_per_batch=readings.tokens_per_batch)
                found.append(np.exp(-now.answers(asked).nll()))
        return found


def halves(split: Split) -> tuple[Split, Split]:
    """Rows the attacker has, and rows that are asked: whole groups where there are several, else every second row."""
    groups = list(dict.fromkeys(row.group for row in split if row.group is not None))
    if len(groups) > 1:
        mine = set(groups[::2])
        parts = [row for row in split if row.group in mine], [row for row in split if row.group not in mine]
    else:
        parts = list(split)[::2], list(split)[1::2]
    return Split(parts[0], "known"), Split(parts[1], f"{split.name}, asked")
