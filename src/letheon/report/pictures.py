"""Which findings the two large pictures show: the trade-off between forgetting and retention, and the spread over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from letheon.core.findings import Finding, Findings

from .measures import PREFIX, kept_when, measure, side
from .places import FIRST_FORGET, FIRST_KEPT, RETRAINED, judged, labels
from .plots import Mark, bounds, counts, histogram, tradeoff
from .rows import role
from .text import clean, finite, number, percent

BINS = 25


@dataclass(frozen=True)
class Picture:
    """A drawn picture with the sentence below it, or None with the reason why there is none."""

    drawing: Markup | None
    words: str


def axes(findings: Findings) -> tuple[Finding | None, Finding | None]:
    """The findings of the judged model that span the trade-off plot: what opens the verdict on either side."""
    label = judged(findings)
    found = [f for f in findings.models.get(label or "", ()) if finite(f.value) is not None]
    sided = [f for f in found if side(f) == "forget" and measure(f.name).knows]
    attacks = [f for f in found if f.name.startswith(PREFIX)]
    kept = [f for f in found if side(f) == "retention" and kept_when(f)]
    x = min(sided, key=lambda f: (_rank(f, FIRST_FORGET), len(f.split), f.split), default=None) or next(iter(attacks), None)
    return x, min(kept, key=lambda f: (_rank(f, FIRST_KEPT), not f.split.startswith("retain"), f.split), default=None)


def _rank(finding: Finding, first: Sequence[str]) -> int:
    return first.index(finding.name) if finding.name in first else len(first)


def mark(findings: Findings, label: str, x: Finding, y: Finding, *, drawn: str, shown: str | None = None) -> Mark | None:
    """The point of the model `label` on the axes of `x` and `y`, drawn as `drawn`, or None where either value is missing."""
    on_x, on_y = findings.get(label, x.name, x.split), findings.get(label, y.name, y.split)
    x_value, y_value = (None if f is None else finite(f.value) for f in (on_x, on_y))
    if x_value is None or y_value is None:
        return None
    ends = [finite(end) for f in (on_x, on_y) for end in (f.low, f.high)]
    return Mark(clean(label if shown is None else shown, 60), drawn, x_value, ends[0], ends[1], y_value, ends[2], ends[3])


def draw(marks: Sequence[Mark], x: Finding, y: Finding) -> Markup:
    """The trade-off plot of `marks` on the axes of `x` and `y`."""
    names = [clean(f"{f.split} {measure(f.name).title}".strip(), 60) for f in (x, y)]
    unit = measure(x.name).scale == "unit", measure(y.name).scale == "unit"
    return tradeoff(marks, x_name=names[0], y_name=names[1], x_more=-measure(x.name).knows, y_more=kept_when(y), unit=unit)


def tradeoff_picture(findings: Findings) -> Picture:
    """Forgetting against retention for all models of one audit."""
    x, y = axes(findings)
    if x is None or y is None:
        missing = " and ".join(name for name, one in (("forgetting", x), ("retention", y)) if one is None)
        return Picture(None, f"Not drawn: no measure of {missing} has a value.")
    marks = [m for label in labels(findings) if (m := mark(findings, label, x, y, drawn=role(findings, label))) is not None]
    words = "Each point is a model, the bars are its intervals. To the right more is forgotten, upwards more is kept."
    if RETRAINED in findings.models:
        words += " The aim is the retrained model, not the corner: beyond it, forgetting leaves a mark of its own."
    return Picture(draw(marks, x, y), words)


@dataclass(frozen=True)
class Spread:
    """The values of single rows: one histogram for each model that has them."""

    title: str
    words: str
    drawings: tuple[tuple[str, str, Markup], ...]  # label, count of rows, histogram


def spread(findings: Findings) -> Spread | None:
    """The histogram of the first forget-side measure that holds values of rows, or None where none does."""
    label = judged(findings)
    found = [f for f in findings.models.get(label or "", ()) if side(f) == "forget" and any(finite(x) is not None for x in f.rows)]
    if not found:
        return None
    chosen = min(found, key=lambda f: (_rank(f, FIRST_FORGET), len(f.split), f.split))
    values = {}
    for each in labels(findings):
        finding = findings.get(each, chosen.name, chosen.split)
        row_values = [] if finding is None else [x for row in finding.rows if (x := finite(row)) is not None]
        if row_values:
            values[each] = row_values
    everything = [x for row_values in values.values() for x in row_values]
    low, high = bounds(everything, measure(chosen.name).scale == "unit")
    title = clean(f"{chosen.split} {measure(chosen.name).title}".strip(), 80)
    drawings = []
    for each, row_values in values.items():
        heard = f"{title} of {len(row_values)} rows, {clean(each, 40)}: from {number(min(row_values))} to {number(max(row_values))}"
        most = max(counts(row_values, low, high, BINS))
        drawing = histogram(row_values, role=role(findings, each), low=low, high=high, top=most, bins=BINS, title=heard)
        drawings.append((clean(each, 40), f"{len(row_values):,} rows", drawing))
    return Spread(title, _above(values, label, chosen), tuple(drawings))


def _above(values: dict[str, list[float]], label: str | None, chosen: Finding) -> str:
    """How many rows of the judged model lie outside what nearly all rows of the retrained model show."""
    knows = measure(chosen.name).knows
    if label is None or label not in values or RETRAINED not in values or label == RETRAINED or not knows:
        return ""
    never = sorted(knows * x for x in values[RETRAINED])
    limit = never[min(int(0.95 * len(never)), len(never) - 1)]
    above = sum(knows * x > limit for x in values[label])
    beyond = "above" if knows > 0 else "below"
    return (
        f"{above:,} of {len(values[label]):,} rows ({percent(above / len(values[label]))}) lie {beyond} {number(knows * limit)},"
        f" which only 5% of the rows of the retrained model pass."
    )
