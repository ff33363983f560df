"""A sweep side by side: one row for each method, means over seeds with the lowest and the highest, and which rows nothing beats.

A row is on the front if no other row is at least as near to the retrained model on the forget rows and keeps at least as much, with one of
both better. Means over seeds are compared, of rows without failed seeds. Without a retrained model less forget probability counts as
nearer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from letheon.core.errors import DataError

from .measures import measure
from .page import template
from .plots import Mark, alone, tradeoff
from .text import clean, finite, number

USUAL = (
    "forget/probability", "forget/rouge-l-recall", "forget/truth-ratio", "forget/forget-quality", "/model-utility",
    "retain-check/probability", "forget/membership-loss", "forget/relearned", "forget/probability-int4",
)  # fmt: skip
NEAREST = 1e-3  # smaller distances to the retrained model are drawn as this: the axis runs over powers of ten
MOVED = 0.95  # a row that left more than this of the original's distance forgot nothing, and is on no front
FORGOTTEN, KEPT = "forget/probability", ("/model-utility", "retain-check/probability", "retain/probability")


@dataclass(frozen=True)
class Spread:
    """Values of one column over seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """The mean over seeds."""
        return sum(self.values) / len(self.values) if self.values else None

    def text(self) -> tuple[str, str]:
        """The mean, and the lowest and highest in brackets where there are several seeds."""
        ends = f"[{number(min(self.values))}, {number(max(self.values))}]" if len(self.values) > 1 else ""
        return number(self.mean), ends


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    label: str
    cells: tuple[tuple[str, str], ...]
    front: bool
    note: str
    place: int | None = None  # the number that stands for the row in the picture
    ran: str = ""  # how many seeds gave values, where some failed


