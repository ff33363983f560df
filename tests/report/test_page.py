"""The page is deterministic, whole in itself, escapes everything, and holds what the findings hold."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from letheon.core.findings import Finding, Findings, Leftover
from letheon.report import Report, render, report
from letheon.report.leftovers import leftover_rows, marked
from letheon.report.page import flatten
from letheon.report.rows import groups

HOSTILE = [
    "<script>alert(1)</script>",
    "</title><img src=x onerror=alert(1)>",
    "\"' onmouseover='alert(1)",
    "{{ 7*7 }}{% raw %}",
    "\x00\x07\x1b[31mred\x9b",
    "\u202eevil\u2066\u200f",
    "\ud800 lone surrogate",
    "שלום עולם",
    "]]><!--",
    "</style></main>",
    "w" * 10_000,
]
VOID = {"meta", "line", "circle", "rect", "path", "br", "img", "link"}


class Structure(HTMLParser):
    """Checks that every element is closed in order, and collects tags, attributes and text."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def names(page: str) -> set[str]:
    return {tag for tag, _ in Structure(page).tags}


@pytest.fixture
def full(trio):
    rows = tuple(
        Leftover(
            id=f"row-{i}",
            prompt="Who wrote it?",
            answer="Ada Byron wrote the red book",
            said={"before": "Ada Byron wrote the red book", "after": "Ada wrote a blue book", "retrained": "I met Kim"},
            score={"before": 1.0, "after": i / 30, "retrained": None},
        )
        for i in range(30)
    )
    found = trio(rows, {"command": "letheon audit a --before b", "seed": 7, "versions": {"torch": "2"}}, prob=0.1, auc=0.9)
    more = {"rows": (0.0, 0.5, None, 1.0), "extra": {"true_positive_rate_at": {"0.01": 0.31}, "retrained": 0.5}}
    richer = ("probability", "membership-min-k")
    after = tuple(f.model_copy(update=more) if f.name in richer else f for f in found.models["after"])
    return found.model_copy(update={"models": dict(found.models) | {"after": after}})


def hostile_findings(text: str) -> Findings:
    known = {"note": text, "split": f"forget {text}", "version": text, "extra": {text: 1.0}, "rows": (0.1, 0.9)}
    one = Finding(name=text, value=0.5, n=3, low=0.4, high=0.6, **known)
    two = Finding(name=text, value=None, n=0, note=text, split=text, direction="higher")
    three = Finding(name="probability", value=0.5, n=3, split=f"forget{text}", rows=(0.1,))
    four = Finding(name="model-utility", value=0.5, n=3, split=text, direction="higher")
    models = {"before": (one, two, three, four), text: (one, two, three, four), "retrained": (one, four)}
    said = {"before": text, text: text, f"other {text}": text}
    row = Leftover(id=text, prompt=text, answer=text, said=said, score=dict.fromkeys(said, 0.5))
    return Findings(audit=text, models=models, leftovers=(row,), context={"command": text, text: {text: [text, {text: text}]}})


def test_same_findings_same_bytes(full, tmp_path):
    assert render(full) == render(full)
    again = Findings.load(full.save(tmp_path / "findings.json"))
    assert render(again) == render(full)
    turned = full.model_copy(update={"models": dict(reversed(full.models.items())), "context": dict(reversed(full.context.items()))})
    assert turned == full
    assert render(turned) == render(full)


def test_report_saves_what_it_holds(full, tmp_path):
    made = report(full)
    assert isinstance(made, Report)
    assert made.save(tmp_path / "deep" / "r.html").read_text(encoding="utf-8") == made.html
    assert made.save(tmp_path) == tmp_path / "report.html"
    assert str(made.verdict).startswith(made.verdict.word)


def test_whole_in_itself(full):
    page = render(full)
    found = Structure(page)
    assert not names(page) & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "audio", "video", "image", "use"}
    for tag, attributes in found.tags:
        assert not set(attributes) & {"src", "href", "srcset", "action", "style", "data", "xlink:href"}, tag
        assert not [key for key in attributes if key.startswith("on")], tag
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page)
    assert page.startswith("<!doctype html>\n<html lang=")


def test_sections_in_order_with_the_verdict_first(full):
    page = render(full)
    found = Structure(page)
    order = [a["id"] for tag, a in found.tags if tag == "h2"]
    assert order == ["measures", "tradeoff", "leftovers", "spread", "glossary", "context"]
    assert [tag for tag, _ in found.tags if tag in ("h1", "h2", "h3", "table", "svg")][0] == "h1"
    body = page[page.index("<main>") :]
    for clause in report(full).verdict.clauses:
        assert clause.text in body
    assert body.index(report(full).verdict.word) < body.index("<h2")


def test_tables_have_captions_and_scopes(full):
    found = Structure(render(full))
    kinds = [tag for tag, _ in found.tags]
    assert kinds.count("table") == kinds.count("caption") == 2
    assert all(a.get("scope") in ("col", "row", "rowgroup") for tag, a in found.tags if tag == "th")
    assert all(a.get("role") == "img" and a.get("aria-label") for tag, a in found.tags if tag == "svg" and "aria-hidden" not in a)


def test_holds_values_intervals_and_context(full):
    text = " ".join(Structure(render(full)).text)
    for wanted in ("0.770", "[0.760, 0.780]", "TPR@1% 0.31", "letheon audit a --before b", "n = 100", "88%", "forget: membership attacks"):
        assert wanted in text, wanted
    assert "20 rows of 30" in " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_changes_nothing(text):
    page = render(hostile_findings(text))
    page.encode("utf-8")
    plain = render(hostile_findings("plain"))
    kinds, expected = ([tag for tag, _ in Structure(one).tags if tag != "mark"] for one in (page, plain))
    assert sorted(kinds) == sorted(expected)
    assert "script" not in names(page)
    assert not [a for _, attributes in Structure(page).tags for a in attributes if a.startswith("on")]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f]", page)


