"""Pictures of attacks: curves, forms, and members against rows never seen, with the values that the findings hold."""

from __future__ import annotations

import re

import pytest

from letheon.core.findings import Finding, Findings
from letheon.report.attacked import curves, heat, sides
from letheon.report.page import render

CURVES = {"before": {"0": 0.9, "10": 0.8}, "after": {"0": 0.1, "10": 0.5}, "retrained": {"0": 0.05, "10": 0.1}}


@pytest.fixture
def found() -> Findings:
    models = {}
    for label, curve in CURVES.items():
        after = curve["10"]
        known = {"n": 4, "split": "forget", "direction": "reference"}
        scores = {"rows": (1.0, 2.0, 3.0, 3.5), "extra": {"holdout_rows": [0.0, 0.5, 1.5, None]}}
        models[label] = (
            Finding(name="probability", value=curve["0"], **known),
            Finding(name="probability", value=after, **known | {"split": "forget-cloze"}),
            Finding(name="relearned", value=after, **known, extra={"curve": curve, "ways": {"<b>few</b>": {"probability": after}}}),
            Finding(name="membership-loss", value=0.9 if label == "after" else 0.6, **known, **scores),
        )
    return Findings(audit="tofu", models=models)


def test_one_line_for_each_model_through_its_points(found):
    (curve,) = curves(found)
    assert curve.title == "forget relearned probability" and "optimiser steps" in curve.drawing
    drawn = str(curve.drawing)
    assert [drawn.count(f'class="line {role}"') for role in ("before", "after", "retrained")] == [1, 1, 1]
    heights = {role: [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", re.search(rf'd="([^"]*)" class="line {role}"', drawn)[1])] for role in CURVES}
    for role, curve in CURVES.items():  # 16 is the top of the unit axis (1), 246 its foot (0)
        assert heights[role] == pytest.approx([246 - 230 * value for value in curve.values()], abs=0.06)


def test_a_list_is_a_curve_over_blocks():
    lens = Finding(name="lens-probability", value=0.5, n=4, split="forget", extra={"curve": [0.1, 0.5, 0.2]})
    (curve,) = curves(Findings(audit="a", models={"after": (lens,)}))
    assert str(curve.drawing).count('class="mark after"') == 3 and ">2<" in curve.drawing


def test_forms_and_tables_of_attacks_are_lines_of_one_heat_map(found):
    shown = heat(found)
    assert shown.columns == ("before", "after", "retrained")
    assert [name for name, _ in shown.lines] == ["forget", "forget-cloze", "prompt: <b>few</b>"]
    assert shown.lines[1][1] == (("0.80", 80), ("0.50", 50), ("0.10", 10))


def test_members_and_rows_never_seen_share_an_axis(found):
    both = sides(found)
    assert both.title == "loss membership attack on after" and [name for name, _ in both.drawings] == ["forget rows, 4", "rows never seen, 3"]
    assert all(drawing.count("column") == 3 or drawing.count("column") == 4 for _, drawing in both.drawings)


def test_a_page_holds_them_and_escapes_what_comes_from_findings(found):
    page = render(found)
    for part in ('id="curves"', 'id="forms"', 'id="sides"', "--shade: 50%"):
        assert part in page
    assert "<b>few" not in page and "&lt;b&gt;few" in page


def test_nothing_is_drawn_where_nothing_was_tried(trio):
    plain = trio(prob=0.1)
    assert curves(plain) == [] and heat(plain) is None and sides(plain) is None
    page = render(plain)
    assert 'id="curves"' not in page and 'id="forms"' not in page


def test_a_broken_curve_is_left_out(found):
    """Findings may come from anywhere: text, a single point or an infinite value is no curve."""
    for curve in ("text", [0.1], {"0": 0.1}, {"0": "x", "1": None}, {"0": float("inf"), "1": 0.5}):
        broken = Finding(name="relearned", value=0.1, n=4, split="forget", extra={"curve": curve})
        assert curves(Findings(audit="a", models={"after": (broken,)})) == []
