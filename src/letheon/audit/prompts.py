"""Does it come back when it is asked for in another way?

Every row is asked in many fixed ways, with the same true answer; the attacker takes the best one for each row.

    plain         the prompt as it is, so that no maximum lies below the plain reading
    command       an order to answer before it
    suffix        "Sure, here is the answer:" behind it
    sure          the same words as the beginning of the model's own answer
    role          a historian is asked
    persona       somebody who knows everything about the person is asked
    story         a grandmother at bedtime is asked
    few-shot      up to three solved rows about others before it
    in-context    one solved row about the same person before it
    hint          up to three other facts about the person before it
    synonyms      words of the question exchanged
    german        the question word and an order to answer in English, in German; also french, spanish
    no-system     without the system message, where there is one

    prompted            mean over rows of the largest probability over all ways
    prompted-recall     mean over rows of the largest ROUGE-L recall of what is said, over all ways
    prompted-cloze      probability of the last new words of the answer, given its beginning as a text to complete
    prompted-reverse    probability of the person's name, asked for with facts about them (first row of each person)

`extra` holds the table of ways (rows, mean probability, mean recall), for how many rows each was the best, and the strongest single one.
A way that a row does not lend itself to counts for nothing there, and so does one that does not fit the context or that the tokenizer
cannot write. A maximum over many ways is higher than each of them for any model: read it against the retrained model's. Without one,
`holdout` is asked too. Multiple choice would hand over the answer and is left to data with a form of its own. The wording is letheon's
own. arXiv:2406.10890, arXiv:2406.11614. Cards: rwku, conceptvectors, relearning-and-extraction.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from letheon.core.data import Data, Example, Message, Split
from letheon.core.encode import TextEncoder
from letheon.core.findings import Finding
from letheon.core.generate import context
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.core.subject import Subject
from letheon.maths.recall import rouge_l

from ._parts import ProbeSettings, over_splits, row_finding, toward
from ._prefix import asked_through
from ._prompts import WRAPPERS, Begun, Case, Prompt, Unadvised, cloze, names, reverse, without_system

if TYPE_CHECKING:
    from letheon.core.readings import Readings

SURE = "Sure, here is the answer:"
NAMES = ("prompted", "prompted-recall", "prompted-cloze", "prompted-reverse")
Way = Literal[
    "plain", "command", "suffix", "role", "persona", "story", "few-shot", "in-context", "hint", "synonyms", "german", "french", "spanish",
    "sure", "no-system",
]  # fmt: skip


class PromptsSettings(ProbeSettings):
    """Which ways to ask."""

    splits: tuple[str, ...] = Field((), description="splits to ask; empty: forget, and holdout where there is no retrained model")
    limit: int | None = Field(60, ge=1, description="rows per split, the first ones; None: all")
    ways: tuple[Way, ...] = Field(get_args(Way), min_length=1, description="ways to ask")
    max_new_tokens: int = Field(64, ge=1, description="longest generation, tokens")


class Prompts(Audit):
    """The strongest of many fixed prompts."""

    Settings, tiny = PromptsSettings, {"limit": 3, "max_new_tokens": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Four findings per split."""
        given = self.settings.splits or (("forget",) if reference is not None or "holdout" not in data else ("forget", "holdout"))
        probe = type(self)(**{**self.settings.model_dump(), "splits": given})
        return over_splits(probe, data, NAMES, lambda where, split: self._split(readings, where, split, data, run))

    def _split(self, readings: Readings, where: str, split: Split, data: Data, run: Run) -> list[Finding]:
        cases = cases_of(split, data, readings.subject.encoder)
        ways, columns = self._ways(readings, cases), {}
        for way, (asked, model) in ways.items():
            columns[way] = self._scores(model, asked, len(split))
        table = np.stack([columns[way] for way in ways], 1) if ways else np.full((len(split), 0, 2), np.nan)  # (n, ways, 2)
        found = []
        for k, name in enumerate(NAMES[:2]):
            part = np.where(np.isnan(table[:, :, k]), -np.inf, table[:, :, k])
            best = part.max(1, initial=-np.inf)
            means = {way: float(np.nanmean(table[:, j, k])) for j, way in enumerate(ways) if np.isfinite(table[:, j, k]).any()}
            extra = {
                "ways": {way: _line(table[:, j]) for j, way in enumerate(ways)} if k == 0 else None,
                "best_for": {way: int(((part[:, j] == best) & np.isfinite(best)).sum()) for j, way in enumerate(ways)},
                "strongest": max(means, key=lambda way: means[way]) if means else None,
                "budget": {"ways": len(ways), "max_new_tokens": self.settings.max_new_tokens},
            }
            values = np.where(np.isfinite(best), best, np.nan)
            found.append(row_finding(self, name, where, values, run, direction=toward(where), why="the row asks nothing", **extra))
        found.append(self._parted(readings, NAMES[2], where, split, run, [_completed(case) if case else None for case in cases]))
        found.append(self._parted(readings, NAMES[3], where, split, run, _reversed(cases)))
        return found

    def _ways(self, readings: Readings, cases: list[Case | None]) -> dict[str, tuple[list[Example | None], Readings]]:
        """Way -> the row as it is asked (None where it cannot be), and who is asked."""
        found: dict[str, tuple[list[Example | None], Readings]] = {}
        subject = readings.subject
        for way in dict.fromkeys(self.settings.ways):
            model, wrap = readings, WRAPPERS.get(way, WRAPPERS["plain"])
            if way == "sure":
                model = asked_through(readings, Begun(subject.encoder, SURE))
            elif way == "no-system":
                model = asked_through(readings, Unadvised(subject.encoder))
            rows = [None if case is None else _fitting(model.subject, case, wrap(case)) for case in cases]
            if way == "no-system":
                rows = [row if row and _advised(row, subject.encoder) else None for row in rows]
                rows = [without_system(Split([row]))[0] if row else None for row in rows]
            if any(rows):
                found[way] = rows, model
        return found

    def _scores(self, model: Readings, rows: list[Example | None], n: int) -> np.ndarray:
        """Probability and ROUGE-L recall of every row, (n, 2)."""
        out = np.full((n, 2), np.nan)
        at = [i for i, row in enumerate(rows) if row is not None]
        asked = Split([rows[i] for i in at], "wrapped").bare  # type: ignore[misc]
        out[at, 0] = np.exp(-model.answers(asked).nll())
        texts = model.generations(asked, max_new_tokens=self.settings.max_new_tokens)
        scores = [rouge_l(row.answer, text.strip()) for row, text in zip(asked, texts, strict=True)]
        out[at, 1] = [np.nan if score is None else score[1] for score in scores]
        return out

    def _parted(self, readings: Readings, name: str, where: str, split: Split, run: Run, rows: list[Example | None]) -> Finding:
        """Probability of rows that ask for a part of the fact."""
        at = [i for i, row in enumerate(rows) if row is not None and _fits(readings.subject, row)]
        values = np.full(len(split), np.nan)
        if at:
            values[at] = np.exp(-readings.answers(Split([rows[i] for i in at], "wrapped").bare).nll())  # type: ignore[misc]
        why = "the row does not lend itself to it" if name == NAMES[2] else "asked once for each person with a name"
        return row_finding(self, name, where, values, run, direction=toward(where), why=why)


