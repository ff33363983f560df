"""Several audits side by side: one row for each run, as a table for the terminal and as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from letheon.core.errors import DataError
from letheon.core.files import write_text
from letheon.core.findings import Finding, Findings

from .measures import measure
from .page import template
from .phrases import BROKEN
from .pictures import Picture, axes, draw, mark
from .places import AFTER, BEFORE, RETRAINED, Place, judged, places
from .text import clean, finite, interval, number, percent, short
from .verdict import Verdict, verdict

Run = tuple[str, Findings]


@dataclass(frozen=True)
class Line:
    """One run: its verdict and the values in the columns, each as text with its interval."""

    label: str
    verdict: Verdict
    cells: tuple[tuple[str, str], ...]

    @property
    def worst(self) -> str:
        if self.verdict.least is None:
            return "not placed"
        share = min(max(self.verdict.least, 0.0), 1.0)
        return f"{self.verdict.worst}, {percent(share)}"


@dataclass(frozen=True)
class Comparison:
    """`columns` are titles with the better direction in words, `lines` the runs, the weakest point that got furthest first."""

    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    picture: Picture
    notes: tuple[str, ...]

    @property
    def opening(self) -> str:
        """One sentence on all runs."""
        good = [line.label for line in self.lines if line.verdict.tone == "good"]
        if not good:
            return f"None of {len(self.lines)} erased all that was measured without harm; {self.lines[0].label} got furthest."
        return f"{len(good)} of {len(self.lines)} erased as far as measured without harm: {', '.join(good)}."

    @property
    def table(self) -> Any:
        """A rich table for the terminal, clear at 80 columns and without colour."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, header_style="bold")
        grid.add_column("run", overflow="fold", min_width=8)
        grid.add_column("verdict", overflow="fold", min_width=12)
        for column in self.columns:
            grid.add_column(Text(column), justify="right", overflow="fold", max_width=13)
        grid.add_column("worst, way", overflow="fold", min_width=12)
        for line in self.lines:
            grid.add_row(Text(line.label), Text(line.verdict.word), *(Text(value) for value, _ in line.cells), Text(line.worst))
        return Group(Text(self.opening), Text(""), grid, *(Text(f"\n{note}", style="dim") for note in self.notes))

    @property
    def html(self) -> str:
        """One self-contained page."""
        shown = {name: getattr(self, name) for name in ("opening", "columns", "lines", "picture", "notes")}
        return template("compare.html.j2").render(**shown)

    def save(self, path: str | Path) -> Path:
        """Write the page whole or not at all; into `compare.html` where `path` is a folder."""
        path = Path(path)
        return write_text(path / "compare.html" if path.is_dir() else path, self.html)


def compare(runs: Sequence[Run]) -> Comparison:
    """Set several audits side by side, each with the label that its row shows.

    Runs are sorted by their weakest measure in steps of 10%, then by their first, the furthest on the way to never having known
    on top, so that no run leads by one good score; runs that broke what should stay come after those that did not.

    Raises:
        DataError: there is nothing to compare.
    """
    if not runs:
        raise DataError("There is nothing to compare: no findings were given", "Give two or more folders that hold findings.json")
    x, y = _axes(runs)
    attack = any(_strongest(findings) is not None for _, findings in runs)
    columns = [_column(one) for one in (x, y) if one is not None] + (["strongest membership attack, AUC"] if attack else [])
    lines = []
    for label, findings in runs:
        owner = judged(findings) or ""
        cells = [_cell(findings.get(owner, one.name, one.split)) for one in (x, y) if one is not None]
        if attack:
            strongest = _strongest(findings)
            found = ("not measured", "") if strongest is None else (f"{short(strongest.after)} {strongest.kind}", _ends(strongest.finding))
            cells.append(found)
        lines.append(Line(clean(label, 60), verdict(findings), tuple(cells)))
    return Comparison(tuple(columns), tuple(sorted(lines, key=_order)), _picture(runs, x, y), tuple(_notes(runs, x)))


