"""Coresets on the command line: the method is given some of the forget rows, the audit sees them all."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from letheon.core import registry
from letheon.core.data import Data
from letheon.core.settings import Choice

if TYPE_CHECKING:
    from letheon.core.run import Run
    from letheon.core.subject import Subject

log = logging.getLogger("letheon")


class Selection:
    """Which of the forget rows a method is given: all, where no curator was asked for.

    Raises:
        MethodError: there is no curator of that name.
        SettingsError: a setting of it is unknown or out of bounds.
    """

    def __init__(self, choice: Choice | None):
        self.curator = None if choice is None else registry.make(choice, "select")
        self.chosen: Data | None = None
        self.notes: dict[str, Any] = {}

    def given(self, data: Data, subject: Subject, run: Run) -> Data:
        """The data for the method, chosen by what `subject` says before the change."""
        if self.curator is None:
            return data
        self.chosen = self.curator.curate(data, run, subject.to(run.device))
        counts = {"rows": len(self.chosen["forget"]), "of": len(data["forget"])}
        self.notes = {"name": self.curator.name(), **self.curator.settings.model_dump(mode="json"), **counts}
        log.info("%s: the method is given %d of %d rows to forget", self.curator.name(), counts["rows"], counts["of"])
        return self.chosen

    def noted(self, after: Subject) -> Subject:
        """The changed model with the selection on record in its last step."""
        if self.notes:
            step = after.lineage[-1]
            after.lineage = (*after.lineage[:-1], dataclasses.replace(step, notes={**step.notes, "select": self.notes}))
        return after

    def seen(self, data: Data) -> Data:
        """The data for the audit: all rows in `forget`, and beside them `forget-chosen` and `forget-rest`."""
        if self.chosen is None:
            return data
        data = data.with_split("forget-chosen", self.chosen["forget"])
        return data.with_split("forget-rest", self.chosen["forget-rest"]) if "forget-rest" in self.chosen else data
