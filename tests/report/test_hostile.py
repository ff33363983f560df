"""Hostile text in every place that data, a model or a person can fill: no page gets an element or an attribute that it would not have had.

The same findings are made twice, once with plain words and once with hostile text in each text field and each key. Both pages are parsed;
the elements (with their parents) and the names of their attributes must be the same, and no attribute may hold what could act.
"""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from letheon.core.findings import Finding, Findings, Leftover
from letheon.report import render
from letheon.report.compare import compare
from letheon.report.known import KNOWN
from letheon.report.sweep import compared

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "script in another case": "</ScRiPt ><SCRIPT SRC=//evil.example/x.js>",
    "image": "<img src=x onerror=alert(1)>",
    "drawing": "</text></svg><svg onload=alert(1)><foreignObject>",
    "double quote": '" onmouseover="alert(1)" x="',
    "single quote": "' onfocus='alert(1)' autofocus='",
    "no quote": "x onload=alert(1) style=width:expression(alert(1))",
    "link": "javascript:alert(1)",
    "link in an anchor": '<a href="javascript:alert(1)">x</a>',
    "data link": "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==",
    "end of all": "</title></style></td></table></section></main></body></html><form action=//evil.example>",
    "comment": "<!-- --!> <![CDATA[ ]]> <?php ?>",
    "style": "</style><style>*{background:url(//evil.example)}",
    "frame": "<iframe srcdoc='<script>alert(1)</script>'>",
    "base": "<base href=//evil.example><meta http-equiv=refresh content=0;url=//evil.example>",
    "entities": "&lt;script&gt;alert(1)&lt;/script&gt; &#60;script&#62; &quot; &#x0;",
    "template": "{{ 7*7 }}{% raw %}{# #}${7*7}",
    "right to left": "\u202egpj.exe\u2066\u200f\u061c",
    "null": "<scr\x00ipt>\x00\x1b[2J\x07\x9b",
    "half pair": "\ud800<b>\udfff",
    "breaks": "a\r\n<br>\u2028<hr>\u2029\x0b\x0c",
    "wide": "＜script＞\ufeff\ufffe",
}
VOID = {"meta", "line", "circle", "rect", "path", "polyline", "br", "img", "link", "input", "base", "hr"}
FORBIDDEN = {"script", "iframe", "object", "embed", "form", "base", "link", "a", "img", "use", "foreignobject"}
ACTS = re.compile(r"javascript:|data:|expression\(|url\(|//|[<>]", re.IGNORECASE)


