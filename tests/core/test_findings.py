"""Findings: written whole, read back equal, and broken files told in one sentence."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError

from letheon.core.errors import DataError
from letheon.core.findings import Finding, Findings, Leftover, by_name, unmeasured


def some() -> Findings:
    before = (
        Finding(name="auc", value=0.5, n=4, low=0.1, high=0.9, split="forget", audit="mia", rows=(1.0, None), direction="reference"),
        Finding(name="auc", value=0.7, n=4, split="retain"),
        unmeasured("privleak", "no holdout", split="forget", direction="lower"),
    )
    leftover = Leftover(id="a", prompt="p", answer="Zürich", said={"before": "Zürich"}, score={"before": 1.0, "after": None})
    return Findings(audit="tofu", models={"before": before, "after": before[:1]}, leftovers=(leftover,), context={"seed": 0})


def test_saved_and_read_back_equal(tmp_path):
    path = some().save(tmp_path / "deep" / "findings.json")
    assert Findings.load(path) == some() == Findings.load(path.parent)
    assert "Zürich" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["findings.json"], "no half-written file is left"


def test_looking_things_up():
    found = some()
    assert found.value("before", "auc") == 0.5 and found.value("before", "auc", "retain") == 0.7
    assert found.get("before", "auc", "holdout") is None and found.value("nobody", "auc") is None
    assert found.value("before", "privleak") is None and found.get("before", "privleak").note == "no holdout"
    assert len(list(found)) == 4
    assert list(by_name(found.models["before"])) == ["forget/auc", "retain/auc", "forget/privleak"]
    assert list(by_name([Finding(name="x", value=1, n=1)])) == ["x"]


def test_json_has_no_nan(tmp_path):
    extra = {"odd": math.nan, "far": [math.inf, (1.5, -math.inf)]}
    found = Findings(audit="a", models={"m": (Finding(name="x", value=None, n=0, note="none", extra=extra),)})
    text = found.save(tmp_path / "f.json").read_text()
    assert json.loads(text)["models"]["m"][0]["extra"] == {"odd": None, "far": [None, [1.5, None]]}


def test_unknown_is_none_and_counts_are_not_negative():
    nothing = unmeasured("x", "why")
    assert nothing.value is None and nothing.n == 0 and nothing.note == "why"
    with pytest.raises(ValidationError):
        Finding(name="x", value=1.0, n=-1)
    with pytest.raises(ValidationError):
        Finding(name="x", value=1.0, n=1, directon="lower")
    with pytest.raises(ValidationError):
        nothing.value = 0.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "There is no file"),
        (b"{", "does not hold findings"),
        (b"[]", "does not hold findings"),
        (b'{"audit": "x"}', "does not hold findings"),
        (b'{"audit": "x", "models": {}, "format": "letheon.findings/2"}', "does not hold findings"),
        (b"\xff\xfe", "does not hold findings"),
    ],
)
def test_a_file_that_is_something_else_is_one_sentence(text, says, tmp_path):
    path = tmp_path / "findings.json"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(DataError, match=says):
        Findings.load(path)
