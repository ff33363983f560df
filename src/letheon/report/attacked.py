"""Pictures of attacks: curves over a budget or over layers, the same facts in several forms, members against rows never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from letheon.core.findings import Finding, Findings

from .measures import measure, side
from .pictures import BINS
from .places import FIRST_FORGET, judged, labels, places
from .plots import Axis, bounds, counts, histogram, line, shape, svg, tag, ticks
from .rows import role
from .text import clean, finite, number

LONGEST = 40  # points of a curve
Series = tuple[str, str, list[tuple[str, float]]]  # label, role, points


@dataclass(frozen=True)
class Curve:
    """One measure along its budget or over the layers, one line for each model."""

    title: str
    words: str
    drawing: Markup


@dataclass(frozen=True)
class Heat:
    """A table of shares: one line for each way to ask, one cell for each model, as text and as a shade between 0 and 100."""

    title: str
    words: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]


@dataclass(frozen=True)
class Sides:
    """Scores of the strongest membership attack on the judged model: forget rows above, rows never seen below."""

    title: str
    words: str
    drawings: tuple[tuple[str, Markup], ...]


def curves(findings: Findings) -> list[Curve]:
    """A picture for each measure whose findings hold a `curve`."""
    found: dict[tuple[str, str], list[Series]] = {}
    for label in labels(findings):
        for finding in findings.models[label]:
            points = _points(finding)
            if points and "forget" in finding.split:
                found.setdefault((finding.split, finding.name), []).append((clean(label, 40), role(findings, label), points))
    return [_curve(split, name, series) for (split, name), series in found.items()]


def _points(finding: Finding) -> list[tuple[str, float]]:
    curve = finding.extra.get("curve")
    curve = dict(enumerate(curve)) if isinstance(curve, list) else curve  # one value for each block
    if not isinstance(curve, dict) or finite(finding.value) is None:
        return []
    points = [(clean(x, 12), value) for x, y in curve.items() if (value := finite(y)) is not None]
    return points[:LONGEST] if len(points) > 1 else []


def _curve(split: str, name: str, series: list[Series]) -> Curve:
    about = measure(name)
    title = clean(f"{split} {about.title}".strip(), 80)
    along = about.curve or "step"
    heard = "; ".join(f"{label}: " + ", ".join(f"{x} {number(y, 2)}" for x, y in points) for label, _, points in series)
    drawing = lines(series, x_name=along, unit=about.scale == "unit", title=f"{title} over {along}. {heard}")
    return Curve(title, about.tests, drawing)


def lines(series: Sequence[Series], *, x_name: str, unit: bool, title: str) -> Markup:
    """One line for each series over places that stand evenly side by side."""
    width, height, left, right, top, bottom = 640.0, 300.0, 64.0, 120.0, 16.0, 54.0
    names = list(dict.fromkeys(x for _, _, points in series for x, _ in points))
    low, high = bounds([y for _, _, points in series for _, y in points], unit)
    x_axis, y_axis = Axis(0.0, max(len(names) - 1, 1), left, width - right), Axis(low, high, height - bottom, top)
    parts = []
    for value in ticks(low, high):
        parts.append(line(left, y_axis.at(value), width - right, y_axis.at(value), "grid"))
        parts.append(tag("text", number(value, 2), x=left - 8, y=y_axis.at(value) + 4, text_anchor="end", class_="tick"))
    every = max(1, round(len(names) / 12))
    for place in range(0, len(names), every):
        parts.append(tag("text", names[place], x=x_axis.at(place), y=height - bottom + 18, text_anchor="middle", class_="tick"))
    parts.append(tag("text", x_name, x=(left + width - right) / 2, y=height - 10, text_anchor="middle", class_="axis"))
    ends: list[tuple[float, str]] = []
    for label, drawn, points in series:
        spots = [(x_axis.at(names.index(x)), y_axis.at(y)) for x, y in points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
        parts.append(tag("path", d=path, class_=f"line {drawn}"))
        parts += [shape(drawn, x, y, 3.5) for x, y in spots]
        ends.append((spots[-1][1], label))
    last = top - 16.0
    for y, label in sorted(ends):
        last = max(y + 4, last + 16)
        parts.append(tag("text", label[:16], x=width - right + 10, y=last, text_anchor="start", class_="name"))
    return svg(width, height, parts, title, "curve")


def heat(findings: Findings) -> Heat | None:
    """What the opening measure says in every form and under every wrapper that was tried, or None where there is one form only."""
    shown = labels(findings)
    label = judged(findings)
    mine = [f for f in findings.models.get(label or "", ()) if side(f) in ("forget", "attack") and finite(f.value) is not None]
    names = [name for name in FIRST_FORGET if any(f.name == name for f in mine)]
    if not names:
        return None
    lines: list[tuple[str, tuple[tuple[str, int], ...]]] = []
    for finding in (f for f in mine if f.name == names[0]):
        values = [finite(findings.value(each, finding.name, finding.split)) for each in shown]
        lines.append((clean(finding.split, 60), _cells(values)))
    for finding in mine:
        for key in _ways(finding):
            others = [findings.get(each, finding.name, finding.split) for each in shown]
            values = [None if other is None else finite(_ways(other).get(key)) for other in others]
            lines.append((clean(f"prompt: {key}", 80), _cells(values)))
    if len(lines) < 2:
        return None
    words = f"{measure(names[0]).tests} Darker is more; a line that stays dark in the changed model is a way in."
    return Heat(clean(measure(names[0]).title, 80), words, tuple(clean(each, 40) for each in shown), tuple(lines))


def _ways(finding: Finding) -> dict[str, object]:
    """What an attack that asks in several ways found by each of them."""
    ways = finding.extra.get("ways")
    if not isinstance(ways, dict):
        return {}
    return {key: line.get("probability") for key, line in ways.items() if isinstance(line, dict)}


def _cells(values: Sequence[float | None]) -> tuple[tuple[str, int], ...]:
    return tuple(("-", 0) if value is None else (number(value, 2), round(100 * min(max(value, 0.0), 1.0))) for value in values)


def sides(findings: Findings) -> Sides | None:
    """Scores of forget rows and of rows never seen under the attack that tells them apart best, or None without one."""
    label = judged(findings)
    tried = [place for place in (places(findings, label) if label else []) if place.membership and place.finding.extra.get("holdout_rows")]
    if not tried:
        return None
    worst = max(tried, key=lambda place: abs(place.after - 0.5))
    rows = [x for row in worst.finding.rows if (x := finite(row)) is not None]
    others = [x for row in worst.finding.extra["holdout_rows"] if (x := finite(row)) is not None]
    if not rows or not others:
        return None
    low, high = bounds([*rows, *others], False)
    most = max(*counts(rows, low, high, BINS), *counts(others, low, high, BINS))
    drawings = []
    for name, values, drawn in (("forget rows", rows, "after"), ("rows never seen", others, "other")):
        heard = f"{name}: {len(values)} scores from {number(min(values))} to {number(max(values))}"
        drawing = histogram(values, role=drawn, low=low, high=high, top=most, bins=BINS, title=heard)
        drawings.append((f"{name}, {len(values):,}", drawing))
    words = f"AUC {number(worst.after)}. To the right scores look more like training data; heaps that do not overlap give the rows away."
    return Sides(clean(f"{worst.kind} membership attack on {label}", 80), words, tuple(drawings))
