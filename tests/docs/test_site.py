"""The site: it builds in strict mode without a network, loads nothing from elsewhere, and its reference is the code's."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import typer

from letheon.cli.main import app
from letheon.core import registry

from .conftest import DOCS, PAGES, ROOT

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "sqlalchemy", "cryptography")),
    reason="the packages of the extras `docs` and `desk` are not installed: see tests/SKIPS.md",
)


class Loaded(HTMLParser):
    """What a page loads when it is opened, and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.places: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed", "object"):
            self.places += [given[name] for name in ("src", "srcset", "data") if given.get(name)]
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.places.append(given["href"])

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, by path."""
    out = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "__pycache__" not in {path.name for path in out.iterdir()} and not list(out.rglob("*.py"))
    return {path.relative_to(out).as_posix(): path.read_text(encoding="utf-8") for path in out.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site):
    found = {place for html in site.values() for place in Loaded(html).places}
    assert len(found) > 5 and [place for place in found if re.match(r"(\w+:)?//", place)] == []
    assert not [name for name, html in site.items() if 'class="mermaid"' in html or "@import url(http" in html]


def test_the_reference_names_every_plugin_and_every_setting(site):
    pages = "\n".join(" ".join(Loaded(html).text) for name, html in site.items() if name.startswith("reference/"))
    words, missing, swept = set(re.findall(r"[\w-]+", pages)), [], 0
    for plugin in registry.all_plugins():
        settings = registry.load(plugin.name, plugin.role).Settings.model_fields
        swept += 1 + len(settings)
        missing += [f"{plugin.role}/{plugin.name}: {name}" for name in (plugin.name, *settings) if name not in words]
    assert swept > 500 and missing == []


def test_the_reference_has_every_role(site):
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    with_plugins = {role for role in registry.ROLES if registry.plugins(role)}
    assert {role for roles in hooks.PAGES.values() for role in roles} == with_plugins, "name the new role in docs/hooks.py and mkdocs.yml"
    assert {f"reference/{page}.html" for page in hooks.PAGES} <= set(site)


def test_the_reference_has_every_command_and_exit_code(site):
    text = " ".join(Loaded(site["reference/commands.html"]).text)

    def names(group, path):
        for name, command in group.commands.items():
            yield f"{path} {name}"
            yield from names(command, f"{path} {name}") if hasattr(command, "commands") else ()

    found = list(names(typer.main.get_command(app), "letheon"))
    assert len(found) > 20 and [name for name in found if name not in text] == []
    assert all(code in text for code in ("done", "interrupted", "130"))


def test_the_formats_are_those_of_the_models(site):
    from letheon.core.findings import Finding
    from letheon.flow.recipe import Recipe

    words = set(re.findall(r"\w+", " ".join(Loaded(site["reference/formats.html"]).text)))
    assert {*Finding.model_fields, *Recipe.model_fields, "lineage", "DSSE"} - words == set()


def test_every_page_of_the_repository_is_in_the_site(site):
    assert [page for page in PAGES if page.relative_to(DOCS).with_suffix(".html").as_posix() not in site] == []


def test_a_docstring_becomes_markup_that_says_the_same():
    """Formulas stay as they are, and no character of prose is read as markup."""
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    made = list(hooks.prose("One line <b>.\n\n    L = a * b\n        where a\n\nMore [x] and 2 * 3.\n"))
    assert made[:2] == ["One line &lt;b>.", ""]
    assert made[2:6] == ["```text", "L = a * b", "    where a", "```"]
    assert "More \\[x] and 2 \\* 3." in made
    assert list(hooks.table(("a", "b"), [("x|y", "")])) == ["", "| a |", "|---|", "| x\\|y |", ""]
