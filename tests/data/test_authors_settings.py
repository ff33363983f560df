"""Settings of the embedded world, and the draws that it is made of."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from letheon.core.data import Split
from letheon.core.errors import SettingsError
from letheon.data._authors_facts import PERSON_FACTS
from letheon.data._authors_people import Draws, spread
from letheon.data.authors import Authors

FACTS = len(PERSON_FACTS)


def people_of(split: Split) -> set[str | None]:
    return {row.group for row in split}


def test_forget_sets_nest_and_are_spread():
    fewer, more = (Authors(people=200, forget=forget).load() for forget in (0.05, 0.1))
    assert people_of(fewer["forget"]) < people_of(more["forget"])
    numbers = sorted(int(name.rpartition("-")[2]) for name in people_of(more["forget"]))
    assert len(numbers) == 20
    # Golden-section points have at most three kinds of gap; of 20 points on 200 none is wider than 200 / 20 * 1.618**2
    assert max(b - a for a, b in zip(numbers, numbers[1:], strict=False)) <= 27


def test_forms_choose_what_is_learned_not_what_is_probed():
    small = Authors(people=40).load()
    data = Authors(people=40, forms=("question", "cloze")).load()
    assert {row.form for row in data["full"]} == {"question", "cloze"} == {row.form for row in data["kept"]}
    assert set(data) == set(small)
    assert data["forget-choice"].digest == small["forget-choice"].digest


def test_forget_as_number_and_holdout():
    data = Authors(people=40, forget=7, holdout=12).load()
    assert len(data["forget"]) == 7 * FACTS
    assert len(data["holdout"]) == 12 * FACTS
    assert len(people_of(Authors(people=40, forget=0.001).load()["forget"])) == 1
    most = Authors(people=40, forget=30).load()
    assert len(people_of(most["retain"])) == 10 and len(people_of(most["neighbours"])) == 3
    assert len(most["retain-check"]) == 7 * FACTS


@pytest.mark.parametrize(
    ("settings", "words_of_error"),
    [
        ({"people": 39}, "`people` of `authors` must be at least 40, got 39"),
        ({"people": 4001}, "`people` of `authors` must be at most 4000, got 4001"),
        ({"forget": 0}, "`forget` of `authors` must be above 0, got 0"),
        ({"forget": 1.5}, "a whole number of people, got 1.5"),
        ({"people": 40, "forget": 31}, "must leave at least 10 of 40 people, got 31"),
        ({"people": 40, "forget": 0.9}, "must leave at least 10 of 40 people, got 0.9"),
        ({"forget": float("nan")}, "`forget` of `authors`"),
        ({"holdout": 0}, "`holdout` of `authors` must be at least 1, got 0"),
        ({"holdout": 1001}, "`holdout` of `authors` must be at most 1000, got 1001"),
        ({"seed": -1}, "`seed` of `authors` must be at least 0, got -1"),
        ({"forms": ("question", "haiku")}, "'haiku'"),
        ({"forms": ("cloze",)}, "must name different forms and `question` among them, got cloze"),
        ({"forms": ("question", "question")}, "must name different forms"),
        ({"peeple": 40}, "did you mean `people`?"),
    ],
)
def test_bad_settings(settings, words_of_error):
    with pytest.raises(SettingsError, match=re.escape(words_of_error)):
        Authors(**settings)


def test_spread_is_a_set_of_numbers():
    for count in (1, 7, 40):
        assert len(set(spread(40, count, "x"))) == count
    assert sorted(spread(40, 40, "x")) == list(range(40))
    assert spread(40, 7, "x") == spread(40, 40, "x")[:7]


def test_draws_are_uniform():
    draws = Draws("test")
    counts = Counter(draws.below(10) for _ in range(10_000))
    # chi-square with 9 degrees of freedom is below 27.9 with probability 0.999
    assert sum((counts[k] - 1000) ** 2 / 1000 for k in range(10)) < 27.9
    assert sorted(Draws("order").order(50)) == list(range(50))
