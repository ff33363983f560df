"""Data: frozen splits, digests that see everything, errors that say what is there."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from letheon.core.data import Data, Example, Message, Split
from letheon.core.errors import DataError

FULL = Example("a", "Paris", "Where?", ("Rome", "Oslo"), "In Paris", "France", "question")


def test_a_split_is_a_frozen_sequence():
    split = Split([FULL, Example("b", "x")], "forget")
    assert len(split) == 2 and split[0] is FULL and [e.id for e in split] == ["a", "b"] and FULL in split
    part = split[1:]
    assert isinstance(part, Split) and part.name == "forget" and [e.id for e in part] == ["b"]
    assert "forget" in repr(split) and "2 rows" in repr(split)
    with pytest.raises(FrozenInstanceError):
        FULL.answer = "Rome"


@pytest.mark.parametrize("name", [field.name for field in fields(Example)])
def test_the_digest_sees_every_field(name):
    others = {"id": "z", "answer": "Pari", "prompt": "Where? ", "wrong": ("Oslo", "Rome"), "paraphrase": None, "group": None, "form": "cloze"}
    assert Split([FULL]).digest != Split([replace(FULL, **{name: others[name]})]).digest


def test_the_digest_sees_order_chat_roles_and_split_names_but_not_the_name_of_a_split():
    other = Example("b", "x")
    assert Split([FULL, other]).digest != Split([other, FULL]).digest
    assert Split([FULL], "a").digest == Split([FULL], "b").digest
    chats = [Example("c", "x", (Message(role, "hello"),)) for role in ("user", "system")]
    assert Split(chats[:1]).digest != Split(chats[1:]).digest
    one, two = Split([FULL]), Split([other])
    assert Data({"a": one, "b": two}).digest == Data({"b": two, "a": one}).digest != Data({"a": two, "b": one}).digest
    assert Data({"a": one}, "x").digest == Data({"a": one}, "y", ("warning",)).digest


def test_the_digest_is_a_known_number():
    """A stored result names its data by this digest, so it must not drift: sha256 of one JSON line per row."""
    import hashlib

    line = '{"answer": "x", "form": null, "group": null, "id": "b", "paraphrase": null, "prompt": "", "wrong": []}\n'
    assert Split([Example("b", "x")]).digest == hashlib.sha256(line.encode()).hexdigest()


def test_prompts_as_text():
    assert FULL.prompt_text == "Where?"
    assert Example("c", "x", (Message("system", "be"), Message("user", "hi"))).prompt_text == "system: be\nuser: hi"


def test_two_rows_with_one_id_are_refused():
    with pytest.raises(DataError, match="Two rows of `forget` have the id `b`"):
        Split([Example("a", "1"), Example("b", "2"), Example("b", "3")], "forget")


def test_data_is_a_mapping_that_names_what_it_lacks():
    data = Data({"forget": Split([FULL], "forget"), "empty": Split([], "empty")}, "mine")
    assert list(data) == ["forget", "empty"] and len(data) == 2 and "forget" in data and "x" not in data
    with pytest.raises(DataError, match="`mine` has no split `forgte`. Did you mean `forget`"):
        data["forgte"]
    data.need("forget", why="`npo`")
    with pytest.raises(DataError, match="`npo` needs a `retain` split, the data `mine` has `forget`, `empty`"):
        data.need("forget", "retain", why="`npo`")
    with pytest.raises(DataError, match="`empty` split of the data `mine` is empty"):
        data.need("empty", why="`npo`")
    with pytest.raises(DataError, match="has no splits"):
        Data({}).need("forget", why="it")


def test_a_split_is_added_to_a_copy():
    data = Data({"forget": Split([FULL], "forget")}, "mine", ("careful",))
    more = data.with_split("retain", [Example("b", "x")])
    assert list(data) == ["forget"] and list(more) == ["forget", "retain"] and more.warnings == ("careful",) and more.name == "mine"
    assert more["retain"].name == "retain"


def test_rows_in_memory_become_splits():
    rows = [{"prompt": "Where?", "answer": "Paris"}, FULL, {"id": "b", "answer": "x"}]
    data = Data({"forget": rows, "retain": Split([FULL], "retain")})
    assert [row.id for row in data["forget"]] == ["forget-1", "a", "b"] and data["forget"].name == "forget"
    assert data["forget"][0] == Example("forget-1", "Paris", "Where?") and data["forget"][1] is FULL
    assert data.digest == Data({"forget": Split(data["forget"], "forget"), "retain": data["retain"]}).digest


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "Where?"}, r"Row 1 of `forget` has the fields \['prompt'\]"),
        ({"answer": "x", "q": "y"}, r"Row 1 of `forget` has the fields \['answer', 'q'\]"),
        ({"answer": 4}, "Row 1 of `forget` holds something else than text"),
        ("Where?", "Row 1 of `forget` is str, not an Example"),
        (Example("a", "b", 3), "Row 1 of `forget` holds something else than text"),  # type: ignore[arg-type]
    ],
)
def test_rows_in_memory_that_are_none(row, message):
    with pytest.raises(DataError, match=message):
        Data({"forget": [row]})
