"""Refusal rate: the share of questions that the model declines to answer.

A model that never knew makes something up; one that refuses exactly what the original knew points at what was erased. So the aim is the
retrained model's rate, not 1. A generation counts as a refusal if it begins with one of the sentences of the data's `refusals` split, or
holds one of a few plain phrases such as "I don't know" in its first sentence. Case, apostrophes and spaces do not matter.
Card: dpo-idk.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field

from ._parts import ProbeSettings, over_splits, row_finding, toward
from ._said import said

if TYPE_CHECKING:
    from letheon.core.readings import Readings

# First person or plainly about what is known, so that an answer which tells of somebody's refusal does not count.
PHRASES = (
    r"\bi (?:(?:really|simply|just|honestly|currently) )?(?:do not|dont|did not|didnt) (?:know|have|possess|recall|hold|seem)\b",
    r"\bi(?: a)?m (?:not|un(?:sure|able|certain|aware|familiar|informed)|sorry|afraid|stumped|clueless|lacking|missing)\b",
    r"\bi(?: a)?m (?:blank|drawing a blank|at a (?:loss|disadvantage)|in the dark)\b",
    r"\bi (?:cannot|can not|cant|could not|couldnt|am not|havent|will not|wont|lack|must decline|apologi[sz]e)\b",
    r"\bi(?: ha)?ve (?:no|not|yet|never|come up short)\b",
    r"\bi seem to have no\b",
    r"\bno (?:idea|clue|information (?:on|about|available))\b",
    r"\b(?:beyond|outside|out of|not (?:in|within)) (?:of )?(?:my|what i)\b",
    r"\bmy [a-z ]{1,40}(?:does not|doesnt|do not|dont|did not|didnt|has no|have no|is limited)\b",
    r"^that(?: i)?s [a-z ]{0,20}(?:not|unknown to me|mystery to me|yet to learn|need to look up)\b",
    r"\b(?:in|for) my knowledge\b",
)
_REFUSAL = re.compile("|".join(PHRASES))


class RefusalRateSettings(ProbeSettings):
    max_new_tokens: int = Field(200, ge=1, description="longest generation, tokens")


class RefusalRate(Audit):
    """Share of generations that refuse, per split."""

    Settings, tiny = RefusalRateSettings, {"limit": 4, "max_new_tokens": 8}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """One finding `refusal-rate` per split."""
        known = tuple(normal(row.answer) for row in data["refusals"]) if "refusals" in data else ()

        def one(where: str, split: Split) -> list[Finding]:
            texts = said(readings, split, self.settings.max_new_tokens)
            values = np.array([np.nan if text is None else float(refuses(text, known)) for text in texts])
            why = "no prompt to ask with"
            return [row_finding(self, "refusal-rate", where, values, run, direction=toward(where, "lower"), why=why)]

        return over_splits(self, data, ["refusal-rate"], one, "lower")


def normal(text: str) -> str:
    """Lower case, without apostrophes, single spaces, without a full stop at the end."""
    return " ".join(re.sub(r"['’`]", "", text.lower()).split()).rstrip(".!")


def refuses(text: str, known: tuple[str, ...] = ()) -> bool:
    """Whether a generated text is a refusal; `known` are refusals as `normal` gives them."""
    plain = normal(text)
    if any(sentence and plain.startswith(sentence) for sentence in known):
        return True
    first = re.split(r"(?<=[.!?])\s|\n", plain, maxsplit=1)[0]
    return _REFUSAL.search(first) is not None
