"""The pages over a desk: what they say, what they must not say, and that every link leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from posixpath import dirname, join, normpath
from xml.etree import ElementTree

import pytest

from letheon import pages

from .conftest import SECRET

ARXIV = re.compile(r"https://arxiv\.org/abs/\d{4}\.\d{4,5}")


class Page(HTMLParser):
    """Links, identifiers, attributes and inline scripts of one page."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.attributes: set[str] = set()
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        for key, value in attrs:
            self.attributes.add(key)
            if key == "id":
                self.ids.append(value)
            if key in ("href", "src", "action", "srcset", "data", "poster", "xlink:href"):
                self.links.append((tag, key, value))

    def handle_data(self, data):
        if self.inside == "script" and data.strip():
            self.scripts.append(data)


@pytest.fixture(scope="module")
def parsed(site):
    return {path: Page(content.decode()) for path, content in site.items() if path.endswith(".html")}


def test_every_link_is_relative_and_leads_to_a_page(site, parsed):
    """But for links of papers, which load nothing until somebody follows them."""
    followed = 0
    for path, page in parsed.items():
        for tag, _, target in page.links:
            if tag == "a" and ARXIV.fullmatch(target):
                continue
            assert not re.match(r"[a-z]+:|//|/", target), (path, tag, target)
            where, _, part = target.partition("#")
            found = normpath(join(dirname(path), where)) if where else path
            assert found in site, (path, target)
            assert not part or part in parsed[found].ids, (path, target)
            followed += 1
    assert len(parsed) > 100 and followed > 1000


def test_every_page_can_be_reached_from_the_start(parsed):
    reached, new = set(), {"index.html"}
    while new:
        reached |= new
        followed = [(path, target.partition("#")[0]) for path in new for tag, _, target in parsed[path].links if tag == "a"]
        targets = {normpath(join(dirname(path), target)) for path, target in followed}
        new = (targets & set(parsed)) - reached
    assert set(parsed) == reached


def test_a_strict_policy_holds(parsed):
    """No inline script, no handler, no style in an attribute but in the reports, which bring a policy of their own."""
    for path, page in parsed.items():
        assert page.scripts == [], path
        assert not [key for key in page.attributes if key.startswith("on") or key == "style"], path
        assert len(page.ids) == len(set(page.ids)), path
    assert "unsafe" not in pages.headers("index.html")["Content-Security-Policy"]
    assert "script-src" not in pages.headers("models/1.html")["Content-Security-Policy"]
    assert pages.headers("feed.xml")["Content-Type"].startswith("application/atom+xml")


def test_the_style_sheet_and_the_script_load_nothing(site):
    assert not re.search(rb"@import|url\(|https?:", site["style.css"])
    assert not re.search(rb"https?:|fetch|XMLHttp|import\(|eval|innerHTML|document\.write", site["pages.js"])


def test_start_says_what_is_open_overdue_and_judged(site, given):
    text = site["index.html"].decode()
    assert "3 requests open" in text and "1 overdue" in text
    assert "model 3" in text and "Not gone" in text and "model 2" in text
    ids = given[1]
    order = [text.index(ids[name]) for name in ("overdue", "received", "located")]
    assert order[0] < min(order[1:]) and ids["audited"] not in text


def test_a_request_shows_counts_and_history_without_text(site, given):
    _, ids, _, _ = given
    located, forgotten, refused = (site[f"requests/{ids[name]}.html"].decode() for name in ("located", "forgotten", "refused"))
    assert "near duplicates" in located and "The text is not shown" in located
    assert "2 rows" in site["requests.html"].decode()
    assert "has been forgotten; only counts" in forgotten and "near duplicates: 1" in forgotten
    history = located[located.index('id="history"') :]
    assert 0 < history.index("received</span>") < history.index("located</span>")
    assert "refused" in refused and "No evidence has been written yet" in refused


