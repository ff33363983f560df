"""Hostile text in notes, requests, recipes, runs and results: no page gets an element or a target that it would not have had."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from markupsafe import escape

from letheon import pages
from letheon.pages import cards
from letheon.pages.frame import slug

from .conftest import make_desk, write_results, write_run

HOSTILE = {
    "script": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "quotes": "\" onmouseover=\"alert(1)\" ' onfocus='alert(1)' x=",
    "end of all": "</title></style></svg></td></table></details></main></body></html><form action=//evil.example>",
    "template": "{{ 7*7 }}{% raw %}{# #}${7*7}`code`",
    "right to left": "\u202egpj.exe\u2066\u200f\u061c\x00\x1b[2J\x07",
    "one long word": "w" * 20_000,
}
ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u202a-\u202e\u2066-\u2069\u200e\u200f\ud800-\udfff]")


class Shape(HTMLParser):
    """The elements of a page with the names of their attributes, and where they lead."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: Counter[tuple] = Counter()
        self.targets: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag != "code":  # text between backticks
            self.elements[tag, tuple(sorted(key for key, _ in attrs))] += 1
        self.targets += [value for key, value in attrs if key in ("href", "src")]


def made(folder, said: str) -> dict[str, str]:
    """The pages on which text of others stands, by a name that does not depend on it."""
    desk, ids = make_desk(folder / "desk", said)
    runs = [write_run(folder / "runs" / name, level, said) for name, level in (("gone", 1.0), ("there", 0.1))]
    site = pages.site(desk, runs, [write_results(folder / "sweep", said[:200])], texts=True)
    paths = {name: f"requests/{request}.html" for name, request in ids.items()}
    paths |= {name: name for name in ("index.html", "requests.html", "models.html", "models/1.html", "runs.html", "runs/gone.html")}
    paths |= {"feed.xml": "feed.xml"}
    paths |= {"sweep": next(path for path in site if path.startswith("sweeps/")), "atlas.html": "atlas.html"}
    return {name: site[path]().decode() for name, path in paths.items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    pytest.importorskip("sqlalchemy", reason="the extra `desk` is not installed: see tests/SKIPS.md")
    return {name: Shape(page) for name, page in made(tmp_path_factory.mktemp("plain"), "word").items()}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_adds_nothing(kind, plain, tmp_path):
    found = made(tmp_path, HOSTILE[kind])
    for name, page in found.items():
        shape = Shape(page)
        assert shape.elements == plain[name].elements, name
        assert not [target for target in shape.targets if re.match(r"\s*(javascript|data):|//", target)], name
        assert not ACTING.search(page), name
        assert len(page) < 3_000_000
    assert kind == "right to left" or str(escape(HOSTILE[kind][:8])) in found["received"], "the note does reach the page"


def test_cards_show_html_as_text_and_have_no_links():
    text = "# <b>T</b>\n- Source: x\n- Grounding: y\n\n## A\n<script>alert(1)</script> [x](javascript:alert(1)) "
    text += "![y](//evil.example) <http://evil.example>\n"
    html = str(cards.parse("bad", text).html)
    assert set(re.findall(r"<(\w+)", html)) == {"h3", "p"} and "&lt;script&gt;" in html


def test_formulas_of_cards_stay_as_they_are():
    text = "# T\n\n## A\nQ(c*w) = c*Q(w), a_i * b_i and __getitem__\n  L = sum_t w_t\n  M = 2\n\n- one\n  goes on\n\n`x_y*z*w`\n"
    html = str(cards.parse("sums", text).html)
    assert "Q(c*w) = c*Q(w), a_i * b_i and __getitem__<br />\nL = sum_t w_t<br />\nM = 2" in html
    assert "<li>one\ngoes on</li>" in html and "<code>x_y*z*w</code>" in html


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b\\c", "\u202e", "", ".", "x" * 500, "CON:nul"])
def test_names_of_files_are_harmless(name):
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,60}", slug(name))
