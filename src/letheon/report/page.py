"""One HTML file for one audit: no script, nothing loaded from elsewhere, the same bytes for the same findings."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.core.files import write_text
from letheon.core.findings import Findings

from .attacked import curves, heat, sides
from .leftovers import leftover_rows
from .measures import better, measure
from .pictures import spread, tradeoff_picture
from .places import AFTER, BEFORE, RETRAINED, judged, labels
from .rows import groups, role
from .text import clean
from .verdict import Verdict, verdict

if TYPE_CHECKING:
    from jinja2 import Template

COLUMNS = {"before": "the original", "after": "the changed model", "retrained": "trained without the forget rows: never knew them"}


@dataclass(frozen=True)
class Report:
    """The report on `findings`, made when it is asked for."""

    findings: Findings

    @property
    def verdict(self) -> Verdict:
        """What opens the page; `str(report.verdict)` is one sentence."""
        return verdict(self.findings)

    @property
    def html(self) -> str:
        """One self-contained page."""
        return render(self.findings)

    def save(self, path: str | Path) -> Path:
        """Write the page whole or not at all; into `report.html` where `path` is a folder.

        Raises:
            RunError: the disk refuses.
        """
        path = Path(path)
        return write_text(path / "report.html" if path.is_dir() else path, self.html)


def report(findings: Findings) -> Report:
    """The report on `findings`."""
    return Report(findings)


def render(findings: Findings) -> str:
    """The page on `findings` as HTML."""
    said, shown = verdict(findings), labels(findings)
    return template("page.html.j2").render(
        audit=clean(findings.audit, 80),
        verdict=said,
        models=[(clean(label, 40), role(findings, label), _legend(findings, label)) for label in shown],
        groups=groups(findings),
        change=_change_header(findings),
        tradeoff=tradeoff_picture(findings),
        spread=spread(findings),
        curves=curves(findings),
        heat=heat(findings),
        sides=sides(findings),
        leftovers=leftover_rows(findings),
        retrained=RETRAINED in findings.models,
        leftovers_all=len(findings.leftovers),
        judged=clean(judged(findings) or "", 40),
        glossary=glossary(findings),
        context=context_groups(findings.context),
        command=_command(findings.context),
        format=findings.format,
    )


def _legend(findings: Findings, label: str) -> str:
    if label == AFTER and BEFORE not in findings.models:
        return "the audited model"
    return COLUMNS.get(label, "")


def _change_header(findings: Findings) -> str:
    if BEFORE not in findings.models or judged(findings) == BEFORE:
        return ""
    return "way to retrained, or change" if RETRAINED in findings.models else "change"


def _command(context: dict[str, Any]) -> str:
    command = context.get("command", "")
    if isinstance(command, list | tuple):
        command = " ".join(str(part) for part in command)
    return clean(command, 4000)


@dataclass(frozen=True)
class Term:
    """A measure in plain words."""

    title: str
    name: str
    tests: str
    read: str
    words: str
    version: str


def glossary(findings: Findings) -> list[Term]:
    """Every measure of the findings once, in the order in which the table shows them."""
    seen: dict[str, Term] = {}
    for group in groups(findings):
        for row in group.rows:
            about = measure(row.name)
            ours = [finding for finding in findings if clean(finding.name, 80) == row.name]
            versions = ", ".join(sorted({clean(finding.version, 20) for finding in ours}))
            words = "" if about.read else better(ours[0])[1]
            seen.setdefault(row.name, Term(clean(about.title, 80), row.name, about.tests, about.read, words, versions))
    terms = list(seen.values())
    attacks = [term for term in terms if term.name.startswith("membership-")]
    # The way to read an attack is the same for all of them: it is said once, at the first.
    return [Term(t.title, t.name, t.tests, "" if t in attacks[1:] else t.read, t.words, t.version) for t in terms]


def context_groups(context: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Settings, seeds, digests and versions as titled lists of name and value, sorted so that equal contexts give equal pages."""
    plain, titled = [], []
    for key in sorted(context, key=str):
        if key == "command":
            continue
        if isinstance(context[key], dict | list | tuple) and context[key]:
            titled.append((clean(key, 60), flatten(context[key])))
        else:
            plain.append((clean(key, 60), _plain(context[key])))
    return ([("run", plain)] if plain else []) + titled


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as dotted names with their text."""
    if isinstance(value, dict) and value:
        parts = [(str(key), value[key]) for key in sorted(value, key=str)]
    elif isinstance(value, list | tuple) and any(isinstance(part, dict | list | tuple) for part in value):
        parts = [(str(place), part) for place, part in enumerate(value, 1)]
    else:
        return [(clean(prefix, 120), _plain(value))]
    return [line for key, part in parts for line in flatten(part, f"{prefix}.{key}" if prefix else key)]


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return clean(", ".join(str(part) for part in value) or "none")
    return clean(json.dumps(value) if isinstance(value, dict) else value)


@functools.cache
def _environment():
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).resolve().parent)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def template(name: str) -> Template:
    """A template of this folder. Everything that it shows is escaped unless it is Markup made by `plots`."""
    return _environment().get_template(name)
