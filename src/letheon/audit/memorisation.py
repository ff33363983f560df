"""Extraction strength and exact memorisation: how much of an answer comes back word for word.

    g_t = [greedy decoding says token t of the answer, given the true tokens before it], t = 1..T, without the end token
    exact memorisation   EM = (1 / T) sum_t g_t
    extraction strength  ES = 1 - k* / T,  k* = the smallest k with g_t = 1 for all t > k

ES <= EM, both are 1 together, and a wrong last token gives ES = 0. The OpenUnlearning toolkit ends its search at k = T - 1, so that its
least value is 1 / T and every answer of one token scores 1: `floor = "peer"` repeats that for comparisons with its tables.
Card: relearning-and-extraction, part B.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.maths.recall import exact_memorisation, extraction_strength, without_last

from ._parts import ProbeSettings, over_splits, row_finding, toward

if TYPE_CHECKING:
    from letheon.core.readings import Readings

NAMES = ("extraction-strength", "exact-memorisation")


class MemorisationSettings(ProbeSettings):
    floor: Literal["zero", "peer"] = Field("zero", description="least extraction strength: 0, or 1 / T (OpenUnlearning)")


class Memorisation(Audit):
    """Mean extraction strength and exact memorisation, per split."""

    Settings, tiny = MemorisationSettings, {"limit": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Findings `extraction-strength` and `exact-memorisation` per split."""

        def one(where: str, split: Split) -> list[Finding]:
            answers = readings.answers(split, which="answer")
            keep, offsets = without_last(answers.offsets)
            hits = answers.top[keep] == answers.target[keep]
            peer = self.settings.floor == "peer"
            values = (extraction_strength(hits, offsets, floor=peer), exact_memorisation(hits, offsets))
            notes = ("the least value is 1 / T" if peer else "", "")
            return [
                row_finding(self, name, where, value, run, direction=toward(where), note=note, why="no token but the end token")
                for name, value, note in zip(NAMES, values, notes, strict=True)
            ]

        return over_splits(self, data, NAMES, one)
