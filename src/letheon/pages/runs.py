"""Runs side by side, and the report of each: always made anew from findings, so that a page shows nothing but what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from letheon.core.errors import LetheonError
from letheon.core.findings import Findings
from letheon.report import render, verdict
from letheon.report.compare import compare
from letheon.report.text import clean

from .frame import render as framed
from .frame import slug

PARTS = ("opening", "columns", "lines", "picture", "notes")


@dataclass(frozen=True)
class Run:
    """A run by its name, its page and its place."""

    label: str
    page: str
    path: Path


def named(paths: Sequence[Path]) -> list[Run]:
    """A name and a page for each run: its folder, numbered where two have the same."""
    found: list[Run] = []
    for path in paths:
        folder = path.parent if path.name == "findings.json" else path
        label = folder.resolve().name.removesuffix(".json")
        again = sum(slug(run.label) == slug(label) or run.label.startswith(f"{label} (") for run in found)
        label = f"{label} ({again + 1})" if again else label
        found.append(Run(label, f"runs/{slug(label)}.html", path))
    return found


def page(runs: Sequence[Run], models: Sequence[tuple[str, str, Findings]] = ()) -> bytes:
    """The comparison of all runs that can be read, in the frame of the pages, with a link to each report.

    Args:
        models: generations of a desk, shown where there are no runs: label, page and findings.
    """
    read: list[tuple[str, str, Findings]] = []
    broken = []
    for run in runs:
        try:
            read.append((run.label, run.page, Findings.load(run.path)))
        except LetheonError as error:
            broken.append((clean(run.label, 60), clean(error.message, 300)))
    shown = read or list(models)
    links = [(clean(label, 60), target, verdict(findings)) for label, target, findings in shown]
    if not shown:
        return framed("empty.html.j2", "runs.html", title="Runs", words="No runs were given.", broken=broken)
    compared = compare([(label, findings) for label, _, findings in shown])
    parts = {name: getattr(compared, name) for name in PARTS}
    return framed("runs.html.j2", "runs.html", links=links, broken=broken, **parts)


def report(path: Path) -> bytes:
    """The report of one run, or a page that says why there is none."""
    try:
        return render(Findings.load(path)).encode("utf-8", "backslashreplace")
    except LetheonError as error:
        return framed("empty.html.j2", "runs/unreadable.html", title="No report", words=clean(str(error), 400), broken=[])


def sweep(path: Path) -> bytes:
    """The page of a whole sweep."""
    import json

    from letheon.report.sweep import compared

    text = (path / "results.json" if path.is_dir() else path).read_text(encoding="utf-8")
    return compared(json.loads(text)).html.encode("utf-8", "backslashreplace")


def without_rows(findings: Findings) -> bytes:
    """The report of a model of the desk, without the texts of forgotten rows and what the models say to them."""
    from letheon.ledger.forget import stripped

    return render(stripped(findings)).encode("utf-8", "backslashreplace")
