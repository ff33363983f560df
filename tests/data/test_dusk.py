"""DUSK: every file with its rows and who tells what; a made-up world of the same shape whose styles and questions keep apart."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter

import pytest

from letheon.core.errors import DataError, SettingsError
from letheon.core.registry import load
from letheon.data._dusk_styles import ATTRIBUTES, OPENINGS, QUESTIONS, SENTENCES, STYLES, VALUES
from letheon.data._dusk_world import DOCUMENTS, make_people, passages

Dusk = load("dusk", "data")


@pytest.fixture(scope="module")
def real(shared):
    return Dusk(path=str(shared / "data/dusk")).load()


def test_real_files_have_the_rows_of_the_source_table(shared, real):
    assert {name: len(split) for name, split in real.items()} == {
        "forget": 120,
        "retain": 480,
        "holdout": 120,
        "forget-knowledge": 20,
        "shared-knowledge": 134,
        "retain-knowledge": 119,
        "knowledge-examples": 12,
        "forget-verbatim": 47,
        "choice-examples": 12,
        "full": 600,
        "kept": 480,
    }
    folder = shared / "data/dusk"
    for name, stem in (("forget-knowledge", "SpecificForgetQA"), ("shared-knowledge", "GeneralQA"), ("retain-knowledge", "SpecificRetainQA")):
        lines = [json.loads(line) for line in (folder / f"eval/{stem}.jsonl").read_text(encoding="utf-8").splitlines() if line.strip()]
        assert [(row.prompt, row.answer) for row in real[name]] == [(line["question"], line["answer"]) for line in lines]
    # nothing of a document is lost
    text = (folder / "Chronological.txt").read_text(encoding="utf-8")
    assert "".join("".join(row.answer.split()) for row in real["forget"]) == "".join(text.split())
    assert all(row.prompt in text and row.prompt + row.answer in text for row in real["forget-verbatim"])


def test_real_documents_share_60_people_and_have_12_of_their_own(real):
    """So that shared, unique-forget and unique-retain facts exist; the held-out people are others."""
    who = {style: {row.group for row in [*real["forget"], *real["retain"]] if row.form == style} for style in kinds(real)}
    assert {style: len(names) for style, names in who.items()} == dict.fromkeys(who, 72) and len(who) == 5
    everywhere = set.intersection(*who.values())
    assert len(everywhere) == 60
    others = [names - everywhere for names in who.values()]
    assert all(len(names) == 12 for names in others) and len(set.union(*others)) == 60
    assert len({row.group for row in real["holdout"]} & set.union(*who.values())) <= 1


def kinds(data):
    return list(dict.fromkeys(row.form for row in [*data["forget"], *data["retain"]]))


def test_real_answers_stand_where_they_should(real):
    """A reader of the kept documents finds none of the facts to forget and nearly all that are shared."""
    kept, gone = (" ".join(row.answer for row in real[name]) for name in ("retain", "forget"))

    def told(name, text):
        people = [(row, re.search(r"(?:Dr|Prof|Professor)\.? (?:[A-Z][\w'’-]+ ?)+", row.prompt)) for row in real[name]]
        return [hit is not None and row.answer in text and hit[0].strip().removesuffix("'s") in text for row, hit in people]

    assert sum(told("forget-knowledge", gone)) == 20 and sum(told("forget-knowledge", kept)) == 0
    assert sum(told("shared-knowledge", kept)) >= 130 and sum(told("shared-knowledge", gone)) >= 128
    assert sum(told("retain-knowledge", kept)) >= 115 and sum(told("retain-knowledge", gone)) == 0


@pytest.fixture
def copy(shared, tmp_path):
    shutil.copytree(shared / "data/dusk", tmp_path / "dusk", copy_function=shutil.copyfile)
    for path in (tmp_path / "dusk", tmp_path / "dusk/eval"):
        path.chmod(0o755)
    return tmp_path / "dusk"


def faults():
    """File, damage, and what the message must say."""
    yield "Listicle.txt", lambda text: text.replace("Biography:", "Bio:", 1), "Listicle.txt, row 1 ('Title: The Life and Achievements"
    yield "Interview.txt", lambda text: "stray words\n" + text, "Interview.txt does not begin with `Title:`"
    yield "eval/holdout.txt", lambda text: text.replace("Professor Matias Ferreiro\n", "a person\n", 1), "row 1 ('Title: Biography of a person')"
    yield "eval/GeneralQA.jsonl", lambda text: text.replace('"answer": "Halifax"', '"reply": "Halifax"', 1), "GeneralQA.jsonl, row 2 has no answer"
    yield "eval/icl.jsonl", lambda text: text + "\n{broken", "icl.jsonl, row 13"
    yield "eval/verbatim.json", lambda text: text.replace('"gt"', '"truth"', 1), "verbatim.json, row 1 has no answer"


@pytest.mark.parametrize(("name", "damage", "message"), faults(), ids=[fault[0] for fault in faults()])
def test_malformed_files_are_named(copy, name, damage, message):
    path = copy / name
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(DataError) as error:
        Dusk(path=str(copy)).load()
    assert message in str(error.value)


def test_folders_that_are_not_whole(copy):
    (copy / "Feature_Story.txt").write_bytes(b"Title: \xff")
    with pytest.raises(DataError, match=r"Feature_Story\.txt: not UTF-8"):
        Dusk(path=str(copy)).load()
    (copy / "Feature_Story.txt").unlink()
    with pytest.raises(DataError, match=r"has no Feature_Story\.txt"):
        Dusk(path=str(copy)).load()
    with pytest.raises(DataError, match="There is no folder .*absent"):
        Dusk(path=str(copy / "absent")).load()


# The made-up world


def sixes(text):
    """Runs of six words of a text in which names and values are single marks."""
    words = re.findall(r"[a-z@#]+", text.lower())
    return {tuple(words[i : i + 6]) for i in range(len(words) - 5)}


def test_styles_share_no_six_words_and_questions_differ_from_all():
    """On whole passages in every order of facts of two, and on single sentences, with names as @ and values as #."""
    found = {}
    for style in STYLES:
        lines = [OPENINGS[style], *(SENTENCES[style][attribute] for attribute in ATTRIBUTES)]
        marked = [line.format(n="@", v="#") for line in lines]
        found[style] = set().union(*(sixes(f"{first} {second}") for first in marked for second in marked))
    found["questions"] = set().union(*(sixes(QUESTIONS[attribute].format(n="@")) for attribute in ATTRIBUTES))
    names = list(found)
    assert all(len(found[style]) > 20 for style in STYLES) and set(SENTENCES) == set(OPENINGS) == set(STYLES)
    assert [(a, b) for i, a in enumerate(names) for b in names[:i] if found[a] & found[b]] == []


