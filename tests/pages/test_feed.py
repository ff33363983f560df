"""The feed obeys RFC 4287 as far as its rules can be checked on one document."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from letheon import pages
from letheon.pages import atlas, feed, standing

ATOM = "{http://www.w3.org/2005/Atom}"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
ONCE = ("id", "title", "updated")


@pytest.fixture(scope="module")
def root():
    return ElementTree.fromstring(pages.site(None, [])["feed.xml"]())


def test_feed_and_entries_have_what_they_must_have_once(root):
    assert root.tag == f"{ATOM}feed" and len(root.findall(f"{ATOM}author/{ATOM}name")) == 1
    entries = root.findall(f"{ATOM}entry")
    assert len(entries) > 100
    for one in (root, *entries):
        assert all(len(one.findall(f"{ATOM}{name}")) == 1 and one.find(f"{ATOM}{name}").text for name in ONCE)
        assert TIME.fullmatch(one.find(f"{ATOM}updated").text)
        assert one.find(f"{ATOM}id").text.startswith("urn:uuid:"), "an absolute IRI"
        links = [(link.get("rel"), link.get("type"), link.get("hreflang")) for link in one.findall(f"{ATOM}link")]
        assert ("alternate", "text/html", None) in links and len(links) == len(set(links))
    assert [link.get("href") for link in root.findall(f"{ATOM}link") if link.get("rel") == "self"] == ["feed.xml"]
    known = {f"{ATOM}{name}" for name in ("title", "id", "updated", "published", "link", "summary")}
    assert all({part.tag for part in entry} <= known for entry in entries)


def test_identifiers_are_unique_and_never_change(root):
    found = [part.text for part in root.iter(f"{ATOM}id")]
    assert len(set(found)) == len(found)
    npo = next(one for one in root.findall(f"{ATOM}entry") if one.find(f"{ATOM}title").text.startswith("npo "))
    assert npo.find(f"{ATOM}id").text == "urn:uuid:e4e123b4-b8b8-562b-a43a-c0aa040502ba"


def test_newest_first_and_the_feed_is_as_new_as_its_newest_entry(root):
    times = [one.text for one in root.findall(f"{ATOM}entry/{ATOM}updated")]
    assert times == sorted(times, reverse=True) and root.find(f"{ATOM}updated").text == times[0]


def test_links_lead_to_pages(root):
    made = pages.site(None, [])
    links = {link.get("href") for link in root.iter(f"{ATOM}link")}
    assert len(links) > 100 and links <= set(made)


def test_dated_releases_are_news_and_text_is_cleaned(monkeypatch):
    release = {"version": "9.9", "date": "2030-01-31", "text": "<b>new</b> \x00\ufffe\u202e & more"}
    monkeypatch.setattr(feed, "table", lambda: {"releases": [release]})
    root = ElementTree.fromstring(feed.feed(atlas.entries(tuple(standing.shipped()))))
    first = root.find(f"{ATOM}entry")
    assert first.find(f"{ATOM}title").text == "letheon 9.9" and first.find(f"{ATOM}updated").text == "2030-01-31T00:00:00Z"
    assert first.find(f"{ATOM}summary").text.startswith("<b>new</b> <U+0000>")
    assert root.find(f"{ATOM}updated").text == "2030-01-31T00:00:00Z"


def test_a_feed_without_news_is_still_a_feed():
    root = ElementTree.fromstring(feed.feed([]))
    assert root.find(f"{ATOM}updated").text and root.findall(f"{ATOM}entry") == []
