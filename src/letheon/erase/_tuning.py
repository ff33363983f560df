"""What tuning and `auto` compare: one number between 0 and 1 for an erasure, and other rows of the same kind to tune on.

    forgotten   x = (nats - start) / (never - start), or 1 / x where x > 1: the way that the forget rows have come to rows never seen
    kept        answer probability on what stays, relative to the incoming model, the least over splits, at most 1
    score       harmonic mean of both

`nats` are per answer token. Being pushed to twice the way counts as much as being left half way: a row that is far less likely than an
unseen one is recognised too. Nothing here needs a retrain or a generation.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.core.subject import Subject

log = logging.getLogger("letheon")
ROWS = 200  # of each split, at most
KEPT = ("retain-check", "retain", "real-authors", "world-facts")  # of the first two, the one that is there


@dataclass(frozen=True)
class Score:
    """The parts and their harmonic mean, all between 0 and 1."""

    forgotten: float
    kept: float

    @property
    def score(self) -> float:
        """The harmonic mean."""
        return 0.0 if min(self.forgotten, self.kept) <= 0 else 2 / (1 / self.forgotten + 1 / self.kept)


class Yardstick:
    """What the incoming model says, once, and the score of every model that is made from it.

    Raises:
        DataError: there are no rows to forget, or no unseen rows to compare with.
    """

    def __init__(self, subject: Subject, data: Data, run: Run):
        data.need("forget", why="to score an erasure")
        checked = "retain-check" if "retain-check" in data else "retain"
        self.kept = [name for name in KEPT if name in data and name not in {"retain", "retain-check"} - {checked}]
        unseen = _unseen(data)
        rows = {"forget": data["forget"], **{name: data[name] for name in self.kept}}
        self.splits = {name: _sample(split, run, name).bare for name, split in rows.items()}
        self.run = Run(run.seed, dtype="float32", device=str(run.device))
        readings = Readings(subject, self.run)
        self.never = float(readings.answers(_sample(unseen, run, "unseen").bare).nll().mean())
        self.start = float(readings.answers(self.splits["forget"]).nll().mean())
        self.before = {name: self._probability(readings, name) for name in self.kept}
        self.way = abs(self.never - self.start) or 1e-6
        if self.start >= self.never:
            what = "the model says the forget rows no better (%.2f nats a token) than rows it never saw (%.2f): is there anything to erase?"
            log.warning(what, self.start, self.never)

    def _probability(self, readings: Readings, name: str) -> float:
        return float(np.exp(-readings.answers(self.splits[name]).nll()).mean())

    def score(self, subject: Subject) -> Score:
        """The score of a model made from the incoming one."""
        readings = Readings(subject, self.run)
        nats = float(readings.answers(self.splits["forget"]).nll().mean())
        way = max(0.0, (nats - self.start) / self.way)
        forgotten = way if way <= 1 else 1 / way
        kept = [self._probability(readings, name) / self.before[name] for name in self.kept]
        return Score(forgotten, min(1.0, *kept) if kept else 1.0)


def _unseen(data: Data) -> Split:
    """Rows like the forgotten ones that the model never saw: a holdout, else the wrong answers to forgotten questions.

    Raises:
        DataError: there is neither.
    """
    if "holdout" in data and len(data["holdout"]):
        return data["holdout"]
    wrong = [Example(f"{row.id}/{i}", text, row.prompt) for row in data["forget"] for i, text in enumerate(row.wrong)]
    if not wrong:
        raise DataError("Nothing shows what the model says to rows it never saw", "Give a `holdout` split of rows like those to forget")
    return Split(wrong, "unseen")


def _sample(split: Split, run: Run, name: str) -> Split:
    if len(split) <= ROWS:
        return split
    rows = np.random.default_rng(run.derived_seed("tuning", name)).choice(len(split), ROWS, replace=False)
    return Split([split[int(i)] for i in np.sort(rows)], split.name)


def other_rows(data: Data, seed: int) -> Data:
    """A forget set of the same size from rows that stay, to tune on: the real one is never touched.

    Whole groups (people, books) where rows have them. The rest of `retain` stays to be kept; what was drawn leaves every kept split.

    Raises:
        DataError: there are no rows to keep, or too few to draw from.
    """
    data.need("forget", "retain", why="to tune on other rows")
    retain = data["retain"]
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(retain):
        groups.setdefault(row.group or f"row {i}", []).append(i)
    order = list(groups)
    np.random.default_rng(seed).shuffle(order)
    drawn: set[int] = set()
    while order and len(drawn) < len(data["forget"]):
        drawn.update(groups[order.pop()])
    if 2 * len(drawn) > len(retain):
        what = f"{len(retain)} rows to keep are too few to draw {len(data['forget'])} from"
        raise DataError(what, "Tuning needs more than twice as many rows to keep as to forget; or give `trials = 0`")
    known = {(row.prompt_text, row.answer) for i, row in enumerate(retain) if i in drawn}

    def stays(row: Example) -> bool:
        return (row.prompt_text, row.answer) not in known

    kept = {name: Split([row for row in data[name] if stays(row)], name) for name in KEPT if name in data}
    forget = Split([row for i, row in enumerate(retain) if i in drawn], "forget")
    rest = {name: data[name] for name in ("holdout", "refusals") if name in data}
    return Data({"forget": forget, **{name: split for name, split in kept.items() if len(split)}, **rest}, f"{data.name}, other rows")
