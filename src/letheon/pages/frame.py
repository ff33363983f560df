"""The frame of every page: templates of this folder over those of `report`, one style sheet, one small script, headers."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from letheon.report.plots import tag
from letheon.report.text import clean

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).resolve().parent
REPORT = HERE.parent / "report"
NAV = (("index.html", "Start"), ("requests.html", "Requests"), ("models.html", "Models"), ("runs.html", "Runs"), ("atlas.html", "Atlas"))
POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"  # a report brings its style along
TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml", ".xml": "application/atom+xml; charset=utf-8", ".json": "application/json",
}  # fmt: skip
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="5.5" fill="none" stroke="#5d636a" '
    'stroke-width="2.5" stroke-dasharray="22 13"/></svg>\n'
)
# state or tone -> the shape that says it without colour
SHAPES = {
    "received": "ring", "located": "half", "erased": "dot", "audited": "tick", "refused": "cross", "overdue": "flag",
    "good": "tick", "partly": "half", "bad": "cross", "unknown": "ring", "pass": "tick", "fail": "cross",
}  # fmt: skip
PATHS = {
    "tick": "M2.5 8.5L6.5 12.5L13.5 4", "cross": "M3.5 3.5L12.5 12.5M12.5 3.5L3.5 12.5", "flag": "M4 14.5V2.5H13L10.5 5.75L13 9H4",
    "half": "M8 2.5A5.5 5.5 0 0 1 8 13.5Z",
}  # fmt: skip


def sign(state: str, x: float = 0, y: float = 0, size: float = 16) -> Markup:
    """A state or tone as a shape in a square of `size` at (x, y): parts of a drawing, never the only carrier of meaning."""
    kind = SHAPES.get(state, "ring")
    round_ = tag("circle", cx=8, cy=8, r=5.5, class_="shape full" if kind == "dot" else "shape")
    parts = [round_] if kind in ("ring", "dot", "half") else []
    if kind in PATHS:
        parts.append(tag("path", d=PATHS[kind], class_="shape full" if kind == "half" else "shape"))
    return tag("g", *parts, class_=f"sign tone-{state}", transform=f"translate({x:.1f} {y:.1f}) scale({size / 16:.3g})")


def icon(state: str) -> Markup:
    """The sign of a state for running text; the word stands beside it."""
    return tag("svg", sign(state), viewBox="0 0 16 16", class_="sign", aria_hidden="true")


def slug(text: str) -> str:
    """A name for a file and for a link, of plain characters only."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:60] or "unnamed"


def day(at: datetime) -> str:
    """A date in UTC: 2026-01-31."""
    return at.astimezone(UTC).strftime("%Y-%m-%d")


def moment(at: datetime) -> str:
    """A time in UTC to the minute: 2026-01-31 12:00 UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def many(count: int, one: str, more: str | None = None) -> str:
    """A count with its noun: 1 request, 2 requests."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def coded(text: str) -> Markup:
    """Plain text in which what stands between backticks is shown as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return Markup(escape(text))
    return Markup("").join(tag("code", part) if place % 2 and part else escape(part) for place, part in enumerate(parts))


@functools.cache
def environment() -> Environment:
    """Templates of this folder, then those of `report`: a page of `report` that is asked for here gets the frame of this folder."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([HERE, REPORT])
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters.update(clean=clean, coded=coded, day=day, moment=moment)
    made.globals.update(nav=NAV, policy=POLICY, icon=icon, many=many)
    return made


def render(template: str, path: str, **shown: object) -> bytes:
    """A page for `path`; every text that it shows is escaped unless it is Markup made by letheon."""
    up = "../" * path.count("/")
    return environment().get_template(template).render(path=path, up=up, **shown).encode("utf-8", "backslashreplace")


@functools.cache
def asset(name: str) -> bytes:
    """The style sheet (that of reports and what the pages add), the script and the icon."""
    if name == "icon.svg":
        return ICON.encode()
    if name == "style.css":
        return (REPORT / "style.css").read_bytes() + b"\n" + (HERE / "pages.css").read_bytes()
    return (HERE / name).read_bytes()
