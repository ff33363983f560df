"""No retain term: nothing holds the rest of the model in place."""

from __future__ import annotations

from typing import ClassVar

from letheon.core.forward import Batches
from letheon.core.settings import Settings
from letheon.core.subject import Subject
from letheon.train.parts import RetainTerm, Term


class Nothing(RetainTerm):
    """The absence of a retain term; no retain rows are read."""

    Settings, tiny = Settings, {}
    splits: ClassVar[tuple[str, ...]] = ()

    def term(self, subject: Subject, batches: Batches) -> Term | None:
        """None."""
        return None
