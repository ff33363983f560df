"""Try a few good combinations within a time budget; return the best, with the table of what was tried.

    forgotten   how near the forget rows have come to rows that the model never saw (0 to 1, pushed past counts as short of it)
    kept        answer probability on rows that stay, relative to the incoming model

The best try has the largest `forgotten` among those with kept >= 1 - `utility_loss`; where there is none, the largest harmonic mean of
both, and a warning says so. Each combination starts from a step size that suits the model's size and looks for its own: smaller after a try
that lost too much, larger after one that forgot too little. Tries take turns over the combinations until the minutes are over; the first
always ends. Unseen rows come from the split `holdout`, or from wrong answers to the forgotten questions. No retrain is needed or seen.
Ours. The combinations are robust ones to begin with, not the winners of docs/results.md (there `ce-u`, and NPO with more steps, do better);
`combinations` takes others. Card: npo.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from letheon.core.data import Data
from letheon.core.errors import MethodError, SettingsError
from letheon.core.method import Change
from letheon.core.registry import find, load, make
from letheon.core.run import Run, kept_as_found
from letheon.core.settings import Choice, Field, Settings
from letheon.core.subject import Subject
from letheon.train.guarded import unguarded

from ._tuning import Score, Yardstick

log = logging.getLogger("letheon")
FACTOR = 10**0.5  # between the step sizes of one combination
ENOUGH = 0.95  # of the way to rows never seen: no larger step is tried
SMALL = 3e6  # parameters of a model that learns well at 1e-3


class AutoSettings(Settings):
    """What may be spent, and what may be lost."""

    minutes: float = Field(10.0, gt=0, description="time for all tries together; the first try always ends")
    utility_loss: float = Field(0.05, ge=0, lt=1, description="share of the answer probability on rows that stay that may be lost")
    tries: int = Field(12, ge=1, description="tries at most")
    combinations: tuple[Choice, ...] = Field(
        ("npo:beta=0.05", "simnpo:beta=1.0,forget_weight=0.5", "npo:beta=0.05,rule=geometric"),  # type: ignore[assignment]
        min_length=1,
        description="erasing methods with their settings; those that name a `learning_rate` keep it",
    )


@dataclass
class _Search:
    """The step sizes of one combination."""

    choice: Choice
    rate: float | None
    tried: list[tuple[float, bool, bool]] = field(default_factory=list)  # step size, lost too much, forgot enough

    def next(self) -> float | None:
        """The next step size, or None where nothing is left to try."""
        if self.rate is None or not self.tried:
            return self.rate
        over = [rate for rate, lost, _ in self.tried if lost]
        under = [rate for rate, lost, enough in self.tried if not lost and not enough]
        if over and under:
            low, high = max(under), min(over)
            return (low * high) ** 0.5 if high / low > 1.5 else None
        if over:
            return min(over) / FACTOR
        return max(under) * FACTOR if under and len(under) == len(self.tried) else None


class Auto(Change):
    """The best of a few combinations."""

    Settings = AutoSettings
    tiny = {"combinations": ["npo:steps=2", "grad-ascent:steps=2"], "tries": 2, "minutes": 60.0, "utility_loss": 0.9}

    def __init__(self, /, **values: Any):
        super().__init__(**values)
        for choice in self.settings.combinations:
            if not issubclass(load(find(choice.name, "erase").name, "erase"), Change) or choice.name == "auto":
                raise SettingsError(f"`{choice.name}` is no combination that `auto` can try", "`letheon methods erase` lists them")
            make(choice, "erase")  # a wrong value shows now

    @unguarded
    def apply(self, subject: Subject, data: Data, run: Run) -> Subject:
        """Try, and return the best.

        Raises:
            DataError: nothing shows what the model says to rows it never saw.
            MethodError: every try failed.
        """
        subject.check_finite()
        with kept_as_found(subject.module):  # every try starts from it, so none may take it over
            return self._best(Subject(subject.module, subject.encoder, subject.lineage, subject.name, stored=subject.stored), data, run)

    def _best(self, subject: Subject, data: Data, run: Run) -> Subject:
        before, yardstick = subject.digest, Yardstick(subject, data, run)
        searches, table, began = [_Search(choice, _first(choice, subject)) for choice in self.settings.combinations], [], time.monotonic()
        best: tuple[tuple[bool, float], Subject, dict[str, Any]] | None = None
        for search in self._turns(searches, table, began):
            rate = search.next()
            named = {} if rate is None or "learning_rate" in search.choice.settings else {"learning_rate": rate}
            entry, after, score = self._tried(search.choice, named, subject, data, run, yardstick)
            table.append(entry)
            lost = score is None or score.kept < 1 - self.settings.utility_loss
            search.tried.append((rate or 0.0, lost, score is not None and score.forgotten >= ENOUGH))
            if score is not None:
                rank = (not lost, score.forgotten if not lost else score.score)
                if best is None or rank > best[0]:
                    best = rank, after, entry
        if best is None:
            raise MethodError(f"None of {len(table)} tries of `auto` went through: {table[0]['failed']}")
        (fine, _), after, entry = best
        if not fine:
            log.warning("no try kept %.0f%% of what stays; the best of them lost more", 100 * (1 - self.settings.utility_loss))
        notes = {"chosen": entry, "within": fine, "tried": table, "seconds": round(time.monotonic() - began, 1)}
        return subject.changed(after.module, self, data=data.digest, before=before, seed=run.seed, notes=notes)

    def _turns(self, searches: list[_Search], table: list[dict[str, Any]], began: float):
        """Combinations in turn, while tries and time are left and any has something to try."""
        while True:
            open_ = [search for search in searches if not search.tried or (search.rate is not None and search.next() is not None)]
            if not open_:
                return
            for search in open_:
                spent = time.monotonic() - began
                ahead = max((entry["seconds"] for entry in table if entry["method"] == search.choice.name), default=0.0)
                if len(table) >= self.settings.tries or (table and spent + ahead > 60 * self.settings.minutes):
                    return
                yield search

    def _tried(
        self, choice: Choice, named: dict[str, Any], subject: Subject, data: Data, run: Run, yardstick: Yardstick
    ) -> tuple[dict[str, Any], Subject | None, Score | None]:
        began = time.monotonic()
        method = make(Choice(**{"name": choice.name, **choice.settings, **named}), "erase")
        entry: dict[str, Any] = {"method": choice.name, "settings": {**choice.settings, **named}}
        after = score = None
        try:
            after = method.apply(subject, data, Run(run.seed, device=str(run.device), dtype=run.dtype, progress=run.progress))
            score = yardstick.score(after)
            entry |= {"forgotten": round(score.forgotten, 4), "kept": round(score.kept, 4)}
        except MethodError as error:
            entry["failed"] = str(error)
        entry["seconds"] = round(time.monotonic() - began, 1)
        shown = f"forgotten {score.forgotten:.2f}, kept {score.kept:.2f}" if score else entry["failed"]
        log.info("%s: %s, %s s", ", ".join([choice.name, *(f"{k} {v}" for k, v in entry["settings"].items())]), shown, entry["seconds"])
        return entry, after, score


def _first(choice: Choice, subject: Subject) -> float | None:
    """The first step size: 1e-3 for a model of three million parameters, less by the root of its size; None where there is none."""
    if "learning_rate" in choice.settings or "learning_rate" not in load(choice.name, "erase").Settings.model_fields:
        return None
    size = sum(parameter.numel() for parameter in subject.module.parameters())
    return float(f"{1e-3 * min(1.0, (SMALL / size) ** 0.5):.2g}")
