"""The embedded world: the same everywhere, nested, disjoint where it must be, and hard to see through by anything but knowledge."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from letheon.core.data import Data
from letheon.core.registry import load
from letheon.data import _authors_words as words
from letheon.data._authors_facts import FORMS, LINKS, PERSON_FACTS, WORLD_FACTS
from letheon.data._authors_people import MOST_HOLDOUT, MOST_PEOPLE, make_person, make_world
from letheon.data.authors import Authors

# sha256 over all rows of `Authors(people=40)`. It changes with any word, template or draw; results before and after do not compare.
DIGEST_40 = "d1551123edf5fdf1fb0d555c52ef1346f830c2e92ce057de9d4c93ea6df8bea0"
FACTS = len(PERSON_FACTS)


@pytest.fixture(scope="module")
def small() -> Data:
    return Authors(people=40).load()


@pytest.fixture(scope="module")
def large() -> Data:
    return Authors(people=4000, forms=("question",)).load()


def people_of(split) -> set[str]:
    return {row.group for row in split}


def said(row) -> str:
    return "\n".join([row.prompt, row.answer, row.paraphrase or "", *row.wrong])


def names_in(text: str) -> set[str]:
    """Every two neighbouring words with capitals."""
    return {f"{a} {b}" for a, b in re.findall(r"\b([A-Z]\w+)(?= ([A-Z]\w+))", text)}


def value_of(row) -> str:
    """What the row states, read back from its own text by a route that the generator does not use."""
    name, text = row.id.split("/")[1], row.answer
    if row.form == "choice":
        return text[3:]
    if row.form == "cloze":
        return text[:-1]
    fact = next(fact for fact in [*PERSON_FACTS, *(fact for _, fact in WORLD_FACTS)] if fact.name == name)
    for template in (fact.answer, fact.other_answer):
        match = re.fullmatch(re.escape(template).replace(r"\{name\}", r"[A-Z]\w+(?: [A-Z]\w+)*").replace(r"\{value\}", "(.+)"), text)
        if match:
            return match.group(1)
    raise AssertionError(text)


def test_registry_finds_the_source():
    assert load("authors", "data") is Authors
    assert Authors.name() == "authors"


def test_digest_is_pinned(small):
    assert small.digest == DIGEST_40
    assert small.name == "authors-40"


def test_digest_does_not_depend_on_hash_randomisation():
    code = "from letheon.data.authors import Authors; print(Authors(people=40).load().digest)"
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == DIGEST_40


def test_seeds_are_different_worlds(small):
    other = Authors(people=40, seed=1).load()
    names = {row.prompt for row in small["retain"]} & {row.prompt for row in other["retain"]}
    # 40 of 10,752 names in each world: 0.15 shared names expected, each with up to ten prompts
    assert len(names) <= 2 * FACTS
    assert Authors(people=40, seed=1).load().digest == other.digest != small.digest


def test_worlds_nest(small):
    bigger = Authors(people=120, forget=0.3).load()
    rows = {row.id: row for row in bigger["full"]}
    assert all(rows[row.id] == row for row in small["full"])
    assert all(a == b for a, b in zip(small["holdout"], bigger["holdout"], strict=False))


def test_counts(small):
    rows = {name: len(split) for name, split in small.items()}
    world = 24 + 16 + 16 + 24  # cities, publishers, prizes, mentors
    assert rows["forget"] == rows["forget-cloze"] == rows["forget-choice"] == rows["forget-paraphrase"] == 4 * FACTS
    assert rows["retain"] == 36 * FACTS
    assert rows["holdout"] == rows["holdout-choice"] == 4 * FACTS
    assert rows["world-facts"] == world
    assert rows["full"] == len(FORMS) * (40 * FACTS + world)
    assert rows["kept"] == len(FORMS) * (36 * FACTS + world)
    assert rows["retain-check"] == rows["retain-check-cloze"] == 100
    assert rows["neighbours"] == 2 * 4 * FACTS  # two for each forgotten person
    assert rows["refusals"] == 40 == len({row.answer for row in small["refusals"]})
    assert len(small) == 9 + 3 * 3


def test_counts_of_the_largest_world(large):
    assert len(large["forget"]) == 400 * FACTS
    assert len(large["retain"]) == 3600 * FACTS
    assert len(large["full"]) == 4000 * FACTS + 80
    assert len(large["neighbours"]) == len(large["retain-check"]) == 100
    assert len(large["holdout"]) == 400 * FACTS


def test_all_names_and_titles_are_different():
    world = make_world(0)
    everybody = [make_person(world, i) for i in range(MOST_PEOPLE)] + [make_person(world, i, True) for i in range(MOST_HOLDOUT)]
    names = [person.name for person in everybody] + list(world.pools["mentors"])
    assert len(names) == 5024 == len(set(names))
    titles = [t for p in everybody for book in ("debut", "latest") for t in (p.values[book], *p.wrong[book])]
    assert len(titles) == 5000 * 12 == len(set(titles))


def test_words_are_different():
    for pool in (words.CITIES, words.COUNTRIES, words.YEARS, words.PUBLISHERS, words.PRIZES, words.GENRES, words.JOBS):
        assert len(set(pool)) == len(pool) >= 10
    names = [a + b for a in words.FIRST_STARTS for b in words.FIRST_ENDS] + [a + b for a in words.LAST_STARTS for b in words.LAST_ENDS]
    places = [*words.CITIES, *words.COUNTRIES]
    assert len({*names, *places}) == len(names) + len(places)


def test_splits_are_disjoint(small):
    ids = {name: {row.id for row in split} for name, split in small.items()}
    assert ids["full"] == ids["kept"] | {i for form in ("", "-cloze", "-choice", "-paraphrase") for i in ids["forget" + form]}
    assert ids["retain"] | ids["world-facts"] <= ids["kept"]
    assert ids["neighbours"] | ids["retain-check"] <= ids["retain"]
    for one, other in [("kept", "forget"), ("full", "holdout"), ("retain", "forget")]:
        assert not people_of(small[one]) & people_of(small[other]), (one, other)
    assert not people_of(small["retain-check"]) & people_of(small["neighbours"])
    for form in FORMS[1:]:
        assert ids[f"retain-check-{form}"] == {i.replace("question", form) for i in ids["retain-check"]}
        assert [row.id.replace(form, "question") for row in small[f"forget-{form}"]] == [row.id for row in small["forget"]]


def test_kept_rows_hold_nothing_of_forgotten_or_held_out_people(small):
    world, text = make_world(0), "\n".join(said(row) for row in small["kept"])
    spoken = names_in(text)
    gone = {int(name.rpartition("-")[2]) for name in people_of(small["forget"])}
    kept = [make_person(world, i) for i in range(40) if i not in gone]
    assert all(person.name in spoken for person in kept)  # the search finds what is there
    for person in [make_person(world, i) for i in gone] + [make_person(world, i, True) for i in range(4)]:
        assert person.name not in spoken
        assert not any(title in text for title in (person.values["debut"], person.values["latest"], *person.wrong["debut"]))


def test_no_private_fact_is_told_in_rows_about_others(small):
    names = {row.group: re.search(r"by (\w+ \w+)\?", row.prompt).group(1) for row in small["full"] if "/debut/question" in row.id}
    assert len(names) == 40
    for row in small["full"]:
        assert not names_in(said(row)) & (set(names.values()) - {names.get(row.group)}), row


@pytest.mark.parametrize("split", ["full", "holdout"])
def test_wrong_answers_are_wrong_and_of_the_same_form(small, split):
    truths = {(row.group, value_of(row)) for row in small[split] if row.form == "question"}
    for row in small[split]:
        assert len(set(row.wrong)) == len(row.wrong) == (3 if row.form == "choice" else 5)
        model = row.paraphrase or row.answer
        assert model not in row.wrong and row.answer not in row.wrong
        value = value_of(row)
        for wrong in row.wrong:
            if row.form == "choice":
                assert wrong[3:] != value and wrong[0] != row.answer[0] and wrong in row.prompt
            else:
                head, _, tail = model.partition(value)
                assert wrong.startswith(head) and wrong.endswith(tail)
                stated = wrong[len(head) : len(wrong) - len(tail)]
                assert stated != value and (row.group, stated) not in truths


def test_paraphrases_use_other_words(small):
    rows = [row for row in small["full"] if row.form in ("question", "paraphrase") and row.group.startswith("person")]
    assert len(rows) == 2 * 40 * FACTS
    assert all(row.paraphrase != row.answer and value_of(row) in row.paraphrase for row in rows)
    by_id = {row.id: row for row in rows}
    for row in small["forget"]:
        other = by_id[row.id.replace("question", "paraphrase")]
        assert (other.answer, other.paraphrase) == (row.paraphrase, row.answer) and other.prompt != row.prompt


def test_all_forms_carry_the_same_value(small):
    stated: dict[str, dict[str, str]] = {}
    for row in [*small["full"], *(row for form in ["", *(f"-{f}" for f in FORMS[1:])] for row in small["holdout" + form])]:
        stated.setdefault(row.id.rpartition("/")[0], {})[row.form] = value_of(row)
    assert len(stated) == 44 * FACTS + 80
    for fact, forms in stated.items():
        assert set(forms) == set(FORMS) and len(set(forms.values())) == 1, fact


def test_multiple_choice_has_its_answer_everywhere_equally_often(large):
    letters = Counter(row.answer[0] for row in large["forget-choice"])
    assert sum(letters.values()) == 4000
    # chi-square with 3 degrees of freedom is below 16.3 with probability 0.999
    assert sum((letters[letter] - 1000) ** 2 / 1000 for letter in "ABCD") < 16.3


def test_held_out_people_look_like_trained_people(large):
    """Two-sample chi-square of forgotten against held-out people over the values of each shared fact."""
    for fact in (*LINKS, "parent"):
        a, b = (Counter(value_of(row) for row in large[split] if f"/{fact}/" in row.id) for split in ("forget", "holdout"))
        assert sum(a.values()) == sum(b.values()) == 400
        kinds = set(a) | set(b)
        chi = sum((a[kind] - b[kind]) ** 2 / (a[kind] + b[kind]) for kind in kinds)
        # mean k - 1, variance about 2 (k - 1): five standard deviations above
        assert chi < len(kinds) - 1 + 5 * (2 * (len(kinds) - 1)) ** 0.5, fact


def test_neighbours_share_more_than_others(small):
    values: dict[str, dict[str, str]] = {}
    for row in [*small["forget"], *small["retain"]]:
        values.setdefault(row.group, {})[row.id.split("/")[1]] = value_of(row)
    gone, near = people_of(small["forget"]), people_of(small["neighbours"])
    assert len(near) == 8

    def best(person: str) -> int:
        return max(sum(values[person][link] == values[other][link] for link in LINKS) for other in gone)

    others = people_of(small["retain"]) - near
    assert min(map(best, near)) >= 1
    assert sum(map(best, near)) / len(near) > sum(map(best, others)) / len(others)


@pytest.mark.parametrize("people", [40, 300])
def test_retain_check_is_even(people):
    rows = Authors(people=people).load()["retain-check"]
    for key in (lambda row: row.group, lambda row: row.id.split("/")[1]):
        counts = Counter(map(key, rows))
        assert max(counts.values()) - min(counts.values()) <= 1
    assert len(rows) == 100
