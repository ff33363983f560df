"""What the documents hold: their pages, and the blocks of code in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its title, its text, and whether what it shows may differ from run to run."""

    language: str
    title: str | None
    text: str
    varies: bool


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page in their order."""
    found = re.findall(r"(<!-- varies -->\n)?```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [Block(language, title or None, text, bool(varies)) for varies, language, title, text in found]


def commands(page: Path) -> list[str]:
    """The letheon commands of a page: of its shell and text blocks, and inline ones."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in blocks(page) if block.language in ("bash", "text") for line in block.text.replace("\\\n", " ").splitlines()]
    lines += [line.strip() for line in re.findall(r"^    (letheon .*)$", text, re.MULTILINE)] + re.findall(r"`(letheon [^`\n]+)`", text)
    return [line.split("  #")[0].strip() for line in lines if line.startswith("letheon ")]