class Shape(HTMLParser):
    """The elements of a page with their parents and the names of their attributes, and what the attributes hold."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: Counter[tuple] = Counter()
        self.held: list[tuple[str, str, str]] = []
        self.others: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, tag, attrs):
        self.take(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.take(tag, attrs)

    def take(self, tag, attrs):
        if tag == "mark" and self.open[-1] == "bdi" and not attrs:
            return  # as many as there are words of the true answer
        self.elements[(tag, self.open[-1] if self.open else "", tuple(sorted(key for key, _ in attrs)))] += 1
        self.held += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_comment(self, data):
        self.others.append(data)

    def unknown_decl(self, data):
        self.others.append(data)

    def handle_pi(self, data):
        self.others.append(data)


def findings(said: str) -> Findings:
    """Findings with `said` in every text and every key; numbers, directions and known names are the same for every `said`."""

    def one(name, value, **more):
        known = {"note": said, "version": said, "audit": said, "n": 9, "low": value - 0.1, "high": value + 0.1, "rows": (0.1, 0.5, 0.9, None)}
        return Finding(name=name, value=value, **(known | more))

    def model(level):
        ways = {"question": {"probability": level}, said: {"probability": 0.2}, f"{said} again": {said: level, "probability": 0.4}}
        extra = {
            said: level, "curve": {said: level, f"{said} again": 0.5, "2": 0.6}, "ways": ways, "holdout_rows": [0.1, 0.2], "chance": 0.5,
            "values": {said: level}, "text": said, "retrained": level, "true_positive_rate_at": {"0.01": level, said: 0.2}, "attack": said,
        }  # fmt: skip
        yield one(said, level, split=f"forget {said}", direction="reference", extra=extra)
        yield one(said, level, split=said, direction="higher")
        yield Finding(name=f"unmeasured {said}", value=None, n=0, note=said, split=said)
        for name in KNOWN_NAMES:
            yield one(name, level, split="forget", direction="reference", extra=extra)
        for name in ("probability", "rouge-l-recall", "model-utility"):
            for split in ("retain", f"retain-{said}", f"forget-{said}", f"holdout {said}", ""):
                yield one(name, level, split=split, direction="higher", extra=extra)

    models = {"before": tuple(model(0.9)), "after": tuple(model(0.4)), "retrained": tuple(model(0.1)), said: tuple(model(0.3))}
    words = {label: said for label in models}
    leftovers = tuple(
        Leftover(id=f"{said} {k}", prompt=said, answer=said, said=words, score=dict.fromkeys(words, k / 3)) for k in range(3)
    )
    context = {"command": said, "seed": 3, said: {said: [said, {said: said}]}, "versions": {said: said}, "list": [said, said]}
    context["recipe"] = {"method": {"name": said, said: said}}
    step = {"method": said, "settings": {said: said}, "notes": {said: said}}
    context["subjects"] = {label: {"name": said, "lineage": [step]} for label in models}
    return Findings(audit=said, models=models, leftovers=leftovers, context=context)


KNOWN_NAMES = sorted(set(KNOWN) - {"probability", "rouge-l-recall", "model-utility"})


def sweep_results(said: str) -> dict:
    """The `results.json` of a sweep with `said` in every text and key."""
    values = {"forget/probability": 0.2, "/model-utility": 0.5, f"{said}/{said}": 0.3, f"forget/{said}": 0.4}
    method = {"name": said, said: said, "retain": {"name": said, said: [said]}}
    same = {"method": method, "folder": said, "cost": {"processor_seconds": 2.0}}
    cells = [
        {**same, "row": f"{said} {row}", "seed": seed, "values": {key: value + row / 9 for key, value in values.items()}}
        for row in range(3)
        for seed in (0, 1)
    ]
    cells.append({"row": f"failed {said}", "seed": 0, "method": method, "folder": said, "failed": said})
    tuning = {said: [{"values": {said: said}, "score": 0.1}, {"values": {said: said}, "score": 0.0, "failed": said}]}
    anchors = {"before": values, "retrained": values}
    columns = ["forget/probability", "/model-utility", f"{said}/{said}", f"forget/{said}"]
    return {"out": said, "seeds": [0, 1], "columns": columns, "tuning": tuning, "cells": cells, "anchors": anchors}


def pages(said: str) -> dict[str, str]:
    """The three pages."""
    first, second = findings(said), findings(said)
    fewer = second.model_copy(update={"models": {label: found for label, found in second.models.items() if label != "retrained"}})
    return {
        "page.html": render(first),
        "compare.html": compare([(said, first), (f"{said} again", fewer)]).html,
        "sweep.html": compared(sweep_results(said)).html,
    }


@pytest.fixture(scope="module")
def plain():
    return {name: Shape(page) for name, page in pages("word").items()}


def same_shape(name: str, page: str, harmless: Shape) -> Shape:
    """The page has the elements and attributes of the harmless one, and none that could act."""
    page.encode("utf-8")
    found = Shape(page)
    assert found.elements - harmless.elements == Counter() and harmless.elements - found.elements == Counter(), name
    assert found.others == harmless.others == []
    assert not {tag for tag, *_ in found.elements} & FORBIDDEN
    keys = {key for *_, group in found.elements for key in group}
    assert not [key for key in keys if key.startswith("on") or key in ("href", "src", "srcdoc", "action", "formaction", "xlink:href")]
    for tag, key, value in found.held:
        if key in ("class", "id", "style", "d", "viewbox", "http-equiv", "content"):
            assert not ACTS.search(value), (tag, key, value)
    return found


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_adds_nothing_to_a_page(kind, plain):
    for name, page in pages(HOSTILE[kind]).items():
        same_shape(name, page, plain[name])
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u202a-\u202e\u2066-\u2069\u200e\u200f\ud800-\udfff]", page), name


@pytest.mark.parametrize("text", ["w" * 1_000_000, "<b>" * 333_333, "a " * 500_000], ids=["one word", "tags", "many words"])
def test_a_megabyte_in_every_field_is_cut(text, plain):
    for name, page in pages(text).items():
        same_shape(name, page, plain[name])
        assert len(page) < 3_000_000, name


def test_the_text_does_reach_the_pages():
    """Else the tests above would be empty. All sections are there."""
    sections = {id for id in re.findall('<h2 id="(\\w+)"', pages("word")["page.html"])}
    assert sections == {"measures", "tradeoff", "forms", "curves", "leftovers", "spread", "sides", "glossary", "context"}
    for name, page in pages("<script>alert(1)</script>").items():
        assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8, name
