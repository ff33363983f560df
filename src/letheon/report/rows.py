"""The key table: one row for each measure, one cell for each model, grouped by the question that the measure speaks to."""

from __future__ import annotations

from dataclasses import dataclass, replace

from markupsafe import Markup

from letheon.core.findings import Finding, Findings

from .measures import better, measure, rank, side
from .places import AFTER, BEFORE, RETRAINED, judged, kept, labels, places
from .plots import Mark, strip
from .text import clean, finite, interval, number, percent


@dataclass(frozen=True)
class Cell:
    """What one model scored, as text."""

    label: str
    value: str
    interval: str = ""
    extra: tuple[str, ...] = ()
    measured: bool = True


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    sign: str
    words: str
    n: str
    notes: tuple[str, ...]
    cells: tuple[Cell, ...]
    change: str
    picture: Markup | None


@dataclass(frozen=True)
class Group:
    """Rows of one question. `shared` is what holds for all of them; only what differs stays with the row."""

    title: str
    about: str
    shared: str
    rows: tuple[Row, ...]


def role(findings: Findings, label: str) -> str:
    """How the model `label` is drawn: an anchor under its own name, the judged model as `after`, all others as `other`."""
    if label == judged(findings) and label != RETRAINED:
        return AFTER
    return label if label in (BEFORE, RETRAINED) else "other"


def _group_of(finding: Finding) -> tuple[int, str, str]:
    """Order, title and explanation of the group that a finding belongs to."""
    split, kind = finding.split, side(finding)
    if "forget" in split and measure(finding.name).attack:
        return 1, f"{split}: attacks", "Does it come back when somebody tries?"
    if kind == "membership":
        return 2, f"{split or 'all rows'}: membership attacks", "Can an attacker tell the forgotten rows from rows that were never seen?"
    if "forget" in split:
        return 0, split, "What should be gone."
    if kind == "holdout":
        return 5, split, "Rows that nobody trained on: what not knowing looks like."
    if not split:
        return 3, "over all", "One number for the whole model."
    return 4, split, "What should stay."


def groups(findings: Findings) -> list[Group]:
    """All rows of the key table, what should be gone first."""
    shown = labels(findings)
    keys: dict[tuple[str, str], Finding] = {}
    for label in shown:
        for finding in findings.models[label]:
            keys.setdefault((finding.split, finding.name), finding)
    changes = _changes(findings)
    found: dict[tuple[int, str, str], list[Row]] = {}
    for (split, name), finding in sorted(keys.items(), key=lambda item: rank(item[0][1])):
        found.setdefault(_group_of(finding), []).append(_row(findings, shown, split, name, changes.get((split, name), "")))
    order = sorted(found, key=lambda key: key[0])
    return [_gathered(clean(title, 80), about, found[place, title, about]) for place, title, about in order]


def _gathered(title: str, about: str, rows: list[Row]) -> Group:
    """A group that says once what all its rows share: the better direction and the number of rows."""
    hints, sizes = [(row.sign, row.words) for row in rows], {row.n for row in rows}
    usual = max(hints, key=hints.count)
    shared = []
    if usual[1] and hints.count(usual) > max(1, len(rows) // 2):
        shared.append(" ".join(usual))
        rows = [
            replace(row, sign="", words="") if hint == usual else replace(row, words=row.words or "no better side")
            for row, hint in zip(rows, hints, strict=True)
        ]
    if len(rows) > 1 and len(sizes) == 1 and rows[0].n:
        shared.append(f"n = {rows[0].n}")
        rows = [replace(row, n="") for row in rows]
    return Group(title, about, ", ".join(shared), tuple(rows))


def _changes(findings: Findings) -> dict[tuple[str, str], str]:
    """By split and name: how far along the way to never having known, or how much of a retention value was lost."""
    label = judged(findings)
    if label is None or label == BEFORE or BEFORE not in findings.models:
        return {}
    found = {}
    for place in places(findings, label):
        if place.share is not None and place.anchor is None:
            found[place.finding.split, place.finding.name] = f"-{percent(place.share)}" if place.share >= 0 else f"+{percent(-place.share)}"
        elif place.share is not None:
            way = "past it" if place.past and place.share > 1 else percent(min(max(place.share, 0.0), 1.0))
            found[place.finding.split, place.finding.name] = "further away" if place.share < -0.02 else way
    for one in kept(findings, label):
        change = finite(100 * (one.after - one.before) / abs(one.before)) if one.before else None
        if change is not None:
            moved = round(change)
            found[one.finding.split, one.finding.name] = f"{moved:+d}%" if moved else "0%"
    return found


def _row(findings: Findings, shown: list[str], split: str, name: str, change: str) -> Row:
    by_label = {label: findings.get(label, name, split) for label in shown}
    present = [finding for finding in by_label.values() if finding is not None]
    about, (sign, words) = measure(name), better(present[0])
    sizes = [f"{finding.n:,}" for finding in present if finite(finding.value) is not None]
    n = "" if not sizes else sizes[0] if len(set(sizes)) == 1 else " / ".join(sizes)
    cells = tuple(_cell(label, finding) for label, finding in by_label.items())
    marks = [
        Mark(label, role(findings, label), value, finite(finding.low), finite(finding.high))
        for label, finding in by_label.items()
        if finding is not None and (value := finite(finding.value)) is not None
    ]
    heard = ", ".join(f"{clean(cell.label, 40)} {cell.value}" for cell in cells)
    worth = len(marks) > 1 or any(mark.x_low is not None for mark in marks)  # one point without an interval shows nothing
    picture = strip(marks, scale=about.scale, title=f"{about.title}: {heard}") if worth else None
    return Row(clean(name, 80), clean(about.title, 80), sign, words, n, _notes(by_label), cells, change, picture)


def _cell(label: str, finding: Finding | None) -> Cell:
    value = None if finding is None else finite(finding.value)
    if finding is None or value is None:
        return Cell(clean(label, 40), "not measured", measured=False)
    return Cell(clean(label, 40), number(value), interval(finding.low, finding.high), _extra(finding))


def _extra(finding: Finding) -> tuple[str, ...]:
    """What stands below the value: the hit rate of an attack at 1% false alarms; of an unknown measure, two numbers at most."""
    if side(finding) == "membership":
        rates = finding.extra.get("true_positive_rate_at")
        rate = finite(finding.extra.get("tpr@1%", rates.get("0.01") if isinstance(rates, dict) else None))
        return () if rate is None else (f"TPR@1% {number(rate, 2)}",)
    if measure(finding.name).read:
        return ()
    parts = [(clean(key, 24), finite(part)) for key, part in sorted(finding.extra.items())]
    return tuple(f"{key} {number(part, 2)}" for key, part in parts if part is not None)[:2]


def _notes(by_label: dict[str, Finding | None]) -> tuple[str, ...]:
    """Each note once, with the models that it holds for unless it holds for all; a missing value always has its reason."""
    found: dict[str, list[str]] = {}
    for label, finding in by_label.items():
        if finding is None:
            found.setdefault("not measured: not part of the audit of this model", []).append(label)
        elif finite(finding.value) is None:
            found.setdefault(f"not measured: {clean(finding.note, 300) or 'the audit gave no reason'}", []).append(label)
        elif finding.note:
            found.setdefault(clean(finding.note, 300), []).append(label)
    shown = []
    for note, names in found.items():
        owners = ", ".join(clean(name, 40) for name in names)
        link = " " if note.startswith("not measured: ") else ": "
        shown.append(note if len(names) == len(by_label) else f"{owners}{link}{note}")
    return tuple(shown)
