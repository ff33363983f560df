"""Rows of a desk's plan: what is forgotten, what was forgotten earlier, what stays; and plans that cannot be read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from letheon.core.errors import DataError
from letheon.data.desk import Desk, given_of


def planned(folder: Path, **plan: object) -> Desk:
    rows = [json.dumps({"prompt": f"Who is {k}?", "answer": f"Person {k}"}) for k in range(6)]
    for name in ("one", "two", "never"):
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    corpora = {name: {"path": str(folder / f"{name}.jsonl"), "fields": {}} for name in ("one", "two")}
    (folder / "plan.json").write_text(json.dumps({"corpora": corpora, "forget": {"one": [0, 2]}, "earlier": [], **plan}), encoding="utf-8")
    return Desk(plan=folder / "plan.json")


def ids(split) -> list[str]:
    return [row.id for row in split]


def test_rows_that_nobody_asked_about_stay(tmp_path):
    data = planned(tmp_path, forget={"one": [0, 2], "two": [5]}).load()
    assert ids(data["forget"]) == ["one/one-1", "one/one-3", "two/two-6"]
    assert len(data["retain"]) == 12 - 3
    assert set(data) == {"forget", "retain"}


def test_earlier_batches_have_splits_and_are_forgotten_again(tmp_path):
    earlier = [{"one": [1]}, {"two": [0, 1]}]
    data = planned(tmp_path, earlier=earlier).load()
    assert ids(data["forget"]) == ["one/one-1", "one/one-3", "one/one-2", "two/two-1", "two/two-2"]
    assert (ids(data["forget-1"]), ids(data["forget-2"])) == (["one/one-2"], ["two/two-1", "two/two-2"])
    alone = Desk(plan=tmp_path / "plan.json", again=False).load()
    assert ids(alone["forget"]) == ["one/one-1", "one/one-3"]
    assert ids(alone["retain"]) == ids(data["retain"])
    assert not set(ids(data["retain"])) & set(ids(data["forget"]))


def test_rows_that_are_in_no_file_and_rows_never_trained_on(tmp_path):
    holdout = {"path": str(tmp_path / "never.jsonl"), "fields": {"prompt": "answer", "answer": "prompt"}}
    data = planned(tmp_path, given=[{"prompt": "A?", "answer": "B"}], holdout=holdout).load()
    assert (data["forget"][-1].id, data["forget"][-1].answer) == ("request-1", "B")
    assert data["holdout"][0].answer == "Who is 0?"


def test_a_file_that_has_changed_since_the_plan_is_refused(tmp_path):
    never = {"path": str(tmp_path / "never.jsonl"), "fields": {}}
    planned(tmp_path)
    digest = hashlib.sha256((tmp_path / "one.jsonl").read_bytes()).hexdigest()
    one = {"path": str(tmp_path / "one.jsonl"), "fields": {}}
    found = planned(tmp_path, corpora={"one": one | {"digest": digest}}, holdout=never | {"digest": digest})
    assert len(found.load()["holdout"]) == 6
    for name in ("never", "one"):
        with (tmp_path / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write("\n")
        with pytest.raises(DataError, match=f"{name}.jsonl has changed since the plan was made"):
            found.load()
    assert len(planned(tmp_path, corpora={"one": one}).load()["retain"]) == 4, "plans of older versions have no digests"


def test_plans_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="does not have"):
        planned(tmp_path, forget={"one": [99]}).load()
    with pytest.raises(DataError, match="does not have"):
        planned(tmp_path, earlier=[{"three": [0]}]).load()
    with pytest.raises(DataError, match="There is no plan"):
        Desk(plan=tmp_path / "none.json").load()
    for text in ("{", "[]", "{}", "3"):
        (tmp_path / "plan.json").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match="is no plan of a desk"):
            Desk(plan=tmp_path / "plan.json").load()


def test_rows_of_a_request(tmp_path):
    assert [row.answer for row in given_of([{"text": "plain"}, {"question": "A?", "answer": "B"}])] == ["plain", "B"]
    with pytest.raises(DataError, match="request, row 1"):
        given_of([{"prompt": "A?"}])
