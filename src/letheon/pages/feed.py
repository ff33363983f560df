"""What is new, as an Atom feed (RFC 4287): one entry for each plug-in of the atlas and each release that has a date, newest first."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree

from letheon.report.text import clean

from .atlas import Entry, added
from .standing import table

ATOM = "http://www.w3.org/2005/Atom"
NAMES = uuid.uuid5(uuid.NAMESPACE_OID, "letheon")  # identifiers that never change, whoever serves the feed and wherever
LONGEST = 200  # entries
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class News:
    """One entry of the feed."""

    key: str
    title: str
    at: datetime
    words: str
    link: str


def news(entries: Sequence[Entry]) -> list[News]:
    """Everything that has a date, newest first."""
    found = []
    for entry in entries:
        at = added(entry)
        if at is not None:
            name = f"{entry.plugin.role}/{entry.plugin.name}"
            found.append(News(f"atlas/{name}", f"{entry.title} ({entry.role})", at, entry.summary, entry.page))
    for release in table().get("releases", []):
        at = datetime.fromisoformat(release["date"]).replace(tzinfo=UTC)
        found.append(News(f"release/{release['version']}", f"letheon {release['version']}", at, release["text"], "atlas.html"))
    return sorted(found, key=lambda one: (-one.at.timestamp(), one.key))[:LONGEST]


def feed(entries: Sequence[Entry]) -> bytes:
    """The feed. Links are relative to it; identifiers are UUIDs made from names, the same in every copy."""
    found = news(entries)
    ElementTree.register_namespace("", ATOM)
    root = ElementTree.Element(f"{{{ATOM}}}feed")
    _add(root, "title", "letheon: new in the atlas")
    _add(root, "id", _id("feed"))
    _add(root, "updated", _written(found[0].at if found else datetime(1970, 1, 1, tzinfo=UTC)))
    _add(_add(root, "author"), "name", "letheon")
    _add(root, "link", rel="self", href="feed.xml", type="application/atom+xml")
    _add(root, "link", rel="alternate", href="atlas.html", type="text/html")
    for one in found:
        entry = _add(root, "entry")
        _add(entry, "title", one.title)
        _add(entry, "id", _id(one.key))
        _add(entry, "updated", _written(one.at))
        _add(entry, "published", _written(one.at))
        _add(entry, "link", rel="alternate", href=one.link, type="text/html")
        _add(entry, "summary", one.words)
    ElementTree.indent(root)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode").encode() + b"\n"


def _add(parent: ElementTree.Element, name: str, text: str | None = None, **attributes: str) -> ElementTree.Element:
    made = ElementTree.SubElement(parent, f"{{{ATOM}}}{name}", attributes)
    made.text = None if text is None else _NOT_XML.sub("", clean(text))
    return made


def _id(key: str) -> str:
    return uuid.uuid5(NAMES, key).urn


def _written(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
