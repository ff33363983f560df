"""The verdict: one sentence that a person may act on, a pure function of the findings.

It places the judged model between two anchors, `before` (knows the rows) and `retrained` (never knew them), on every forget-side
measure and every attack, and says what happened to the rest. The word in front comes from the FIRST measure, the one that opens the
sentence, and from the WORST: where the first looks gone and the worst does not, the model hides. The sentence names every attack that
works: no good score can hide it. An attack works if more than a fifth of the way between the anchors is not gone under it and its interval,
widened for the number of measures, does not hold the anchor. What was not measured is said, never counted as passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from letheon.core.findings import Findings

from .phrases import (
    BROKEN,
    DAMAGED,
    TOLD_APART,
    Clause,
    brought_back,
    headline,
    leftovers,
    missing,
    other_forms,
    pushed,
    retention_clauses,
    test,
    told_apart,
)
from .places import BEFORE, Place, judged, kept, places

Tone = Literal["good", "partly", "bad", "unknown"]

SHOWN = ("probability", "rouge-l-recall")  # what somebody sees who only asks
MOSTLY, LITTLE = 0.8, 0.25  # share of the way: from the first on "mostly", up to the second "not"


@dataclass(frozen=True)
class Verdict:
    """The word in front, its tone, and the clauses that carry it; `least` is the smallest share of the way over all
    measures, of the measure called `worst`; `lost` is the largest share lost of a retention value, `first` the share of the way of the
    measure that opens the sentence."""

    word: str
    tone: Tone
    clauses: tuple[Clause, ...]
    least: float | None = None
    worst: str = ""
    lost: float | None = None
    first: float | None = None

    @property
    def sentence(self) -> str:
        return f"{self.word}: {'; '.join(clause.text for clause in self.clauses)}."

    def __str__(self) -> str:
        return self.sentence


def verdict(findings: Findings, label: str | None = None) -> Verdict:
    """Judge the model `label` (default: `after`, or the only model)."""
    label = judged(findings) if label is None else label
    if label is None:
        return Verdict("No verdict", "unknown", (Clause("Not measured", "the findings hold no model"),))
    placed, retention, p_value = places(findings, label), kept(findings, label), told_apart(findings, label)
    compared = label != BEFORE and BEFORE in findings.models
    clauses = [
        *headline(placed, compared),
        *(other_forms(placed) if compared else ()),
        *(brought_back(placed, findings, label) if compared else ()),
        *leftovers(placed, compared),
        *pushed(placed),
        *test(p_value),
        *retention_clauses(retention, compared),
        *missing(findings, label, placed, retention),
    ]
    worst = min((place for place in placed if place.share is not None), key=lambda place: place.share, default=None)
    lost = max((one.lost for one in retention if one.lost is not None), default=None)
    word, tone = _word(placed, p_value) if compared else _word_alone(placed)
    if compared and word != "No verdict":
        word, tone = _with_cost(word, tone, lost)
    if not clauses:
        clauses = [Clause("Not measured", "nothing was measured that a verdict could rest on")]
    first = next((place.share for place in placed if place.share is not None), None)
    least, name = (None, "") if worst is None else (worst.share, worst.label)
    return Verdict(word, tone, tuple(clauses), least, name, lost, first)


def _word(placed: list[Place], p_value: float | None) -> tuple[str, Tone]:
    shares = [place.share for place in placed if place.share is not None]
    first = next((place.share for place in placed if place.share is not None), None)
    if first is None:
        return "No verdict", "unknown"
    plain = [place for place in placed if place.share is not None and not place.attack and not place.membership]
    asked = [place.share for place in plain if place.finding.name in SHOWN and place.finding.split == plain[0].finding.split]
    shown = max(asked, default=first)
    anchored = bool(plain) and plain[0].anchor is not None
    least = min(shares)
    left, past = any(place.left for place in placed), any(place.past for place in placed)
    word: str
    tone: Tone
    if shown >= MOSTLY and least < MOSTLY / 2:
        word, tone = "Hidden, not gone", "bad"
    elif first < LITTLE:
        word, tone = ("Not gone" if max(shares) > 0.05 else "Unchanged"), "bad"
    elif first < MOSTLY:
        word, tone = "Partly gone", "partly"
    elif past:
        word, tone = "Pushed too far", "bad"
    elif not anchored:
        word, tone = "Much reduced", "partly"
    elif left or (p_value is not None and p_value < TOLD_APART):
        word, tone = "Mostly gone", "partly"
    else:
        word, tone = "Gone as far as measured", "good"
    if tone == "good" and not any(place.membership for place in placed):
        tone = "partly"  # nobody attacked it
    return word, tone


def _with_cost(word: str, tone: Tone, lost: float | None) -> tuple[str, Tone]:
    """The word with what it cost: nothing may be called good where the rest was not measured or suffered."""
    gone = word not in ("Not gone", "Unchanged")
    if lost is None:
        return word, "partly" if tone == "good" else tone
    if lost >= BROKEN:
        return (f"{word}, and much of the rest with it" if gone else "Not gone, but much of the rest is"), "bad"
    if lost >= DAMAGED:
        return f"{word}, at a cost to the rest", "partly" if tone == "good" else tone
    return word, tone


def _word_alone(placed: list[Place]) -> tuple[str, Tone]:
    """Without a model from before the change only the distance to never having known can be judged."""
    judged = [place for place in placed if place.excess is not None and not (place.attack and place.anchor_name == "chance")]
    if not judged:
        return "No verdict", "unknown"
    if any((place.excess or 0) > 0.1 and not place.held for place in judged):
        return "Known", "bad"
    if any(place.past for place in placed):
        return "Marked", "bad"
    direct = any(not place.attack and not place.membership for place in judged)
    return ("Not seen to know them", "good") if direct else ("No sign of membership", "partly")
