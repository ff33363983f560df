"""The demo, with models and methods made tiny: everything it promises is there, and a second one replaces the first."""

from __future__ import annotations

import json

import pytest

from letheon.cli import demo

SMALL = {"width": 16, "heads": 2, "layers": 1, "intermediate": 16, "vocabulary": 300, "train": "finetune:steps=2"}


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(demo, "MODEL", SMALL)
    monkeypatch.setattr(demo, "METHODS", {name: {**values, "steps": 1, "batch_size": 4} for name, values in demo.METHODS.items()})
    monkeypatch.setattr(demo, "AUDIT", dict.fromkeys(demo.METHODS, {"limit": 2, "max_new_tokens": 4, "gradnorm": False}))


def test_demo(world, letheon, tiny):
    said = letheon("demo", "--people", "40", "--out", "shown", "-q", "--no-open")
    assert said.code == 0, said.err
    assert max(map(len, said.out.splitlines())) <= 80
    assert said.out.splitlines()[-3:] == ["shown/npo/report.html", "shown/grad-ascent/report.html", "shown/compare.html"]
    assert all((world / line).stat().st_size > 1000 for line in said.out.splitlines()[-3:])
    for name in ("original", "retrained", "npo/model", "grad-ascent/model"):
        assert (world / "shown" / name / "model.safetensors").is_file()
    found = json.loads((world / "shown" / "npo" / "findings.json").read_text())
    assert set(found["models"]) == {"before", "after", "retrained"} and found["context"]["method"] == "npo"
    again = letheon("demo", "--people", "40", "--out", "shown", "-q", "--json")
    assert again.code == 0 and json.loads(again.out)["methods"] == list(demo.METHODS)
    assert (world / "shown" / "npo" / "report.html").is_file()
