"""The picture of a sweep as a file of its own, for documents; and what its methods cost beside a retrain."""

from __future__ import annotations

from xml.etree import ElementTree

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


def test_cost_is_a_share_of_the_retrain_rows_else_of_the_retrain_that_was_given():
    def shown(*extra, **more):
        cells = [{"row": "npo", "seed": k, "method": {"name": "npo"}, "values": {}, "cost": {"processor_seconds": 2.0 + k}} for k in (0, 1)]
        made = compared({"seeds": [0, 1], "cells": [*cells, *extra], **more})
        return made.columns[-1], made.lines[0].cells[-1][0]

    row = {"row": "retrain", "seed": 0, "method": {"name": "retrain"}, "values": {}, "cost": {"processor_seconds": 10.0}}
    assert shown() == ("processor seconds", "2.5") == shown(retrain_processor_seconds=None)
    assert shown(retrain_processor_seconds=50.0) == ("cost, retrain = 1", "0.05")
    assert shown(row) == ("cost, retrain = 1", "0.25") == shown(row, retrain_processor_seconds=50.0)
