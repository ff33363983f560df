"""The atlas: every plug-in with its card, the evidence for it, its settings and where it stands in comparisons."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from letheon.core import fields, registry
from letheon.core.errors import LetheonError
from letheon.core.registry import Plugin
from letheon.report.plots import tag
from letheon.report.text import clean, number, percent

from . import cards, tested
from .frame import render, slug
from .standing import Comparison, Standing, table

LEVELS = ("none", "maths", "toy", "paper")


@dataclass(frozen=True)
class Entry:
    """One plug-in of the atlas."""

    plugin: Plugin
    title: str
    summary: str
    cards: tuple[str, ...]
    arxiv: tuple[str, ...]
    year: int | None
    tested: tested.Tested
    standings: tuple[Standing, ...]
    reconstruction: bool
    added: str | None  # ISO date

    @property
    def page(self) -> str:
        """Where its page lies."""
        return f"atlas/{slug(self.plugin.role)}-{slug(self.plugin.name)}.html"

    @property
    def role(self) -> str:
        """What a person calls its role."""
        return registry.ROLES[self.plugin.role]

    @property
    def level(self) -> int:
        """Its evidence as a place in LEVELS; the rule stands on the page of the atlas."""
        if self.tested.published:
            return 3
        if self.standings or self.tested.trains:
            return 2
        return 1 if self.tested.tests else 0

    @property
    def word(self) -> str:
        """Its evidence as a word."""
        return LEVELS[self.level]

    @property
    def blocks(self) -> Markup:
        """Its evidence as three squares, filled from the left; the word stands beside them."""
        squares = [tag("rect", x=1 + 12 * k, y=1, width=8, height=8, class_="on" if k < self.level else "off") for k in range(3)]
        return tag("svg", *squares, viewBox="0 0 34 10", aria_hidden="true")

    @property
    def alone(self) -> Standing | None:
        """The row that bears its name: it alone, with what is usual for the rest."""
        return next((one for one in self.standings if one.row == self.plugin.name), None)

    @property
    def best(self) -> Standing | None:
        """The row that it is judged by: that of its own name, else the best of those that use it."""
        return self.alone or (self.standings[0] if self.standings else None)

    @property
    def stands(self) -> str:
        """That row in words."""
        best = self.best
        if best is None:
            return ""
        if best.place == 0:
            return "the exact answer"
        many = "" if self.alone or len(self.standings) == 1 else f"best of its {len(self.standings)} rows: "
        return f"{many}{best.place} of {best.of}" + (", on the front" if best.front else "")

    @property
    def cost(self) -> str:
        """What it costs beside an exact retrain, where that was measured and the row is its own."""
        best = self.best if self.alone or len(self.standings) == 1 else None
        return "" if best is None or best.cost is None else number(best.cost, 2)


@functools.lru_cache(8)
def entries(comparisons: tuple[Comparison, ...]) -> tuple[Entry, ...]:
    """Every plug-in of every role."""
    known = {name: tested.Tested(**{**one, "files": tuple(one["files"])}) for name, one in table().get("tests", {}).items()}
    found = registry.all_plugins()
    if any(f"{plugin.role}/{plugin.name}" not in known for plugin in found):  # newer than the table: look at the tests themselves
        known |= tested.tested()
    found.sort(key=lambda plugin: (plugin.role in ("data", "subjects"), plugin.role != "erase"))  # what is worked on comes last
    return tuple(_entry(plugin, known.get(f"{plugin.role}/{plugin.name}", tested.Tested()), comparisons) for plugin in found)


def _entry(plugin: Plugin, proof: tested.Tested, comparisons: Sequence[Comparison]) -> Entry:
    name, docstring = f"{plugin.role}/{plugin.name}", plugin.docstring
    own = cards.named(docstring)
    found = [one for one in map(cards.card, own) if one is not None]
    arxiv = tuple(dict.fromkeys(cards.ARXIV.findall(docstring))) or tuple(number for one in found[:1] for number in one.arxiv)
    standings = tuple(row for one in comparisons for row in one.rows if name in row.uses)
    return Entry(
        plugin=plugin, title=clean(plugin.name, 80), summary=clean(plugin.summary, 300), cards=own, arxiv=arxiv, year=_year(arxiv, found),
        tested=proof, standings=standings, reconstruction=any(one.reconstruction for one in found),
        added=table().get("added", {}).get(name),
    )  # fmt: skip


def _year(arxiv: Sequence[str], found: Sequence[cards.Card]) -> int | None:
    """The year of the first paper: that of its arXiv number, else the first year that its card's source names."""
    if arxiv:
        return 2000 + int(arxiv[0][:2])
    years = [int(year) for one in found for year in re.findall(r"\b(?:19|20)\d\d\b", one.source)]
    return years[0] if years else None


@functools.cache
def settings(role: str, name: str) -> tuple[list[dict[str, Any]], str]:
    """The settings of a plug-in, or why they cannot be read here. This imports the plug-in, and with most of them torch."""
    try:
        found = fields.fields(registry.load(name, role).Settings)
    except (LetheonError, ImportError) as error:
        return [], clean(str(error), 300)
    for one in found:
        one["shown"] = "must be given" if one["required"] else fields.text(one["default"])
    return found, ""


def index(found: Sequence[Entry], comparisons: Sequence[Comparison], whole: Sequence[str] = ()) -> bytes:
    """The page of all entries. `whole` are names of comparisons that have a page of their own below `sweeps/`."""
    roles = list(dict.fromkeys(entry.role for entry in found))
    counts = [(word, sum(entry.level == level for entry in found)) for level, word in enumerate(LEVELS)]
    return render(
        "atlas.html.j2", "atlas.html", entries=found, roles=roles, levels=LEVELS, counts=counts, comparisons=comparisons, whole=whole,
        slug=slug,
    )  # fmt: skip


def method(entry: Entry) -> bytes:
    """The page of one entry."""
    rows, fault = settings(entry.plugin.role, entry.plugin.name)
    shown = [one for one in map(cards.card, entry.cards) if one is not None]
    text = [(kind, clean(part, None)) for kind, part in cards.prose(entry.plugin.docstring)]
    return render(
        "method.html.j2", entry.page, entry=entry, rows=rows, fault=fault, cards=shown, text=text, percent=percent, number=number
    )  # fmt: skip


def added(entry: Entry) -> datetime | None:
    """When it came in, in UTC."""
    return None if entry.added is None else datetime.fromisoformat(entry.added).astimezone(UTC)
