"""The audit in a terminal: the verdict, then the key table in 80 columns, clear without colour."""

from __future__ import annotations

from typing import Any

from letheon.core.findings import Findings

from .places import judged, labels
from .rows import groups
from .text import clean
from .verdict import Verdict, verdict

STYLES = {"good": "bold green", "partly": "bold yellow", "bad": "bold red", "unknown": "bold"}


def verdict_text(said: Verdict) -> Any:
    """The verdict as a rich Text: the word in front, then one clause on each line."""
    from rich.text import Text

    lines = [clause.text for clause in said.clauses]
    text = Text(f"{said.word}: ", style=STYLES[said.tone])
    text.append(clean(lines[0], None), style="not bold default")
    for line in lines[1:]:
        text.append(f"\n- {clean(line, None)}", style="not bold default")
    return text


def table(findings: Findings) -> Any:
    """A rich renderable of the verdict and the key table.

    One line for each measure: the value of each model, the interval of the judged one, and how much of the way to the retrained
    model is gone (or by how much a value that should stay has changed). Text from the findings is never read as markup.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown, subject = labels(findings), judged(findings)
    grid = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, header_style="bold")
    grid.add_column("", min_width=18, max_width=27, overflow="fold")
    for label in shown:
        grid.add_column(Text(clean(label, 20)), justify="right", overflow="fold")
        if label == subject:
            grid.add_column("interval", justify="right", overflow="fold")
    changes = any(row.change for group in groups(findings) for row in group.rows)
    if changes:
        grid.add_column("way, change", justify="right", overflow="fold", max_width=12)
    unmeasured: list[str] = []
    for place, group in enumerate(groups(findings)):
        if place:
            grid.add_row()
        grid.add_row(Text(group.title, style="bold"))
        for row in group.rows:
            cells = [Text(row.title.removeprefix("membership, "))]
            for label, cell in zip(shown, row.cells, strict=True):
                cells.append(Text(cell.value if cell.measured else "-", style="" if label == subject else "dim"))
                if label == subject:
                    cells.append(Text(cell.interval, style="dim"))
            grid.add_row(*(Text.assemble(" ", cells[0]), *cells[1:], *([Text(row.change)] if changes else [])))
            unmeasured += [f"{group.title}, {row.title}: {note}" for note in row.notes if "not measured: " in note]
    parts: list[Any] = [verdict_text(verdict(findings)), Text(""), grid]
    if unmeasured:
        parts += [Text(""), *(Text(f"- {note}", style="dim") for note in dict.fromkeys(unmeasured))]
    return Group(*parts)
