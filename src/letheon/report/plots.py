"""Plots as inline SVG: no script, no picture file. Colours come from the page; shapes and words carry the meaning without them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from .text import number

SHAPES = {"before": "ring", "after": "dot", "retrained": "diamond"}


@dataclass(frozen=True)
class Mark:
    """One model on a plot: value and interval on x, and on y where there is one. `role` is before, after, retrained or other."""

    label: str
    role: str
    x: float
    x_low: float | None = None
    x_high: float | None = None
    y: float = 0.0
    y_low: float | None = None
    y_high: float | None = None


@dataclass(frozen=True)
class Axis:
    """A straight map from values to pixels. `log` maps powers of ten evenly."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, value = (math.log10(max(x, 1e-300)) if self.log else x for x in (self.low, self.high, value))
        share = 0.5 if high == low else (value - low) / (high - low)
        share = share if math.isfinite(share) else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def tag(name: str, *inside: str, **attributes: object) -> Markup:
    """An element whose attributes and plain-text content are escaped. `class_` gives `class`; an underscore becomes a hyphen."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(f"{value:.1f}" if isinstance(value, float) else value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    content = "".join(str(escape(part)) for part in inside)
    return Markup(f"<{name}{shown}>{content}</{name}>" if content else f"<{name}{shown}/>")


def shape(role: str, x: float, y: float, size: float = 5.0) -> Markup:
    """The sign of a model: before a ring, after a filled dot, retrained a diamond, any other a small square."""
    kind = SHAPES.get(role, "square")
    if kind == "diamond":
        r = size * 1.3
        return tag("path", d=f"M{x:.1f} {y - r:.1f}L{x + r:.1f} {y:.1f}L{x:.1f} {y + r:.1f}L{x - r:.1f} {y:.1f}Z", class_=f"mark {role}")
    if kind == "square":
        return tag("rect", x=x - size * 0.8, y=y - size * 0.8, width=size * 1.6, height=size * 1.6, class_="mark other")
    return tag("circle", cx=x, cy=y, r=size, class_=f"mark {role}")


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line between two points."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def svg(width: float, height: float, parts: Sequence[Markup], title: str, class_: str) -> Markup:
    """The outer element, which a screen reader announces by `title`."""
    return tag("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", class_=class_, role="img", aria_label=title)


def alone(drawing: Markup) -> str:
    """A drawing as a file of its own: with the colours of the page, and its paper."""
    css = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    rules = [css.partition("* {")[0], *(each for each in css.splitlines() if each.startswith("svg ") and "var(" in each)]
    rules.append("svg { background: var(--paper); font-family: system-ui, sans-serif; }")
    style = tag("style", Markup("\n" + "\n".join(rules) + "\n"))
    head, _, rest = str(drawing).partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n'


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values from `low` to `high`, about `wanted` of them."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    step = 10 ** math.floor(math.log10(span / wanted))
    step = next((step * m for m in (1, 2, 2.5, 5, 10) if span / (step * m) <= wanted), step * 10)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def powers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten from `low` to `high`; powers alone where these are many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 3 else (1,)
    return [value for k in decades for m in steps if low <= (value := m * 10.0**k) <= high]


def bounds(values: Sequence[float], unit: bool) -> tuple[float, float]:
    """The ends of an axis that holds `values`: 0 and 1 for a share, else the values with a little room."""
    if unit and all(0 <= x <= 1 for x in values):
        return 0.0, 1.0
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _fitted(values: Sequence[float]) -> tuple[float, float]:
    """The part of 0 to 1 that holds the values, never so narrow that a small change looks large: at least 0.4 wide."""
    low, high = min(values), max(values)
    if low < 0 or high > 1:
        return bounds(values, False)
    room = max(0.05, (0.4 - (high - low)) / 2)
    low, high = low - room, high + room
    shift = max(0.0, -low) - max(0.0, high - 1)
    return max(low + shift, 0.0), min(high + shift, 1.0)


def strip(marks: Sequence[Mark], *, scale: str, title: str) -> Markup:
    """All models on one line, each with its interval: the picture in a table row. Later marks lie above earlier ones."""
    width, height = 200.0, 26.0
    values = [x for mark in marks for x in (mark.x, mark.x_low, mark.x_high) if x is not None]
    log = scale == "log" and min(values) > 0
    low, high = (min(values), 1.0 if max(values) <= 1 else max(values)) if log else bounds(values, scale == "unit")
    axis = Axis(low, high, 8.0, width - 8.0, log)
    parts = [line(8.0, height / 2, width - 8.0, height / 2, "rule"), *(line(x, 9.0, x, 17.0, "rule") for x in (8.0, width - 8.0))]
    order = {"retrained": 0, "before": 1, "after": 3}
    for mark in sorted(marks, key=lambda mark: order.get(mark.role, 2)):
        role = mark.role if mark.role in SHAPES else "other"
        if mark.x_low is not None and mark.x_high is not None:
            parts.append(line(axis.at(mark.x_low), height / 2, axis.at(mark.x_high), height / 2, f"bar {role}"))
        parts.append(shape(mark.role, axis.at(mark.x), height / 2, 4.5))
    return svg(width, height, parts, title, "strip")


def tradeoff(
    marks: Sequence[Mark],
    *,
    x_name: str,
    y_name: str,
    x_more: int,
    y_more: int,
    unit: tuple[bool, bool],
    x_better: str = "more forgotten",
    x_log: bool = False,
) -> Markup:
    """Forgetting against retention, with error bars. Right is more forgotten, up is better kept; ticks show the values of the table.

    `x_more` is +1 where a larger value means more forgotten, -1 where a smaller one does; `y_more` likewise for kept. With `x_log` the x
    axis maps powers of ten evenly; all values on it must be above 0.
    """
    width, height, left, right, top, bottom = 640.0, 420.0, 76.0, 24.0, 24.0, 62.0
    xs = [x for m in marks for x in (m.x, m.x_low, m.x_high) if x is not None]
    ys = [y for m in marks for y in (m.y, m.y_low, m.y_high) if y is not None]
    (x_low, x_high), (y_low, y_high) = bounds(xs, unit[0]), _fitted(ys) if unit[1] else bounds(ys, False)
    if x_log:
        x_low, x_high = min(xs) / 1.3, max(xs) * 1.3
    x_axis = Axis(x_low, x_high, *((left, width - right) if x_more > 0 else (width - right, left)), log=x_log)
    y_axis = Axis(y_low, y_high, *((height - bottom, top) if y_more > 0 else (top, height - bottom)))
    parts = []
    for value in powers(x_low, x_high) if x_log else ticks(x_low, x_high):
        parts += [line(x_axis.at(value), top, x_axis.at(value), height - bottom, "grid")]
        parts += [tag("text", number(value, 2), x=x_axis.at(value), y=height - bottom + 18, text_anchor="middle", class_="tick")]
    for value in ticks(y_low, y_high):
        parts += [line(left, y_axis.at(value), width - right, y_axis.at(value), "grid")]
        parts += [tag("text", number(value, 2), x=left - 8, y=y_axis.at(value) + 4, text_anchor="end", class_="tick")]
    middle = (top + height - bottom) / 2
    centre = (left + width - right) / 2
    parts.append(tag("text", f"{x_name}: {x_better} →", x=centre, y=height - 12, text_anchor="middle", class_="axis"))
    turn = f"rotate(-90 16 {middle:.1f})"
    parts.append(tag("text", f"{y_name}: better kept →", x=16.0, y=middle, text_anchor="middle", class_="axis", transform=turn))
    spots = [(x_axis.at(m.x), y_axis.at(m.y)) for m in marks]
    for mark, (x, y) in zip(marks, spots, strict=True):
        role = mark.role if mark.role in SHAPES else "other"
        if mark.x_low is not None and mark.x_high is not None:
            parts.append(line(x_axis.at(mark.x_low), y, x_axis.at(mark.x_high), y, f"bar {role}"))
        if mark.y_low is not None and mark.y_high is not None:
            parts.append(line(x, y_axis.at(mark.y_low), x, y_axis.at(mark.y_high), f"bar {role}"))
    boxes = [(x - 8, y - 8, x + 8, y + 8) for x, y in spots]
    for mark, (_, y) in zip(marks, spots, strict=True):
        if mark.x_low is not None and mark.x_high is not None:
            ends = sorted((x_axis.at(mark.x_low), x_axis.at(mark.x_high)))
            boxes.append((ends[0], y - 2, ends[1], y + 2))
    parts += _names([mark.label for mark in marks], spots, boxes, (left, top, width - right, height - bottom))
    parts += [shape(mark.role, x, y, 6.0) for mark, (x, y) in zip(marks, spots, strict=True)]
    return svg(width, height, parts, f"{y_name} against {x_name}, one point for each model; the values are in the table", "tradeoff")


Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
RINGS = (11.0, 26.0, 42.0, 58.0, 76.0)  # distances of a label from its point, in pixels
AROUND = ((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))  # where: right or left, above or below
ANCHORS = {1: "start", 0: "middle", -1: "end"}


def _names(labels: Sequence[str], spots: Sequence[tuple[float, float]], boxes: Sequence[Box], frame: Box) -> list[Markup]:
    """Labels around their points, each at the nearest place where it covers none of `boxes`, no label and no edge.

    A line leads to a label that stands farther away than beside its point, past other points where that can be.
    """
    taken = list(boxes)
    leads, names = [], []
    for label, (x, y) in zip(labels, spots, strict=True):
        text = label if len(label) <= 28 else f"{label[:27]}…"
        wide = 8.0 * len(text)
        places = []
        for away in RINGS:
            for side, above in AROUND:
                at = x + side * away
                base = y + 4 if not above else y - away + 1 if above > 0 else y + away + 9
                begin = at - (1 - side) / 2 * wide
                box = (begin, base - 12, begin + wide, base + 4)
                inside = box[0] >= frame[0] and box[2] <= frame[2] and box[1] >= frame[1] - 8 and box[3] <= frame[3]
                hits = sum(5 * (box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3]) for b in taken)
                end = min(max(x, box[0]), box[2]), min(max(y, box[1] + 2), box[3] - 2)
                hits += sum(_near((x, y), end, spot) for spot in spots if spot != (x, y)) if away > RINGS[0] else 0
                places.append((hits + (0 if inside else 50), len(places), box, (at, base, ANCHORS[side]), end, away))
        _, _, box, (at, base, anchor), end, away = min(places)
        taken.append(box)
        if away > RINGS[0]:
            leads.append(line(x, y, *end, "lead"))
        names.append(tag("text", text, x=at, y=base, text_anchor=anchor, class_="name"))
    return [*leads, *names]


def _near(begin: tuple[float, float], end: tuple[float, float], spot: tuple[float, float]) -> bool:
    """Whether a straight line passes within 8 pixels of a point."""
    (x, y), (dx, dy) = begin, (end[0] - begin[0], end[1] - begin[1])
    along = ((spot[0] - x) * dx + (spot[1] - y) * dy) / (dx * dx + dy * dy or 1.0)
    along = min(max(along, 0.0), 1.0)
    return math.hypot(x + along * dx - spot[0], y + along * dy - spot[1]) < 8


def histogram(values: Sequence[float], *, role: str, low: float, high: float, top: int, bins: int, title: str) -> Markup:
    """Counts of `values` in `bins` equal bins from `low` to `high`, drawn to a height of `top` counts."""
    width, height, base, left, right = 640.0, 104.0, 78.0, 44.0, 24.0
    axis = Axis(low, high, left, width - right)
    wide = (width - left - right) / bins
    parts = []
    for i, count in enumerate(counts(values, low, high, bins)):
        tall = (base - 10.0) * count / max(top, 1)
        if count:
            tall = max(tall, 1.5)
            parts.append(tag("rect", x=left + i * wide + 1, y=base - tall, width=wide - 2, height=tall, class_=f"column {role}"))
    parts.append(line(left, base, width - right, base, "rule"))
    parts += [tag("text", number(x, 2), x=axis.at(x), y=base + 19, text_anchor="middle", class_="tick") for x in ticks(low, high)]
    parts += [tag("text", text, x=left - 6, y=y, text_anchor="end", class_="tick") for text, y in ((str(top), 20.0), ("0", base))]
    return svg(width, height, parts, title, "histogram")


def counts(values: Sequence[float], low: float, high: float, bins: int) -> list[int]:
    """How many values fall in each of `bins` equal bins; the last bin holds its upper end."""
    found = [0] * bins
    for value in values:
        found[min(max(int((value - low) / (high - low) * bins), 0), bins - 1)] += 1
    return found
