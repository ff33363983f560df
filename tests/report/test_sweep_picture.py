"""The picture of a sweep as a file of its own, for documents; and what its methods cost beside a retrain."""

from __future__ import annotations

from math import hypot
from xml.etree import ElementTree

from letheon.report.plots import Mark, tradeoff
from letheon.report.sweep import compared

NAMESPACE = "{http://www.w3.org/2000/svg}"


def test_the_picture_stands_alone():
    cells = [
        {"row": row, "seed": 0, "method": {"name": "npo"}, "cost": {}, "values": {"forget/probability": x, "/model-utility": y}}
        for row, x, y in (("kept & <near>", 0.2, 0.6), ("worse", 0.4, 0.5))
    ]
    anchors = {"before": {"forget/probability": 0.9}, "retrained": {"forget/probability": 0.1}}
    made = compared({"seeds": [0], "cells": cells, "anchors": anchors})
    drawn = ElementTree.fromstring(made.svg)
    assert drawn.tag == f"{NAMESPACE}svg" and drawn.get("viewBox")
    words = [part.text for part in drawn.iter(f"{NAMESPACE}text")]
    assert "kept & <near>" in words and "2" in words  # the front by name, the others by the number of their row
    assert "| 2 worse |" in made.markdown
    style = drawn.find(f"{NAMESPACE}style").text
    used = {part.split(")")[0] for part in style.split("var(")[1:]}
    assert used and all(f"{name}:" in style for name in used)  # every colour is there
    assert made.svg == compared({"seeds": [0], "cells": cells, "anchors": anchors}).svg
    assert "nothing beats kept & <near> on both sides" in made.opening
    renamed = [{**cell, "row": cell["row"].replace("kept &", "npo, melu")} for cell in cells]
    assert 'nothing beats "npo, melu <near>" on both sides' in compared({"seeds": [0], "cells": renamed, "anchors": anchors}).opening


def test_cost_is_a_share_of_the_retrain_rows_else_of_the_retrain_that_was_given():
    def shown(*extra, **more):
        cells = [{"row": "npo", "seed": k, "method": {"name": "npo"}, "values": {}, "cost": {"processor_seconds": 2.0 + k}} for k in (0, 1)]
        made = compared({"seeds": [0, 1], "cells": [*cells, *extra], **more})
        return made.columns[-1], made.lines[0].cells[-1][0]

    row = {"row": "retrain", "seed": 0, "method": {"name": "retrain"}, "values": {}, "cost": {"processor_seconds": 10.0}}
    assert shown() == ("processor seconds", "2.5") == shown(retrain_processor_seconds=None)
    assert shown(retrain_processor_seconds=50.0) == ("cost, retrain = 1", "0.05")
    assert shown(row) == ("cost, retrain = 1", "0.25") == shown(row, retrain_processor_seconds=50.0)


def test_crowded_points_can_be_told_apart():
    """No two names share ink, and what does not stand beside its point is led to it by a line."""
    places = [(0.5 + 0.02 * (k % 5), 0.5 + 0.02 * (k // 5)) for k in range(25)]
    marks = [Mark(f"m{k}", "other", x, y=y) for k, (x, y) in enumerate(places)]
    marks.append(Mark("alone", "after", 0.1, y=0.3))
    drawn = ElementTree.fromstring(str(tradeoff(marks, x_name="x", y_name="y", x_more=1, y_more=1, unit=(True, True))))
    names = [part for part in drawn if part.get("class") == "name"]
    shift = {"start": 0.0, "middle": 0.5, "end": 1.0}
    left = [float(each.get("x")) - shift[each.get("text-anchor")] * 8 * len(each.text) for each in names]
    base = [float(each.get("y")) for each in names]
    assert [each.text for each in names] == [mark.label for mark in marks]
    for i in range(len(names)):
        for k in range(i):
            apart = abs(base[i] - base[k]) >= 16 or left[i] + 8 * len(names[i].text) <= left[k] or left[k] + 8 * len(names[k].text) <= left[i]
            assert apart, (names[i].text, names[k].text)
    points = [(float(part.get("x")) + 4.8, float(part.get("y")) + 4.8) for part in drawn if part.get("class") == "mark other"]
    leads = [part for part in drawn if part.get("class") == "lead"]
    assert 10 < len(leads) < 26
    for lead in leads:
        x1, y1, x2, y2 = (float(lead.get(key)) for key in ("x1", "y1", "x2", "y2"))
        assert min((x1 - x) ** 2 + (y1 - y) ** 2 for x, y in points) < 1  # "alone" needs none
        assert any(a - 1 <= x2 <= a + 8 * len(n.text) + 1 and b - 13 <= y2 <= b + 5 for a, b, n in zip(left, base, names, strict=True))


def test_a_line_to_a_name_goes_past_other_points():
    places = [(0.56, 0.62), (0.54, 0.65), (0.46, 0.62), (0.56, 0.64), (0.51, 0.56)]
    marks = [Mark(f"a name {k}", "other", x, y=y) for k, (x, y) in enumerate(places)]
    drawn = ElementTree.fromstring(str(tradeoff(marks, x_name="x", y_name="y", x_more=1, y_more=1, unit=(True, True))))
    points = [(float(part.get("x")) + 4.8, float(part.get("y")) + 4.8) for part in drawn if part.get("class") == "mark other"]
    (lead,) = [[float(part.get(key)) for key in ("x1", "y1", "x2", "y2")] for part in drawn if part.get("class") == "lead"]
    along = [(lead[0] + k / 50 * (lead[2] - lead[0]), lead[1] + k / 50 * (lead[3] - lead[1])) for k in range(51)]
    near = sorted(min(hypot(x - a, y - b) for a, b in along) for x, y in points)
    assert near[0] < 1 and near[1] >= 7.5  # its own point, and no other


def test_a_row_with_failed_seeds_says_so_in_markdown_and_has_no_star():
    def row(name, *values):
        given = [{"values": {"forget/probability": x, "/model-utility": 0.8}, "cost": {"processor_seconds": 9.0}} for x in values]
        given += [{"failed": "diverged"}] * (3 - len(given))
        return [{"row": name, "seed": k, "method": {"name": "npo"}, **each} for k, each in enumerate(given)]

    anchors = {"before": {"forget/probability": 0.9}, "retrained": {"forget/probability": 0.1}}
    cells = [*row("npo", 0.12), *row("rmu", 0.2, 0.21, 0.22), *row("wild")]
    made = compared({"seeds": [0, 1, 2], "cells": cells, "anchors": anchors})
    lines = made.markdown.splitlines()
    assert "| 1 npo (1 of 3 seeds) | 0.120 | 0.800 | 9.0 |" in lines
    assert "| 3 wild (0 of 3 seeds) | failed | failed | failed |" in lines
    assert any(line.startswith("| 2 rmu * | 0.210 [0.200, 0.220] |") for line in lines)  # the mean of one seed beats no row of three
    assert made.opening == "3 rows, 3 seeds each (fewer in 2); nothing beats rmu on both sides."
    assert [line.front for line in made.lines[-3:]] == [False, True, False]
