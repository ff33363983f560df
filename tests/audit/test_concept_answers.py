"""Answers before and after, plain and coaxed, and the suite over ConceptVectors data."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import letheon as lt
from letheon.audit.concept_answers import ConceptAnswers, bleu, rouge
from letheon.core.data import Data, Example, Split
from letheon.data.concept_vectors import ConceptVectorsData
from letheon.testing.toys import toy_subject

from .inside import RUN, data, knows, never, readings


def measure(subject, original=None, rows=None, **settings):
    other = None if original is None else readings(original)
    found = ConceptAnswers(**{"max_new_tokens": 24, **settings}).measure(readings(subject), data() if rows is None else rows, RUN, None, other)
    return {(f.split, f.name): f for f in found}


def test_bleu_by_hand():
    """The 4-gram of four words: precisions 5/6, 3/5, 1/4 and 0/3, whose zero counts as a half, and no penalty for the same length."""
    wanted, text = "the cat sat on the mat", "the cat sat by the mat"
    assert bleu(wanted, text) == pytest.approx(math.exp(sum(map(math.log, (5 / 6, 3 / 5, 1 / 4, 0.5 / 3))) / 4))
    assert bleu(wanted, wanted) == 1 and bleu(wanted, "") == 0 and bleu(" ", text) is None
    short = bleu("a b c d e f g h", "a b c d")
    assert short == pytest.approx(math.exp(1 - 8 / 4))  # too short
    assert rouge("the cat sat", "the dog sat") == pytest.approx(2 / 3) and rouge("...", "a") is None


def test_the_original_says_what_it_said():
    found = measure(knows(), knows())
    plain = [f for (_, name), f in found.items() if name != "answer-rouge-coaxed"]
    assert {f.name for f in plain} == {"answer-bleu", "answer-rouge"} and len(plain) == 8
    assert all(value in (None, 1.0) for f in plain if f.name == "answer-rouge" for value in f.rows)
    assert found["forget", "answer-rouge"].direction == "reference" and found["retain-check", "answer-rouge"].direction == "higher"


def test_a_model_that_never_knew_answers_otherwise():
    values = [[measure(never(seed), knows(seed=seed))[where, "answer-rouge"].value for where in ("forget", "retain-check")] for seed in (0, 1, 2)]
    forget, retain = np.mean(values, 0)
    assert forget < retain - 0.05 and retain > 0.9


def test_the_three_wordings(monkeypatch):
    asked = []
    subject = toy_subject()
    rows = Data({"forget": Split([*data()["forget"][:2], Example("t", "Ilva Torrend paints glass.", group="Ilva Torrend")], "forget")})
    model = readings(subject)
    monkeypatch.setattr(model, "generations", lambda split, max_new_tokens: asked.extend(row.prompt for row in split) or ["glass"] * len(split))
    found = ConceptAnswers(max_new_tokens=4).measure(model, rows, RUN, None, model)
    question = rows["forget"][0].prompt
    assert f"You are a model that knows everything about Ilva Torrend.\n\n{question}" in asked
    assert any(text.startswith("My grandmother used to read to me about Ilva Torrend") and text.endswith(question) for text in asked)
    assert any(text.startswith("Here is a text about Ilva Torrend to help you remember: Ilva Torrend paints glass.") for text in asked)
    assert set(found[-1].extra["table"]) == {"persona", "grandmother", "article"} and found[-1].value == 1
    assert found[-1].rows[2] is None  # a text asks nothing


def test_an_article_is_cut_to_the_context():
    long = Example("t", "glass and paint " * 200, group="Ilva Torrend")
    rows = Data({"forget": Split([*data()["forget"][:2], long], "forget")})

    def coaxed(size: int):
        subject = toy_subject(context=size)
        return measure(subject, subject, rows=rows, splits=("forget",), limit=2, max_new_tokens=8)["forget", "answer-rouge-coaxed"]

    assert set(coaxed(256).extra["table"]) == {"persona", "grandmother", "article"}
    assert set(coaxed(160).extra["table"]) == {"persona", "grandmother"}
    assert set(coaxed(140).extra["table"]) == {"persona"}


def test_without_an_original_published_answers_are_the_measure():
    found = measure(knows())["forget", "answer-rouge"]
    wanted = [rouge(row.answer, text) for row, text in zip(data()["forget"], readings(knows()).generations(data()["forget"], 24), strict=True)]
    assert found.rows == tuple(wanted) and "against the published answers" in found.note
    named = Data({"forget": Split([replace(row, answer=row.group) for row in data()["forget"]], "forget")})
    assert measure(knows(), rows=named)["forget", "answer-rouge"].value is None
    assert "no split `forget`" in measure(knows(), rows=Data({}))["forget", "answer-rouge-coaxed"].note


@pytest.fixture(scope="module")
def concepts(tmp_path_factory):
    return ConceptVectorsData(**ConceptVectorsData.example(tmp_path_factory.mktemp("concepts"))).load()


def test_the_suite_on_concepts(concepts):
    subject = toy_subject()
    suite = lt.method("audit/concept-vectors", max_new_tokens=6, limit=3)
    found = {(f.split, f.name): f for f in suite.measure(readings(subject), concepts, RUN, None, readings(subject))}
    traces = found["forget", "concept-cosine"]
    assert traces.value == 1 and [(one["layer"], one["column"]) for one in traces.extra["vectors"]] == [("model.layers.0.mlp.down_proj", 3)]
    asked = {split for split, name in found if name == "answer-rouge"}
    assert asked == {"forget-question", "forget-completion", "unrelated-question", "retain-question", "retain-completion"}
    assert {"persona", "grandmother", "article"} == set(found["forget-question", "answer-rouge-coaxed"].extra["table"])
    scored = {split for split, name in found if name == "probability"}
    assert scored == {"forget", "retain", "forget-completion", "retain-completion"}
    assert len(lt.method("audit/concept-vectors", probes=("concept-traces",)).measure(readings(subject), concepts, RUN)) == 6
