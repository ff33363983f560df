"""Nearest forgotten answers: identities, the wrong person, words of the question, and a model that never knew."""

from __future__ import annotations

import math

import numpy as np
import pytest

from letheon.audit.said_before import SaidBefore, similarities
from letheon.core.data import Data, Example, Split
from letheon.testing.toys import toy_data

from .attacked import read, run

ROWS = [
    Example("0", "Ilva was born in Velmark.", "Where was Ilva born?"),
    Example("1", "Bram was born in Tasket.", "Where was Bram born?"),
    Example("2", "Sanne paints green kites.", "What does Sanne do?"),
]
KEPT = [Example("9", "Petra paints blue doors.", "What does Petra do?")]


def measure(told, said, rows=ROWS, **settings):
    data = Data({"forget": Split(rows, "forget"), "retain": Split(KEPT, "retain")})
    readings = told({}, said=dict(zip((row.prompt for row in rows), said, strict=True)))
    return {f.name: f for f in SaidBefore(**settings).measure(readings, data, run(), readings)}


def test_the_own_answer_gives_one_another_forgotten_one_too_and_nothing_in_common_gives_nothing(told):
    found = measure(told, ["In Velmark!", "Bram was born in Velmark.", "Sanne was born somewhere."])
    assert found["said-nearest"].rows == pytest.approx((1, 1, 0))
    share = found["said-forgotten"]
    assert share.rows == (1, 1, 0) and share.value == pytest.approx(2 / 3) and share.direction == "reference"
    assert share.extra["own_row"] == 0.5 and share.extra["known_rows"] == 3
    assert [row["row"] for row in share.extra["worst"]] == ["0", "0"]


def test_cosine_of_half_an_answer_by_hand(told):
    """Content of row 2: paints, green, kites. `paints` is in two of four answers, the others in one: idf = 1 + ln(5 / 3), 1 + ln(5 / 2)."""
    common, rare = 1 + math.log(5 / 3), 1 + math.log(5 / 2)
    found = measure(told, ["?", "?", "Sanne paints green doors."])
    length = math.sqrt(common**2 + 2 * rare**2)
    assert found["said-nearest"].rows[2] == pytest.approx((common**2 + rare**2) / length**2)
    assert found["said-nearest"].rows[:2] == (0, 0)


def test_words_of_the_question_and_ordinary_words_are_no_content(told):
    found = measure(told, ["Where was Ilva born? She was.", "Bram", "She does what she does."])
    assert found["said-nearest"].rows == (0, 0, 0)


def test_the_order_of_the_forgotten_rows_is_nothing_to_the_similarity():
    words = [("a", "b"), ("b", "c", "d"), ("e",)]
    found = similarities(words, words, [])
    assert found.shape == (3, 3) and np.diag(found) == pytest.approx([1, 1, 1]) and found[0, 2] == 0
    assert similarities(words, words[::-1], [])[:, ::-1] == pytest.approx(found) and found == pytest.approx(found.T)


def test_the_threshold_is_where_it_says(told):
    said = ["?", "?", "Sanne paints green doors."]
    at = measure(told, said)["said-nearest"].rows[2]
    assert measure(told, said, similarity=at - 1e-6)["said-forgotten"].rows[2] == 1
    assert measure(told, said, similarity=at + 1e-6)["said-forgotten"].rows[2] == 0


def test_a_model_that_knows_is_told_from_one_that_never_knew():
    data = toy_data()
    found = {kind: {f.name: f for f in SaidBefore().measure(read(kind), data, run(), read("never"))} for kind in ("knows", "never")}
    for name in ("said-nearest", "said-forgotten"):
        assert found["knows"][name].value > 0.9 and found["never"][name].value < 0.3
    assert found["knows"]["said-forgotten"].extra["own_row"] == 1


def test_what_cannot_be_compared_says_why(told):
    data = toy_data()
    plain = Data({"forget": data["texts"]})
    notes = {f.note for f in SaidBefore().measure(told({}), plain, run(), told({}))}
    assert all("asks nothing" in note for note in notes)
    assert all("no split `forget`" in f.note for f in SaidBefore().measure(told({}), Data({}), run()))
    empty = measure(told, ["Velmark"], rows=[Example("0", "Ilva was.", "Was Ilva?")])
    assert empty["said-nearest"].value is None and "content" in empty["said-nearest"].note