def table(runs: Sequence[Run]) -> Any:
    """The rich table of `compare(runs)`."""
    return compare(runs).table


def page(runs: Sequence[Run]) -> str:
    """The HTML page of `compare(runs)`."""
    return compare(runs).html


def _order(line: Line) -> tuple[bool, bool, float, float, str]:
    """Whole before broken, then the weakest measure in steps of 10% (smaller differences are noise), then the first measure."""
    said = line.verdict
    broken = said.lost is not None and said.lost >= BROKEN
    weakest, first = (min(max(share or 0.0, 0.0), 1.0) for share in (said.least, said.first))
    return said.least is None, broken, -round(weakest, 1), -first, line.label


def _axes(runs: Sequence[Run]) -> tuple[Finding | None, Finding | None]:
    """The pair of measures that most runs would be judged on."""
    pairs = [axes(findings) for _, findings in runs]
    chosen = []
    for side in (0, 1):
        found = [pair[side] for pair in pairs if pair[side] is not None]
        keys = [(one.split, one.name) for one in found]
        chosen.append(max(found, key=lambda one, keys=keys: keys.count((one.split, one.name)), default=None))
    return chosen[0], chosen[1]


def _column(one: Finding) -> str:
    return clean(f"{one.split} {measure(one.name).title}".strip(), 60)


def _cell(finding: Finding | None) -> tuple[str, str]:
    value = None if finding is None else finite(finding.value)
    return ("not measured", "") if finding is None or value is None else (number(value), _ends(finding))


def _ends(finding: Finding) -> str:
    return interval(finding.low, finding.high)


def _strongest(findings: Findings) -> Place | None:
    """The membership attack that got the judged model least far, or, without a before, that leaves it furthest above its anchor."""
    found = [place for place in places(findings, judged(findings) or "") if place.membership]
    return min(found, key=lambda p: (p.share is None, p.share if p.share is not None else -(p.excess or 0.0)), default=None)


def _picture(runs: Sequence[Run], x: Finding | None, y: Finding | None) -> Picture:
    if x is None or y is None:
        return Picture(None, "Not drawn: forgetting and retention were not both measured.")
    marks, seen = [], set()
    for name, role in ((BEFORE, BEFORE), (RETRAINED, RETRAINED)):
        for label, findings in runs:
            point = mark(findings, name, x, y, drawn=role, shown=name)
            if point is not None and judged(findings) != name and (name, point.x, point.y) not in seen:
                first = not any(owner == name for owner, *_ in seen)
                seen.add((name, point.x, point.y))
                marks.append(point if first else mark(findings, name, x, y, drawn=role, shown=f"{name}, {label}"))
    points = [mark(findings, judged(findings) or "", x, y, drawn=AFTER, shown=label) for label, findings in runs]
    marks += [point for point in points if point is not None]
    missing = sum(point is None for point in points)
    words = "Each point is a run, the bars are its intervals. To the right more is forgotten, upwards more is kept."
    words += f" {missing} of {len(runs)} runs lack one of the two values and are not drawn." if missing else ""
    return Picture(draw([m for m in marks if m is not None], x, y) if marks else Markup(""), words)


def _notes(runs: Sequence[Run], x: Finding | None) -> list[str]:
    notes = ["Sorted by how far the weakest measure got, in steps of 10%, then by the first; runs that broke the rest come later."]
    if x is not None:
        origins = {findings.value(BEFORE, x.name, x.split) for _, findings in runs}
        sizes = {found.n for _, findings in runs if (found := findings.get(judged(findings) or "", x.name, x.split)) is not None}
        if len(origins) > 1 or len(sizes) > 1:
            notes.append("These runs do not share one original or one forget set: compare them with care.")
    audits = sorted({findings.audit for _, findings in runs})
    if len(audits) > 1:
        notes.append(f"These runs were audited differently: {clean(', '.join(audits), 200)}.")
    return notes
