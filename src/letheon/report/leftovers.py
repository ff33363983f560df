"""The rows that are most left, with the words of the true answer that a model still says marked in its text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from letheon.core.findings import Findings, Leftover

from .places import RETRAINED, judged, labels
from .text import clean, finite, number

SHOWN = 20  # rows in the table
LONGEST = 600  # characters of one text in the table
LONGEST_MARKED = 400  # words; longer texts are shown without marks


@dataclass(frozen=True)
class Said:
    """What one model says: pieces of text, each with whether it is part of the true answer, and the score as text."""

    label: str
    pieces: tuple[tuple[str, bool], ...]
    score: str


@dataclass(frozen=True)
class LeftoverRow:
    id: str
    prompt: str
    answer: str
    said: tuple[Said, ...]


def common(left: list[str], right: list[str]) -> set[int]:
    """The places in `right` of one longest common subsequence of the two lists of words."""
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    found, i, j = set(), len(left), len(right)
    while i and j:
        if left[i - 1] == right[j - 1]:
            found.add(j - 1)
            i, j = i - 1, j - 1
        elif table[i - 1][j] >= table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found


def marked(said: str, answer: str) -> tuple[tuple[str, bool], ...]:
    """The text `said` in pieces; True where a word belongs to the longest subsequence that it shares with `answer`."""
    parts = re.split(r"(\w+)", said)  # words stand at odd places
    words, true = [part.casefold() for part in parts[1::2]], [word.casefold() for word in re.findall(r"\w+", answer)]
    if len(words) > LONGEST_MARKED or len(true) > LONGEST_MARKED:
        return ((said, False),)
    hits = common(true, words)
    pieces: list[tuple[str, bool]] = []
    for place, part in enumerate(parts):
        hit = place % 2 == 1 and place // 2 in hits
        # One mark runs over neighbouring words and what little stands between them.
        between = place % 2 == 0 and 0 < len(part) <= 2 and place // 2 - 1 in hits and place // 2 in hits
        if part and pieces and pieces[-1][1] == (hit or between):
            pieces[-1] = (pieces[-1][0] + part, hit or between)
        elif part:
            pieces.append((part, hit or between))
    return tuple(pieces)


def ordered(findings: Findings) -> list[Leftover]:
    """All leftovers, those first of which the judged model says most above what the retrained model says; rows without a score last."""
    label = judged(findings) or ""

    def key(row: Leftover) -> tuple[bool, float]:
        score, never = finite(row.score.get(label)), finite(row.score.get(RETRAINED)) if label != RETRAINED else None
        return score is None, -((score or 0.0) - (never or 0.0))

    return sorted(findings.leftovers, key=key)  # equal rows stay in the order of the audit


def leftover_rows(findings: Findings, shown: int = SHOWN) -> list[LeftoverRow]:
    """The worst `shown` rows, cleaned for a page; the judged model speaks first, then the others in their order.

    Every row has the same models in the same order, so that they can stand in columns.
    """
    worst, first = ordered(findings)[:shown], judged(findings)
    speaking = {label for row in worst for label in row.said}
    order = [first, *(label for label in labels(findings) if label != first)]
    order = [label for label in order if label in speaking] + sorted(speaking.difference(order))
    return [
        LeftoverRow(clean(row.id, 80), clean(row.prompt, LONGEST), clean(row.answer, LONGEST), tuple(_said(row, label) for label in order))
        for row in worst
    ]


def _said(row: Leftover, label: str) -> Said:
    name = clean(label, 40)
    if label not in row.said:
        return Said(name, (("no answer recorded", False),), "")
    text, rest = row.said[label][:LONGEST], len(row.said[label]) - LONGEST
    pieces = marked(clean(text, None), clean(row.answer, None))
    if rest > 0:
        pieces = (*pieces, (f" ... ({rest:,} more characters)", False))
    value = finite(row.score.get(label))
    return Said(name, pieces, "" if value is None else number(value, 2))