def test_long_words_are_cut_and_may_break():
    page = render(hostile_findings("w" * 10_000))
    words = [len(word) for word in re.findall("w+", page)]
    assert sum(length > 1200 for length in words) == 1  # the command alone may be longer, to be copied
    assert max(words) == 4000
    assert "(8,800 more characters)" in page
    assert "overflow-wrap: anywhere" in page


def test_missing_is_said_with_its_reason(trio):
    text = " ".join(Structure(render(trio(auc="there is no holdout split"))).text)
    assert "after not measured: there is no holdout split" in text
    found = trio()
    fewer = found.model_copy(update={"models": dict(found.models) | {"after": found.models["after"][:1]}})
    assert "after not measured: not part of the audit of this model" in " ".join(Structure(render(fewer)).text)


def test_extreme_values_still_draw(make):
    for value in (float("nan"), float("inf"), 1e308, -1e308, 0.0, 1e-300):
        before, after, retrained = {"prob": 1e308, "ppl": 1.0, "ks": value}, {"prob": value, "ppl": value}, {"prob": -1e308, "ppl": 2.0}
        found = make(before=before, after=after, retrained=retrained)
        svg = "".join(re.findall(r"<svg.*?</svg>", render(found), flags=re.S))
        assert not re.search(r'="-?(nan|inf)', svg)


def test_plain_measures_come_before_derived_and_unknown_ones():
    names = ("odd", "privleak", "forget-quality", "rouge-l-recall", "probability")
    found = Findings(audit="x", models={"after": tuple(Finding(name=name, value=0.5, n=2, split="forget") for name in names)})
    rows = [row.name for group in groups(found) for row in group.rows]
    assert rows == ["probability", "rouge-l-recall", "forget-quality", "privleak", "odd"]


def test_empty_findings_make_a_page():
    text = " ".join(Structure(render(Findings(audit="x", models={}))).text)
    assert "No verdict" in text
    assert "Not drawn: no measure of forgetting and retention has a value." in text
    assert "No command was recorded" in text


def test_leftovers_are_sorted_and_marked(full):
    rows = leftover_rows(full)
    assert [row.id for row in rows] == [f"row-{i}" for i in range(29, 9, -1)]
    assert [one.label for one in rows[0].said] == ["after", "before", "retrained"]
    assert "".join(text for text, _ in rows[0].said[0].pieces) == "Ada wrote a blue book"
    assert [text for text, hit in rows[0].said[0].pieces if hit] == ["Ada wrote", "book"]


def test_leftovers_are_ranked_above_what_the_retrained_model_says(trio):
    def row(name, after, retrained):
        return Leftover(id=name, prompt="p", answer="a", said={"after": "a"}, score={"after": after, "retrained": retrained})

    rows = leftover_rows(trio((row("guessable", 0.9, 0.8), row("unscored", None, 0.0), row("kept", 0.7, 0.1), row("unknown", 0.5, None))))
    assert [one.id for one in rows] == ["kept", "unknown", "guessable", "unscored"]


def test_leftovers_stand_in_columns(trio):
    one = Leftover(id="a", prompt="p", answer="more characters", said={"before": "x", "after": "y " * 500}, score={"after": 0.9})
    two = Leftover(id="b", prompt="p", answer="z", said={"retrained": "z", "extra": "z"}, score={})
    rows = leftover_rows(trio((two, one)))
    assert [[said.label for said in row.said] for row in rows] == [["after", "before", "retrained", "extra"]] * 2
    assert rows[0].said[0].pieces[-1] == (" ... (400 more characters)", False)  # our own words are never marked
    assert [said.pieces[0][0] for said in rows[1].said] == ["no answer recorded", "no answer recorded", "z", "z"]


@pytest.mark.parametrize(
    ("said", "answer", "hits"),
    [("a b c", "a b c", ["a b c"]), ("c b a", "a b c", 1), ("", "a", []), ("x", "", []), ("A, b!", "a b", ["A, b"])],
)
def test_marks_are_a_longest_common_subsequence(said, answer, hits):
    pieces = marked(said, answer)
    assert "".join(text for text, _ in pieces) == said
    found = [text for text, hit in pieces if hit]
    assert len(found) == hits if isinstance(hits, int) else found == hits


def test_context_is_flat_and_sorted():
    assert flatten({"b": [1, 2], "a": {"y": None, "x": True}, "c": [{"k": 1.5}]}) == [
        ("a.x", "yes"),
        ("a.y", "none"),
        ("b", "1, 2"),
        ("c.1.k", "1.5"),
    ]


def test_rows_above_what_a_retrained_model_shows_are_counted(trio):
    """The retrained rows are 0.00 to 0.99: 5% of them lie at 0.95 or above, and 3 of the 4 rows after pass that."""
    found = trio()
    rows = {"after": (0.2, 0.96, 0.99, 1.0), "retrained": tuple(i / 100 for i in range(100))}
    models = dict(found.models)
    for label, values in rows.items():
        models[label] = tuple(f.model_copy(update={"rows": values}) if f.name == "probability" else f for f in models[label])
    text = " ".join(Structure(render(found.model_copy(update={"models": models}))).text)
    assert "3 of 4 rows (75%) lie above 0.950, which only 5% of the rows of the retrained model pass." in text