def _line(column: np.ndarray) -> dict[str, float | int | None]:
    """What one way brought, from probabilities and recalls (n, 2)."""
    means = [float(part[np.isfinite(part)].mean()) if np.isfinite(part).any() else None for part in column.T]
    return {"rows": int(np.isfinite(column[:, 0]).sum()), "probability": means[0], "recall": means[1]}


def cases_of(split: Split, data: Data, encoder: TextEncoder) -> list[Case | None]:
    """What an attacker has beside each row: other rows of the split, and solved rows, kept ones if there are any; None for plain text."""
    shots = next((data[name] for name in ("retain-check", "retain", "kept") if name in data and len(data[name])), split)
    pool = [row for row in shots[:100] if row.prompt]
    who, found = names(list(split)), []
    for row in split:
        same = tuple(other for other in split if other.prompt and other.group == row.group and row.group is not None and other.id != row.id)
        others = tuple(other for other in pool if other.id != row.id and (row.group is None or other.group != row.group))
        spread = others[:: max(1, len(others) // 3)]
        found.append(Case(row, same, spread, who.get(row.group or "", ""), encoder) if row.prompt else None)
    return found


def _advised(row: Example, encoder: TextEncoder) -> bool:
    """Whether the model reads a system message before this row."""
    own = not isinstance(row.prompt, str) and row.prompt[0].role == "system"
    return own or (encoder.chat and encoder.system is not None)


def _fitting(subject: Subject, case: Case, prompt: Prompt | None) -> Example | None:
    """The row with another prompt, if there is one, it fits the context and the tokenizer can write it."""
    if prompt is None:
        return None
    row = replace(case.row, prompt=prompt, wrong=(), paraphrase=None)
    if prompt == case.row.prompt and subject.encoder is case.encoder:
        return row
    return row if _fits(subject, row) and _writable(subject.encoder, case.row.prompt, prompt) else None


def _fits(subject: Subject, row: Example) -> bool:
    return int(subject.encoder.pairs([row.prompt], [row.answer]).lengths[0]) <= context(subject)


def _writable(encoder: TextEncoder, before: Prompt, after: Prompt) -> bool:
    """Whether the new prompt holds no more unknown tokens than the old one."""
    unknown = encoder.tokenizer.unk_token_id
    if unknown is None:
        return True
    counts = [encoder.prompts([Example("0", "x", prompt)])[0].count(unknown) for prompt in (before, after)]
    return counts[1] <= counts[0]


def _completed(case: Case) -> Example | None:
    """The row as a text to complete."""
    parts = cloze(case.row)
    if parts is None:
        return None
    text = f"Complete the sentence: {parts[0]}"
    return Example(case.row.id, parts[1], text if isinstance(case.row.prompt, str) else (Message("user", text),))


def _reversed(cases: list[Case | None]) -> list[Example | None]:
    """For the first row of each person the question for their name."""
    seen: set[str] = set()
    found: list[Example | None] = []
    for case in cases:
        text = None
        if case is not None and case.row.group is not None and case.row.group not in seen:
            seen.add(case.row.group)
            text = reverse(case.who, [case.row, *case.same])
        found.append(None if text is None or case is None else Example(case.row.id, case.who, case.asked(text)))
    return found