def test_no_page_holds_what_a_request_is_about(site):
    leaks = [path for path, content in site.items() if SECRET.encode() in content or b"Ilva" in content]
    assert leaks == [], "reports of the desk's models come without rows"


def test_text_is_shown_folded_if_asked_for_but_never_once_forgotten(given):
    desk, ids, runs, _ = given
    made = pages.site(desk, runs, texts=True)
    located, forgotten = (made[f"requests/{ids[name]}.html"]().decode() for name in ("located", "forgotten"))
    before, _, inside = located.partition("<details>")
    assert SECRET in inside.partition("</details>")[0] and SECRET not in before
    assert SECRET not in forgotten and "<details>" not in forgotten


def test_the_lineage_is_a_drawing_and_a_table(site):
    text = site["models.html"].decode()
    drawing = ElementTree.fromstring(re.search(r"<svg.*?</svg>", text, re.S)[0])
    words = {part.tag: part.text for part in drawing if part.tag in ("title", "desc")}
    assert words["title"] == "4 models, 2 requests between them"
    assert "model 2 from model 1 by r-" in words["desc"] and "model 3 from model 1" in words["desc"] and "Not gone" in words["desc"]
    edges = [part.get("d") for part in drawing if part.get("class") == "edge"]
    assert len(edges) == 3 and sum("Q" in edge for edge in edges) == 1, "one branch"
    table = text[text.index("<table") : text.index("</table>")]
    assert all(f"model {number}" in table for number in range(4)) and "Gone as far as measured" in table


def test_runs_stand_side_by_side_with_their_reports(site):
    text = site["runs.html"].decode()
    assert "2 runs compared" in text and 'href="runs/gone.html"' in text and "Forgetting against retention" in text
    assert "Not gone" in site["runs/there.html"].decode()


def test_a_run_that_cannot_be_read_is_said_and_hides_nothing_else(given, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "findings.json").write_text("{", encoding="utf-8")
    made = pages.site(None, [given[2][0], tmp_path / "broken"])
    assert "does not hold findings" in made["runs.html"]().decode() and "1 run compared" in made["runs.html"]().decode()
    assert "does not hold findings" in made["runs/broken.html"]().decode()


def test_without_a_desk_there_are_runs_and_the_atlas():
    made = pages.site(None, [])
    assert "No desk was given" in made["index.html"]().decode() and "No runs were given" in made["runs.html"]().decode()
    assert not [path for path in made if path.startswith(("requests/", "models/"))]


def test_two_runs_of_one_name_keep_their_pages(given, tmp_path):
    from .conftest import write_run

    made = pages.site(None, [write_run(tmp_path / side / "run", 1.0) for side in ("a", "b")])
    assert {path for path in made if path.startswith("runs/")} == {"runs/run.html", "runs/run-2.html"}


def test_a_damaged_ledger_is_said_on_the_start_page(given, monkeypatch):
    desk = given[0]
    monkeypatch.setattr(desk, "check", lambda: ["event 3 does not follow from event 2"])
    text = pages.site(desk, [])["index.html"]().decode()
    assert "not whole" in text and "event 3 does not follow" in text


def test_new_requests_appear_when_the_table_is_made_anew(tmp_path):
    pytest.importorskip("sqlalchemy", reason="the extra `desk` is not installed: see tests/SKIPS.md")
    from letheon.ledger.records import What

    from .conftest import make_desk

    desk, _ = make_desk(tmp_path / "desk")
    before = set(pages.site(desk, []))
    new = desk.add(What(entity="Later"), "somebody")
    assert set(pages.site(desk, [])) - before == {f"requests/{new.id}.html"}


def test_opening_pages_imports_no_torch(given):
    """All but those of single methods, which show settings."""
    code = (
        "import pathlib, sys\nfrom letheon import pages\nfrom letheon.ledger.desk import Desk\n"
        "made = pages.site(Desk.open(pathlib.Path(sys.argv[1])), [])\n"
        "[make() for path, make in made.items() if not path.startswith('atlas/')]\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(given[0].folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
