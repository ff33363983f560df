"""Cards: what is known of a paper and how letheon follows it. Read from `cards/` of a checkout or from the installed package's files."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from markupsafe import Markup

PACKAGE = Path(__file__).resolve().parent.parent
_SIGNS = re.compile(r"(?<=[\w)])\*(?=[\w(])|_")  # a product or an index in a formula, no emphasis
ARXIV = re.compile(r"\b\d{4}\.\d{4,5}\b")


@dataclass(frozen=True)
class Card:
    """One card: its title, the three lines on top as plain text, and its sections as Markdown."""

    name: str
    title: str
    source: str
    grounding: str
    body: str

    @property
    def arxiv(self) -> tuple[str, ...]:
        """The arXiv numbers of its sources, in the order in which they are named."""
        return tuple(dict.fromkeys(ARXIV.findall(self.source)))

    @property
    def reconstruction(self) -> bool:
        """Whether it says that something in it had to be reconstructed."""
        return "reconstruct" in self.grounding.lower()

    @property
    def html(self) -> Markup:
        """The sections, headings two levels down. HTML in a card is shown as text; there are no links and no pictures."""
        return Markup(_markdown().render(_formulas(self.body)))


def root() -> Path | None:
    """The checkout that this package is imported from, if it is one."""
    above = PACKAGE.parents[1]
    return above if (above / "pyproject.toml").is_file() and (above / "cards").is_dir() else None


@functools.cache
def places() -> dict[str, Path]:
    """All cards by name."""
    checkout = root()
    if checkout is not None:
        return {path.stem: path for path in sorted((checkout / "cards").glob("*.md"))}
    try:
        found = files("letheon") or []
    except PackageNotFoundError:
        return {}
    return {path.stem: Path(str(path.locate())) for path in found if path.parent.name == "cards" and path.suffix == ".md"}


@functools.cache
def card(name: str) -> Card | None:
    """The card of that name, or None."""
    path = places().get(name)
    if path is None or not path.is_file():
        return None
    return parse(name, path.read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Card:
    """A card from its text."""
    top, mark, body = text.partition("\n## ")
    title = next((line[2:].strip() for line in top.splitlines() if line.startswith("# ")), name)
    items = dict(re.findall(r"^- (\w+): (.*?)(?=^- |\Z)", top, re.MULTILINE | re.DOTALL))
    said = {key: " ".join(value.split()) for key, value in items.items()}
    return Card(name, title, said.get("Source", ""), said.get("Grounding", ""), f"## {body}" if mark else "")


def named(docstring: str) -> tuple[str, ...]:
    """The cards that a docstring names at its end: `Cards: muse, dusk.`"""
    found = re.search(r"\bCards?: ([a-z0-9, -]+)", " ".join(docstring.split()))
    names = [name.strip() for name in found[1].split(",")] if found else []
    return tuple(name for name in names if name in places())


def prose(docstring: str) -> list[tuple[str, str]]:
    """A docstring in pieces: ("p", flowing text) and ("pre", formulas and tables, as they stand)."""
    pieces: list[tuple[str, list[str]]] = []
    for line in docstring.splitlines():
        kind = "pre" if line.startswith(" ") else "p" if line else ""
        if pieces and pieces[-1][0] == kind:
            pieces[-1][1].append(line)
        else:
            pieces.append((kind, [line]))
    return [(kind, (" " if kind == "p" else "\n").join(lines)) for kind, lines in pieces if kind]


def _formulas(body: str) -> str:
    """Lines that are set in below a paragraph are formulas: they keep lines of their own. Lists go on as Markdown has it."""
    lines, listed = body.splitlines(), False
    for place, text in enumerate(lines):
        listed = bool(re.match(r"\s*(-|\d+\.|[a-z]\.) ", text)) or (listed and bool(text.strip()) and not text.startswith("#"))
        if place and not listed and re.match(r" {2,}\S", text) and lines[place - 1].strip() and not lines[place - 1].startswith("#"):
            lines[place - 1] += "\\"
    pieces = re.split("(`[^`\n]*`)", "\n".join(lines))  # every second one is code
    return "".join(text if place % 2 else _SIGNS.sub(r"\\\g<0>", text) for place, text in enumerate(pieces))


@functools.cache
def _markdown():  # noqa: ANN202  (the type belongs to markdown-it-py)
    from markdown_it import MarkdownIt

    made = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink", "html_inline", "html_block"])

    def lower(self, tokens, place, options, env):  # noqa: ANN001, ANN202
        tokens[place].tag = f"h{min(int(tokens[place].tag[1:]) + 1, 6)}"
        return self.renderToken(tokens, place, options, env)

    made.add_render_rule("heading_open", lower)
    made.add_render_rule("heading_close", lower)
    return made
