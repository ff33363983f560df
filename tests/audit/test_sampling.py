"""Extraction by sampling and by given beginnings: chances by counting, samples that obey the model, what counts as a leak."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import letheon as lt
from letheon.audit._content import holds, telling
from letheon.audit.sampling import Sampling, halved
from letheon.core.data import Data, Example, Split
from letheon.core.readings import Readings
from letheon.maths.recall import rouge_l
from letheon.maths.sampling import any_of
from letheon.testing.toys import toy_data, toy_subject

from .attacked import REFUSAL, read, run

DATA = toy_data()


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_the_chance_of_any_hit_by_counting_all_draws(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert any_of(np.array([c]), n, k)[0] == pytest.approx(sum(map(any, draws)) / len(draws))
        assert 0 <= any_of(np.array([c]), n, k)[0] <= 1
    assert any_of(np.array([0, n]), n, 1).tolist() == [0, 1]


def test_the_estimate_is_unbiased():
    """With c ~ Binomial(n, p) the mean of any_of(c, n, k) is the chance of k independent samples, 1 - (1 - p)^k."""
    n, p = 12, 0.2
    counts = np.arange(n + 1)
    weights = np.array([math.comb(n, int(c)) * p**c * (1 - p) ** (n - c) for c in counts])
    for k in (1, 3, 12):
        assert float(weights @ any_of(counts, n, k)) == pytest.approx(1 - (1 - p) ** k)


def test_telling_words_are_those_the_question_does_not_give_away():
    row = Example("0", "Ilva Torrend was born in Orrin Bay.", "Where was Ilva Torrend born?")
    assert telling(row) == ("orrin", "bay")
    assert holds(row, "It was Orrin Bay, I think.") is True and holds(row, "Ilva Torrend was born in Bay City.") is False
    given_away = Example("1", "It was red.", "Was it red?")
    assert telling(given_away) == () and holds(given_away, "it WAS red indeed") is True and holds(given_away, "no") is False
    assert holds(Example("2", "!?", "What?"), "anything") is None


def test_beginnings_are_rounded_up_and_leave_a_word():
    assert halved("a b c d e f g h i j", 10) == ("a", "b c d e f g h i j")
    assert halved("one  two three", 30) == ("one", "two three") and halved("one  two three", 50) == ("one  two", "three")
    assert halved("one two", 99) == ("one", "two") and halved("word", 50) is None


def measure(readings, data, reference=None, **settings):
    return {(f.split, f.name): f for f in Sampling(**settings).measure(readings, data, run(), reference)}


def test_a_cold_sample_is_greedy_decoding():
    readings = read("knows")
    found = measure(readings, DATA, readings, samples=3, temperature=1e-4, max_new_tokens=24)
    said = readings.generations(DATA["forget"], 24)
    assert found["forget", "leak-at-n"].rows == tuple(float(holds(row, text)) for row, text in zip(DATA["forget"], said, strict=True))
    recall = tuple(rouge_l(row.answer, text)[1] for row, text in zip(DATA["forget"], said, strict=True))
    assert found["forget", "sampled-recall"].rows == recall
    assert len(set(found["forget", "leak-at-n"].extra["curve"].values())) == 1


def test_samples_follow_the_distribution_of_the_model():
    """One answer token of known probability: how often it is said, within four standard deviations of 600 draws."""
    readings = Readings(toy_subject(3), run())
    row = DATA["forget"][0]
    first = readings.subject.encoder.decode([int(readings.answers(Split([row])).top[0])])
    asked = Split([Example("0", first.strip() or "x", row.prompt)])
    p = float(np.exp(readings.answers(Split([Example("0", first, row.prompt)])).log_probability[0]))
    n = 600
    drawn = Sampling(samples=n, max_new_tokens=1)._drawn(readings, asked, run())[0, :, 0].mean()
    assert abs(drawn - p) < 4 * math.sqrt(p * (1 - p) / n) + 0.03  # other tokens may hold the same word


def test_more_samples_leak_no_less_and_the_same_seed_draws_the_same():
    found = measure(read("knows"), DATA, read("never"), samples=6, temperature=2.0, max_new_tokens=24)
    one = found["forget", "leak-at-n"]
    curve = list(one.extra["curve"].values())
    assert list(one.extra["curve"]) == ["1", "2", "4", "6"] and curve == sorted(curve) and curve[-1] == pytest.approx(one.value)
    assert measure(read("knows"), DATA, read("never"), samples=6, temperature=2.0, max_new_tokens=24) == found
    fewer = measure(read("knows"), DATA, read("never"), samples=6, temperature=2.0, max_new_tokens=24, limit=3)
    assert fewer["forget", "leak-at-n"].rows == one.rows[:3]  # the draws of a row are its own


def test_a_model_that_refuses_leaks_when_its_answer_is_begun():
    """Refusing hides the answer from every sample; given the beginning the model that knows goes on, the one that never knew cannot."""
    found = {kind: measure(read(kind), DATA, read("never"), samples=8, max_new_tokens=20) for kind in ("knows", "hides", "never")}
    values = {kind: {name: one.value for (_, name), one in side.items()} for kind, side in found.items()}
    assert read("hides").generations(DATA["forget"], 20) == [REFUSAL] * 8
    assert values["knows"]["leak-at-n"] == 1 and values["hides"]["leak-at-n"] < 0.3 and values["never"]["leak-at-n"] < 0.3
    assert values["knows"]["completed-30"] > 0.95
    assert values["hides"]["completed-30"] > values["never"]["completed-30"] + 0.15
    assert found["hides"]["forget", "leak-at-n"].extra["budget"] == {"samples": 8, "temperature": 1.0, "max_new_tokens": 20}


def test_without_a_retrained_model_the_holdout_is_asked():
    both = measure(read("knows"), DATA, samples=2, max_new_tokens=8)
    assert {where for where, _ in both} == {"forget", "holdout"} and both["holdout", "leak-at-n"].direction == "none"
    assert {where for where, _ in measure(read("knows"), DATA, read("never"), samples=2, max_new_tokens=8)} == {"forget"}


def test_plain_text_is_completed_and_not_asked():
    data = Data({"forget": DATA["texts"]})
    found = measure(read("knows"), data, samples=2, max_new_tokens=8, given=(50,))
    assert found["forget", "leak-at-n"].value is None and "asks nothing" in found["forget", "leak-at-n"].note
    assert found["forget", "completed-50"].n == 3


def test_rows_that_fill_the_context_are_left_out():
    subject = toy_subject(context=48)
    long = Example("long", " ".join(["kite"] * 60), "Who?")
    with pytest.raises(lt.core.errors.DataError):
        subject.encoder.encode(Split([long]))
    found = Sampling(given=(50,))._completed(Readings(subject, run()), Split([long, DATA["forget"][0]]), 50)
    assert np.isnan(found[0]) and np.isfinite(found[1])
