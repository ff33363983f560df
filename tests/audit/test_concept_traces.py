"""Concept vectors before and after: identities, a planted vector, noise, and what gradient ascent leaves as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import letheon as lt
from letheon.audit.concept_traces import COMPARED, NAMES, ConceptTraces
from letheon.core.data import Data, Split
from letheon.core.run import Run
from letheon.erase._concepts import concept_words, vector_scores
from letheon.erase._linears import down_projections
from letheon.maths.concepts import compared, related
from letheon.testing.toys import toy_subject

from .inside import RUN, data, knows, never, readings

EASY = {"lift": 1.5, "margin": 0.0, "vectors": 4}


def measure(subject, original=None, rows=None, run=RUN, **settings):
    other = None if original is None else readings(original)
    found = ConceptTraces(**{**EASY, **settings}).measure(readings(subject), rows or data(), run, None, other)
    assert [f.name for f in found] == list(NAMES)
    return {f.name: f for f in found}


def values(*given, **settings):
    return [f.value for f in measure(*given, **settings).values()]


def test_words_left_by_hand():
    """Six tokens on the axes of the space: a vector says those with its largest entries."""
    e, words = torch.eye(6), torch.tensor([1, 1, 1, 0, 0, 0], dtype=torch.bool)
    before, after = torch.tensor([6.0, 5, 0, 4, 0, 0]), torch.tensor([6.0, 0, 5, 0, 4, 0])
    assert related(before, after, e, e, words, 3) == (1 / 2, 2 / 2)  # said 0, 1 and 3; says 0, 2 and 4
    assert related(after, after, e, e, words, 3) == (1, 1)
    assert related(torch.tensor([0.0, 0, 0, 1, 2, 3]), after, e, e, words, 3) is None
    assert compared(before, after, e, e, 3)["jaccard"] == 1 / 5


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_identities(architecture):
    subject = toy_subject(architecture=architecture)
    assert values(subject, subject)[:4] == pytest.approx([1, 0, 1, 1], abs=1e-12)
    for factor, wanted in ((3.0, [1, 2, 1, 1]), (-1.0, [-1, 2, 0, 0])):
        scaled = subject.fork()
        with torch.no_grad():
            for part in down_projections(scaled.module).values():
                part.weight.mul_(factor)
        found = measure(scaled, subject)
        assert [found[name].value for name in COMPARED] == pytest.approx(wanted, abs=1e-6)
    assert found["concept-distance"].extra["undivided"] == pytest.approx([2 * length(subject, one) for one in vectors(found)], rel=1e-6)


def vectors(found):
    return found["concept-cosine"].extra["vectors"]


def length(subject, one):
    part = subject.module.get_submodule(one["layer"])
    weight = part.weight if type(part) is torch.nn.Linear else part.weight.T
    return float(weight[:, one["column"]].detach().norm())


def planted():
    """A toy with two towns written into one column."""
    subject = toy_subject()
    words = ("Velmark", "Quillon")
    mask = concept_words(subject, words, data()["forget"], data()["retain"], 2.0)
    with torch.no_grad():
        column = subject.module.model.layers[1].mlp.down_proj.weight[:, 17]
        column.copy_(3 * subject.module.lm_head.weight[mask].sum(0))
    assert 5 <= mask.sum() <= 15
    return subject, words


def test_a_planted_vector_is_found_first_and_its_loss_is_seen():
    subject, words = planted()
    found = measure(subject, subject, words=words, vectors=1, top=10)
    (one,) = vectors(found)
    assert (one["layer"], one["column"]) == ("model.layers.1.mlp.down_proj", 17)
    assert one["score"] == pytest.approx(found["concept-score"].extra["best"], abs=1e-3)
    assert found["concept-score"].extra["best"] > 5 and found["concept-cosine"].note == ""
    after = lt.method("needle", words=words, margin=0.0, vectors=1, noise=5.0, top=10).apply(subject, data(), RUN)
    now = measure(after, subject, words=words, vectors=1, top=10)
    assert now["concept-distance"].value == pytest.approx(5, rel=0.35)  # 32 draws
    assert now["concept-cosine"].value < 0.6 and now["concept-jaccard"].value < 0.6 and now["concept-related"].value < 0.8
    assert now["concept-score"].extra["best"] < found["concept-score"].extra["best"]


def test_the_ablation_adds_the_noise_of_needle():
    subject, words = planted()
    after = lt.method("needle", words=words, margin=0.0, vectors=1, noise=5.0, top=10).apply(subject, data(), RUN)
    one = measure(subject, subject, words=words, vectors=1, top=10)["concept-ablated"]
    np.testing.assert_allclose(one.rows, np.exp(-readings(after).answers(data()["forget"]).nll()), rtol=1e-4)
    assert one.extra["vectors"] == 1 and one.direction == "none"


def test_the_causal_check_keeps_what_hurts_forget_answers():
    subject = knows()
    checked = measure(subject, subject, margin=1.0, candidates=20, vectors=20)
    free = measure(subject, subject, margin=0.0, candidates=20, vectors=20)
    assert 0 < len(vectors(checked)) < 20 == len(vectors(free))
    none = measure(subject, subject, margin=1.0, noise=1e-30)
    assert "none passes the causal check: unchanged vectors prove nothing" in none["concept-cosine"].note
    assert "no vector clearly says the words" in none["concept-cosine"].note


def test_ascent_changes_answers_and_leaves_the_vectors():
    """The point of the paper: behaviour falls, cosines stay above 0.99."""
    settings = {"steps": 12, "learning_rate": 1e-3, "batch_size": 8, "retain": "none", "schedule": "constant", "warmup": 0.0}
    for seed in (0, 1):
        original = knows(seed=seed)
        after = lt.method("grad-ascent", **settings).apply(original, data(), Run(seed, dtype="float32", device="cpu"))
        nll = [readings(s).answers(data()["forget"]).nll().mean() for s in (original, after)]
        found = measure(after, original)
        assert nll[1] > 3 * nll[0] and found["concept-cosine"].value > 0.99 and found["concept-jaccard"].value > 0.8
        assert measure(never(seed), original)["concept-cosine"].value < 0.99


def concepts(layer: int, column: int) -> Data:
    rows = {"vectors": [lt.Example("v", "Ilva Torrend", f"layer {layer} column {column}", group="Ilva Torrend")], **dict(data().items())}
    return Data({name: Split(split, name) for name, split in rows.items()})


def test_published_vectors_are_taken_where_the_model_has_them():
    subject = toy_subject()
    found = measure(subject, subject, rows=concepts(1, 40))
    assert [(one["layer"], one["column"]) for one in vectors(found)] == [("model.layers.1.mlp.down_proj", 40)]
    for place in ((2, 40), (1, 48)):
        found = measure(subject, subject, rows=concepts(*place))
        assert len(vectors(found)) == 4 and "the published vectors are not of this model: it was searched" in found["concept-cosine"].note


def test_scores_of_the_finder_are_those_of_needle():
    subject = knows()
    words = concept_words(subject, (), data()["forget"], data()["retain"], 1.5)
    scores = vector_scores(down_projections(subject.module), subject.module.lm_head.weight, words, 32, RUN)
    found = measure(subject, subject)
    assert found["concept-score"].value == pytest.approx(np.mean(sorted(scores.values())[-4:]))
    assert found["concept-score"].rows == tuple(sorted(scores.values(), reverse=True)[:4])


def test_what_cannot_be_measured_says_why():
    alone = measure(knows())
    assert "needed and was not given" in alone["concept-cosine"].note and alone["concept-score"].value is not None
    assert "other names or shapes" in measure(knows(), toy_subject(architecture="gpt2"))["concept-jaccard"].note
    same = Data({"forget": data()["forget"], "retain": data()["forget"]})
    assert "No token sets the forget answers apart" in measure(knows(), knows(), same)["concept-score"].note
    assert "no split `retain`" in measure(knows(), rows=Data({"forget": data()["forget"]}))["concept-score"].note