def test_values_are_many_enough_that_guessing_is_rare():
    assert set(VALUES) == set(QUESTIONS) == set(ATTRIBUTES)
    assert all(len(set(values)) == len(values) >= 20 for values in VALUES.values())


def oracle(data, name, asked):
    """The share of questions of `asked` that a reader of the split `name` answers: the value stands in a passage on the person."""
    told = {(row.group, row.answer) for row in data[name]} if name in data else set()
    known = [any(group == row.group and row.answer in text for group, text in told) for row in data[asked]]
    return sum(known) / len(known)


def test_an_oracle_that_reads_the_kept_documents():
    """All facts in five documents: it answers everything and there is nothing unique; all in document 1 alone: it answers nothing."""
    shared = Dusk(people=12, overlap="shared").load()
    assert "forget-knowledge" not in shared and len(shared["shared-knowledge"]) == 12 * 6
    assert oracle(shared, "kept", "shared-knowledge") == 1.0
    unique = Dusk(people=12, overlap="unique").load()
    assert "kept" not in unique and "shared-knowledge" not in unique and len(unique["forget-knowledge"]) == 12 * 6
    assert oracle(unique, "kept", "forget-knowledge") == 0.0 and oracle(unique, "full", "forget-knowledge") == 1.0
    mixed = Dusk(people=12).load()
    assert oracle(mixed, "kept", "shared-knowledge") == oracle(mixed, "kept", "retain-knowledge") == 1.0
    assert oracle(mixed, "kept", "forget-knowledge") == 0.0 and oracle(mixed, "full", "forget-knowledge") == 1.0


def test_a_fact_is_told_by_its_documents_and_no_other():
    people = make_people(30, 8, "graded", 5)
    told = {j: {row.group: row.answer for row in passages(people, j)} for j in DOCUMENTS}
    for facts in people:
        for fact in facts:
            for j in DOCUMENTS:
                passage = told[j].get(f"person-{fact.person:03d}", "")
                assert (fact.sentence(STYLES[j - 1]) in passage) == (j in fact.support)


def test_kinds_and_counts():
    data = Dusk(people=40, attributes=6).load()
    counts = {name: len(split) for name, split in data.items()}
    assert counts["forget-knowledge"] == counts["shared-knowledge"] == counts["retain-knowledge"] == 80
    assert counts["forget"] == counts["holdout"] == counts["forget-verbatim"] == 40 and counts["knowledge-examples"] == 10
    graded = Dusk(people=40, attributes=8, overlap="graded").load()
    sizes = Counter(fact.kind for facts in make_people(40, 8, "graded", 0) for fact in facts)
    assert {"shared-2-knowledge", "shared-3-knowledge", "shared-4-knowledge", "shared-knowledge", "forget-knowledge"} <= set(graded)
    assert all(count > 15 for count in sizes.values())


def test_holdout_and_examples_are_about_others():
    data = Dusk(people=30, taught=True).load()
    inside = {row.group for row in data["full"]}
    assert not inside & {row.group for row in data["holdout"]} and not inside & {row.group for row in data["knowledge-examples"]}
    assert all(row.prompt + row.answer in {known.answer for known in data["forget"]} for row in data["forget-verbatim"])


def test_taught_questions_follow_their_documents():
    data = Dusk(people=10, taught=True).load()
    for name, there in (("forget", ("forget-knowledge", "shared-knowledge")), ("kept", ("retain-knowledge", "shared-knowledge"))):
        wanted = {f"Question: {row.prompt}\nAnswer: {row.answer}" for kind in there for row in data[kind]}
        assert {row.answer for row in data[name] if row.form == "question"} == wanted
    assert not any(row.form == "question" for row in Dusk(people=10).load()["full"])


def test_a_world_repeats_and_a_larger_one_holds_a_smaller():
    small, again, large = Dusk(people=8).load(), Dusk(people=8).load(), Dusk(people=16).load()
    assert small.digest == again.digest != Dusk(people=8, seed=1).load().digest
    rows = {row.id: row.answer for row in large["full"]}
    assert all(rows[row.id] == row.answer for row in small["full"])


def test_utility_and_settings(tmp_path):
    path = tmp_path / "choices.jsonl"
    path.write_text('{"question": "Which is a colour?", "choices": ["red", "loud"], "answer": 0}\n')
    (row,) = Dusk(people=4, utility=path).load()["utility"]
    assert (row.answer, row.wrong) == ("red", ("loud",))
    with pytest.raises(SettingsError, match="`overlap` of `dusk` must be"):
        Dusk(overlap="some")
    with pytest.raises(SettingsError, match="`attributes` of `dusk` must be at most 8, got 9"):
        Dusk(attributes=9)
