"""Whatever the model says now: does it carry something of what was to be forgotten?

A model may answer wrongly and still speak from the forgotten rows: the right fact about the wrong person, or another forgotten fact. What
it says to each row is compared with ALL forgotten answers, not with the row's own alone.

    content(text) = words of the text that the question does not hold, ordinary words left out, as a TF-IDF vector of length 1
    idf(word)     = 1 + log((1 + d) / (1 + answers that hold it)), over the d forgotten and kept answers: words of every answer weigh little
    s_i = max_j <content(said_i), content(answer_j)>        j over all forgotten rows

    said-nearest      mean_i s_i
    said-forgotten    share of rows with s_i >= similarity

An answer said word for word gives 1 (where it has content), an answer without a content word of any forgotten row gives 0. `extra` holds
the share whose nearest answer is the row's own, and the worst rows. Forgotten answers share words with kept ones, so a model that never
knew is above 0: read it against the retrained model. Without one, `holdout` is asked too. Card: relearning-and-extraction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from letheon.core.data import Data, Example, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field

from ._content import telling
from ._parts import ProbeSettings, missing, nothing, over_splits, row_finding, toward
from ._said import said

if TYPE_CHECKING:
    from letheon.core.readings import Readings

NAMES = ("said-nearest", "said-forgotten")
WORST, LONGEST = 5, 200  # rows shown, characters of each


class SaidBeforeSettings(ProbeSettings):
    splits: tuple[str, ...] = Field((), description="splits to ask; empty: forget, and holdout where there is no retrained model")
    limit: int | None = Field(None, ge=1, description="rows that are asked per split, the first ones; None: all")
    known: str = Field("forget", description="split whose answers must not turn up")
    similarity: float = Field(0.5, gt=0, le=1, description="cosine from which content counts as carried")
    background: int = Field(2000, ge=0, description="kept rows whose answers say which words are ordinary")
    max_new_tokens: int = Field(64, ge=1, description="longest generation, tokens")


class SaidBefore(Audit):
    """Nearest forgotten answer to what is said."""

    Settings, tiny = SaidBeforeSettings, {"limit": 4, "max_new_tokens": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Two findings per split."""
        given = self.settings.splits or (("forget",) if reference is not None or "holdout" not in data else ("forget", "holdout"))
        note = missing(data, self.settings.known)
        if note:
            return [nothing(self, name, note, where) for where in given for name in NAMES]
        known = data[self.settings.known]
        kept = next((data[name] for name in ("retain", "kept", "retain-check") if name in data), ())
        others = list(kept[: self.settings.background])
        probe = type(self)(**{**self.settings.model_dump(), "splits": given})
        return over_splits(probe, data, NAMES, lambda where, split: self._split(readings, where, split, known, others, run))

    def _split(self, readings: Readings, where: str, split: Split, known: Split, others: list[Example], run: Run) -> list[Finding]:
        texts = said(readings, split, self.settings.max_new_tokens)
        asked = [i for i, text in enumerate(texts) if text is not None]
        answers = [telling(row) for row in known]
        spoken = [telling(split[i], texts[i]) for i in asked]
        values, nearest, mine = np.full(len(split), np.nan), {}, {}
        place = {row.id: j for j, row in enumerate(known)}
        if asked and any(answers):
            found = similarities(spoken, answers, [telling(row) for row in others])
            values[asked] = found.max(1)
            nearest = dict(zip(asked, found.argmax(1).tolist(), strict=True))
            own = [place.get(split[i].id) for i in asked]
            mine = {i: bool(line[j] > line.max() - 1e-9) for i, j, line in zip(asked, own, found, strict=True) if j is not None}
        carried = np.where(np.isfinite(values), values >= self.settings.similarity, np.nan)
        worst = sorted((i for i in asked if carried[i] == 1), key=lambda i: (-values[i], i))[:WORST]
        right = [mine[i] for i in asked if carried[i] == 1 and i in mine]
        extra: dict[str, Any] = {
            "similarity": self.settings.similarity,
            "own_row": float(np.mean(right)) if right else None,
            "known_rows": len(known),
            "worst": [_shown(split[i], texts[i] or "", known[nearest[i]]) for i in worst],
        }
        common = {"direction": toward(where), "why": "the row asks nothing, or no forgotten answer has content"}
        return [
            row_finding(self, NAMES[0], where, values, run, **common),
            row_finding(self, NAMES[1], where, carried, run, **common, **extra),
        ]


def similarities(spoken: list[tuple[str, ...]], answers: list[tuple[str, ...]], others: list[tuple[str, ...]]) -> np.ndarray:
    """Cosines of the TF-IDF vectors of what is said and of answers, (spoken, answers); `others` only help to weigh the words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    table = TfidfVectorizer(analyzer=lambda words: words).fit([*answers, *others])
    return (table.transform(spoken) @ table.transform(answers).T).toarray()


def _shown(row: Example, text: str, nearest: Example) -> dict[str, str]:
    return {"asked": row.prompt_text[:LONGEST], "said": text[:LONGEST], "forgotten": nearest.answer[:LONGEST], "row": nearest.id}