@dataclass(frozen=True)
class Compared:
    """The table of a sweep in its three forms, and its picture."""

    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    drawing: Markup
    settings: tuple[tuple[str, str], ...]
    seeds: int
    trials: int

    @property
    def opening(self) -> str:
        """One sentence on the whole."""
        best = [f'"{line.label}"' if "," in line.label else line.label for line in self.lines if line.front]
        rows = f"{sum(bool(line.note != 'anchor') for line in self.lines)} rows, {self.seeds} seed{'s' if self.seeds != 1 else ''} each"
        failed = sum(bool(line.ran) for line in self.lines)
        rows += f" (fewer in {failed})" if failed else ""
        tuned = f", tuned with {self.trials} trials a method on rows that stay" if self.trials else ""
        return f"{rows}{tuned}; nothing beats {', '.join(best)} on both sides." if best else f"{rows}{tuned}."

    @property
    def markdown(self) -> str:
        """A Markdown table; rows on the front are marked with a star, and bear the number that they have in the picture.

        A row with failed seeds says how many it is made of, `npo (1 of 3 seeds)`, and has no star.
        """
        lines = ["| | " + " | ".join(self.columns) + " |", "|---" * (len(self.columns) + 1) + "|"]
        for line in self.lines:
            cells = [" ".join(part for part in cell if part) for cell in line.cells]
            place = "" if line.place is None else f"{line.place} "
            name = f"{place}{line.label}{line.ran and f' ({line.ran})'}{' *' if line.front else ''}"
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    @property
    def table(self) -> Any:
        """A rich table for the terminal."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, header_style="bold")
        grid.add_column("", overflow="fold", min_width=12)
        for column in self.columns:
            grid.add_column(Text(column), justify="right", overflow="fold", max_width=12)
        for line in self.lines:
            style = "dim" if line.note == "anchor" else "bold" if line.front else ""
            grid.add_row(Text(line.label, style), *(Text(value, style) for value, _ in line.cells))
        failed = [Text(f"{line.label}: {line.note}", style="yellow") for line in self.lines if line.note not in ("", "anchor")]
        return Group(Text(clean(self.opening, None)), Text(""), grid, *failed)

    @property
    def svg(self) -> str:
        """The picture as a file of its own, in the colours of the page."""
        return alone(self.drawing)

    @property
    def html(self) -> str:
        """One self-contained page."""
        shown = {name: getattr(self, name) for name in ("opening", "columns", "lines", "drawing", "settings")}
        return template("sweep.html.j2").render(**shown)


def compared(results: Mapping[str, Any]) -> Compared:
    """The table and picture of the `results.json` of a sweep.

    Raises:
        DataError: it has no cells.
    """
    cells = results["cells"]
    if not cells:
        raise DataError("There is nothing to compare: the sweep has no cells")
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        rows.setdefault(cell["row"], []).append(cell)
    anchors = results.get("anchors", {})
    known = {key for cell in cells for key, value in cell.get("values", {}).items() if finite(value) is not None}
    columns = [key for key in results.get("columns") or USUAL if key in known]
    retrain = _seconds(rows.get("retrain", ()))
    told = finite(results.get("retrain_processor_seconds"))
    retrain = Spread((told,)) if not retrain.values and told is not None else retrain
    judged = {cell["row"] for cell in cells if cell.get("judged")}  # models that were audited as they are: no cost is known
    spreads = {row: {key: _spread(found, key) for key in columns} for row, found in rows.items()}
    points = {row: _point(found, anchors.get("retrained", {})) for row, found in rows.items()}
    knew, never = (finite(anchors.get(label, {}).get(FORGOTTEN)) for label in ("before", "retrained"))
    start = math.inf if knew is None else abs(knew - (never or 0.0))
    moved = {row: point for row, point in points.items() if point is not None and point.x.mean < MOVED * start}  # type: ignore[operator]
    whole = {row for row, found in rows.items() if not any("failed" in cell for cell in found)}
    front = _front({row: point for row, point in moved.items() if row in whole})
    lines = [
        Line(label, tuple((number(finite(said.get(key))), "") for key in columns) + (("", ""),), False, "anchor")
        for label, said in (("original", anchors.get("before")), ("retrained", anchors.get("retrained"))) if said
    ]  # fmt: skip
    for place, (row, found) in enumerate(rows.items(), 1):
        text = tuple(spreads[row][key].text() if spreads[row][key].values else ("failed", "") for key in columns)
        failed = [cell["failed"] for cell in found if "failed" in cell]
        note = f"{len(failed)} of {len(found)} seeds failed: {failed[0]}" if failed else ""
        cost = _cost(_seconds(found), retrain, failed) if failed or row not in judged else ("", "")
        ran = f"{len(found) - len(failed)} of {len(found)} seeds" if failed else ""
        lines.append(Line(clean(row, 80), (*text, cost), row in front, clean(note, 300), place, ran))
    titles = [_title(key) for key in columns] + ["cost, retrain = 1" if retrain.values else "processor seconds"]
    trials = max((len(found) for found in results.get("tuning", {}).values()), default=0)
    settings = tuple((clean(row, 80), clean(_settings(found[0]["method"]), 400)) for row, found in rows.items())
    return Compared(tuple(titles), tuple(lines), _drawing(points, front), settings, len(results["seeds"]), trials)


def _title(key: str) -> str:
    split, _, name = key.partition("/")
    title = measure(name).title.replace("membership, ", "membership AUC, ")
    return clean(title if title.startswith(split) else f"{split} {title}", 60)


def _spread(found: Sequence[Mapping[str, Any]], key: str) -> Spread:
    values = [finite(cell.get("values", {}).get(key)) for cell in found]
    return Spread(tuple(value for value in values if value is not None))


def _seconds(found: Sequence[Mapping[str, Any]]) -> Spread:
    values = [finite(cell.get("cost", {}).get("processor_seconds")) for cell in found]
    return Spread(tuple(value for value in values if value is not None))


def _cost(seconds: Spread, retrain: Spread, failed: Sequence[str]) -> tuple[str, str]:
    if not seconds.values:
        return ("failed" if failed else "not measured"), ""
    if retrain.mean:
        return number(seconds.mean / retrain.mean, 2), ""  # type: ignore[operator]
    return number(seconds.mean, 1), ""


def _settings(method: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in method.items() if key != "name") or "defaults"


@dataclass(frozen=True)
class _Point:
    x: Spread  # distance to the retrained model
    y: Spread  # what is kept

    def beats(self, other: _Point) -> bool:
        ax, ay, bx, by = self.x.mean, self.y.mean, other.x.mean, other.y.mean
        return ax <= bx and ay >= by and (ax < bx or ay > by)  # type: ignore[operator]


def _point(found: Sequence[Mapping[str, Any]], never: Mapping[str, Any]) -> _Point | None:
    goal = finite(never.get(FORGOTTEN)) or 0.0
    x = Spread(tuple(abs(value - goal) for value in _spread(found, FORGOTTEN).values))
    y = next((spread for key in KEPT if (spread := _spread(found, key)).values), Spread(()))
    return _Point(x, y) if x.values and y.values else None


def _front(points: Mapping[str, _Point]) -> set[str]:
    return {row for row, point in points.items() if not any(other.beats(point) for other in points.values())}


def _drawing(points: Mapping[str, _Point | None], front: set[str]) -> Markup:
    """Rows on the front by name, the others by their number: many names would hide one another."""
    marks = []
    for place, (row, point) in enumerate(points.items(), 1):
        if point is not None:
            shown, role = (clean(row, 28), "after") if row in front else (str(place), "other")
            x, y = point.x, point.y
            away = [max(value, NEAREST) for value in (x.mean, min(x.values), max(x.values))]  # type: ignore[type-var]
            marks.append(Mark(shown, role, *away, y.mean, min(y.values), max(y.values)))  # type: ignore[arg-type]
    if not marks:
        return Markup("")
    name = "distance of forget probability to the retrained model"
    return tradeoff(marks, x_name=name, y_name="kept", x_more=-1, y_more=1, unit=(False, True), x_better="nearer", x_log=True)
