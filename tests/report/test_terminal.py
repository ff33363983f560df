"""Terminal tables fit in 80 columns and read the same without colour; comparisons are sorted by the weakest measure."""

from __future__ import annotations

import io
import math
import re

import pytest
from rich.console import Console

from letheon.core.errors import DataError
from letheon.report.compare import compare
from letheon.report.terminal import table
from letheon.report.text import clean, number, percent, short


def shown(renderable, width: int = 80, **console) -> str:
    file = io.StringIO()
    Console(file=file, width=width, **console).print(renderable)
    return file.getvalue()


def test_80_columns_without_colour(trio):
    text = shown(table(trio(prob=0.1, auc=0.9)))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert text.isascii()
    line = next(line for line in text.splitlines() if line.startswith(" probability"))
    assert line.split() == ["probability", "0.770", "0.100", "[0.090,", "0.110]", "0.010", "88%"]
    assert "still tells members apart (AUC 0.90, retrained 0.50, 20% of the way)" in " ".join(text.split())


def test_colour_adds_no_words(trio):
    found = trio(prob=0.1)
    coloured = shown(table(found), force_terminal=True, color_system="truecolor", legacy_windows=False)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == shown(table(found))


def test_text_from_findings_is_not_markup(make):
    found = make(before={"prob": 0.8}, after={"prob": 0.1, "auc": "[bold red]no[/] \x1b[2J"})
    text = shown(table(found), force_terminal=True, color_system="truecolor")
    assert "[bold red]no[/]" in text.replace("\n", " ").replace("  ", " ")
    assert "\x1b[2J" not in text


def test_many_models_still_fit(make):
    found = make(**{label: {"prob": 0.5, "auc": 0.9} for label in ("before", "after", "retrained", "x" * 50, "second")})
    assert max(len(line) for line in shown(table(found)).splitlines()) <= 80


def test_compare_sorts_by_the_weakest_measure(trio):
    good = trio(prob=0.02, rouge=0.21, auc=0.52, utility=0.83)
    shallow = trio(prob=0.01, rouge=0.20, auc=0.95, utility=0.84)
    broken = trio(prob=0.02, rouge=0.21, auc=0.51, utility=0.1)
    runs = [("shallow", shallow), ("broken", broken), ("none", trio()), ("good", good)]
    made = compare(runs)
    assert [line.label for line in made.lines] == ["good", "shallow", "none", "broken"]
    assert made.opening == "1 of 4 erased as far as measured without harm: good."
    assert compare(runs[::-1]).lines == made.lines
    assert made.html == compare(runs).html
    text = shown(made.table)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "0.95 min-k" in text


def test_compare_page(trio, tmp_path):
    made = compare([("<b>one</b>", trio(prob=0.02)), ("two", trio(prob=0.4))])
    page = made.save(tmp_path).read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "&lt;b&gt;one&lt;/b&gt;" in page
    assert "<script" not in page
    assert page.count('class="mark after"') == 2
    assert page.count('class="mark before"') == page.count('class="mark retrained"') == 1


def test_compare_warns_about_different_originals(trio, make):
    other = make(before={"prob": 0.5, "utility": 0.5}, after={"prob": 0.1, "utility": 0.5})
    assert any("do not share one original" in note for note in compare([("a", trio()), ("b", other)]).notes)
    assert not any("do not share" in note for note in compare([("a", trio()), ("b", trio(prob=0.3))]).notes)


def test_compare_runs_without_values(make):
    made = compare([("a", make(after={"prob": "no rows"})), ("b", make())])
    assert [line.worst for line in made.lines] == ["not placed", "not placed"]
    assert "Not drawn" in made.html
    with pytest.raises(DataError, match="nothing to compare"):
        compare([])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.7687, "0.769"), (0.0, "0.000"), (1.0, "1.000"), (0.008542, "0.009"), (0.0004, "0.00040"), (3.4e-21, "3.4e-21"), (-99.8, "-99.8")],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize("value", [10.0**k * s for k in range(-12, 9) for s in (1, -1, 4.9996, 9.9999)])
def test_no_number_is_rounded_to_nothing(value):
    """What is shown is within 7% of the value (one significant digit in a sentence: 50%), and never 0."""
    assert math.isclose(float(number(value).replace(",", "")), value, rel_tol=0.07)
    assert math.isclose(float(short(value).replace(",", "")), value, rel_tol=0.5)


def test_shares_are_not_rounded_up_to_all():
    assert (percent(0.999), percent(1.0), percent(0.001), percent(0.0), percent(0.184)) == ("99%", "100%", "under 1%", "0%", "18%")


def test_clean_shows_what_acts():
    assert clean("a\u202eb\x1b") == "a<U+202E>b<U+001B>"
    assert clean("x" * 20, 5) == "xxxxx ... (15 more characters)"
    assert clean("a\r\nb\tc") == "a\nb\tc"
