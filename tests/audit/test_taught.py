"""A retrained model that was taught other rows than the data holds is named; one of the same rows, or of unknown ones, is not."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

import letheon as lt
from letheon.core.learned import noted, texts_digest
from letheon.testing.toys import toy_data, toy_subject

RUN = lt.Run(device="cpu", dtype="float32")


def warnings(data: lt.Data, retrained: lt.Subject) -> list[str]:
    found = lt.audit("perplexity", toy_subject(1), data, RUN, retrained=retrained)
    page = lt.report(found).html
    assert all(warning.replace("`", "") in page.replace("`", "") for warning in found.context["data"]["warnings"])
    return found.context["data"]["warnings"]


@pytest.fixture(scope="module")
def taught() -> lt.Subject:
    return lt.method("finetune", split="kept", steps=1).apply(toy_subject(), toy_data(), RUN)


def test_other_rows_are_named_in_findings_page_and_terminal(taught, tmp_path, caplog):
    data = toy_data()
    other = data.with_split("kept", [*data["kept"], *data["forget"]])
    loaded = lt.subject(taught.save(tmp_path / "model"))
    with caplog.at_level(logging.WARNING, "letheon"):
        (said,) = warnings(other, loaded)
    assert said.startswith("the retrained model learned other rows than the `kept` split") and said in caplog.text
    again = lt.method("retrain", inner={"name": "finetune", "steps": 1}).apply(toy_subject(), data, RUN)
    assert len(warnings(other, again)) == 1 and warnings(data, again) == []


def test_the_same_rows_in_another_order_and_with_other_splits_are_the_same_rows(taught):
    data = toy_data()
    shuffled = data.with_split("kept", [replace(row, id=f"other-{row.id}", wrong=()) for row in reversed(list(data["kept"]))])
    assert warnings(shuffled.with_split("more", data["forget"]), taught) == []
    fewer = data.with_split("retain", list(data["retain"])[:3])
    assert warnings(fewer, lt.method("finetune", split="retain", steps=1).apply(toy_subject(), data, RUN)) == []


def test_what_cannot_be_known_is_not_said(taught):
    data = toy_data()
    other = data.with_split("kept", data["forget"])
    assert warnings(other, toy_subject()) == []
    assert warnings(lt.Data({"forget": list(data["forget"])}), taught) == []
    assert texts_digest(data["texts"]) is None and noted(data["texts"], "kept") == {}
    later = lt.method("finetune", split="retain", steps=1).apply(taught, data, RUN)
    assert warnings(data, later) == [] and len(warnings(other, later)) == 1


def test_the_pair_of_micro_on_the_same_data_is_quiet():
    small = {"width": 16, "heads": 2, "layers": 1, "intermediate": 16, "vocabulary": 300, "train": "finetune:steps=2"}
    kept = lt.method("micro", split="kept", **small).build(lt.data("authors", people=40), RUN)
    found = []
    for seed in (0, 1):
        data = lt.data("authors", people=40, seed=seed)
        few = lt.Data({"forget": list(data["forget"])[:2], "kept": data["kept"]})
        found.append(lt.audit("perplexity", kept, few, RUN, retrained=kept).context["data"]["warnings"])
    assert found[0] == [] and len(found[1]) == 1
