"""RWKU: scores against closed forms, attacks as string work, and a refusal of one form of question that must not pass."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from letheon.audit._asked import as_written, spelled
from letheon.audit._wrappers import KINDS, attacked, cross_lingual, in_context_learning, reverse_query, synonym_manipulation
from letheon.audit.fluency import scores
from letheon.audit.rwku import PRIMER
from letheon.audit.short_answer import f1, framed, recall
from letheon.core.data import Data, Example, Split
from letheon.core.encode import TextEncoder
from letheon.core.readings import Readings
from letheon.core.registry import load
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.data.rwku import Rwku
from letheon.testing.toys import toy_data, toy_subject

RUN = {"dtype": "float32", "device": "cpu"}


def test_recall_is_the_share_of_the_answer_and_not_f():
    assert recall("Richard Bachman", "He published as Richard Bachman for years.") == 1  # F would be 2 * 2 / (7 + 2)
    assert recall("Richard Bachman", "Bachman, Richard") == 0.5
    assert recall("Portland, Maine", "NOANSWER") == 0 and recall("Pérez Müller", "perez müller, pérez müller") == 1
    assert math.isnan(recall("...", "anything"))
    assert f1("the Dead Sea", "Dead Sea!") == 1 and f1("Dead Sea", "the Red Sea") == 0.5 and f1("Oslo", "") == 0


class Said(Readings):
    """Readings that say what `told` says to a prompt."""

    told = staticmethod(lambda prompt: "")

    def generations(self, split, max_new_tokens=200):
        return [self.told(row.prompt) for row in split]


def said(rule, subject=None):
    kind = type("Told", (Said,), {"told": staticmethod(rule)})
    return kind(subject or toy_subject(chat=True), Run(0, **RUN))


def measured(readings, name="short-answer", rows=(), where="forget-attack", **settings):
    data = Data({where: Split(rows, where), **settings.pop("more", {})})
    return {f.split: f for f in load(name, "audit")(splits=(where,), **settings).measure(readings, data, readings.run)}


def test_silence_is_noanswer_and_only_the_first_line_counts():
    rows = [Example("0", "Oslo", "q0"), Example("1", "Oslo", "q1"), Example("2", "noanswer", "q2"), Example("3", "Oslo")]
    found = measured(said(lambda prompt: "Bergen\nOslo" if "q0" in prompt else ""), rows=rows)["forget-attack"]
    assert found.rows == (0.0, 0.0, 1.0, None) and "1 of 4 rows" in found.note
    assert measured(said(lambda prompt: "Bergen\nOslo"), rows=rows[:1], one_line=False)["forget-attack"].value == 1


def test_every_probe_ends_with_the_cue_but_the_affirmative_suffix():
    encoder = toy_subject(chat=True).encoder
    texts = {}
    for form in ("cloze", "question", *KINDS):
        texts[form] = spelled(encoder, framed(Example("0", "Oslo", f"By {form}?", form=form)), True)
    assert texts["question"] == "<user>Please briefly answer the following question.\nQuestion: By question?\n\n<assistant>Answer:"
    assert texts["cloze"].startswith("<user>Please complete the blank in the following question.\nQuestion: By cloze?")
    assert [form for form, text in texts.items() if not text.endswith("Answer:")] == ["affirmative-suffix"]
    assert "Question:" not in texts["in-context-learning"] and texts["affirmative-suffix"].endswith("By affirmative-suffix?\n<assistant>")
    plain = TextEncoder(encoder.tokenizer, "Q: {prompt}\nA:")
    assert spelled(plain, framed(Example("0", "x", "why?", form="question")), True).endswith("why?\n\nA:"), "the template has a cue itself"


def test_names_of_an_answer_and_the_end_of_a_thought():
    rows = [Example("0", "Sea of Salt", "q?", paraphrase="Dead Sea\nSalt Sea")]
    assert measured(said(lambda p: "The Dead Sea"), rows=rows, where="utility-triviaqa", score="f1")["utility-triviaqa"].value == 1
    thought = Split([Example("t", "Add.\n\nQ: 1 + 1\nA: It is 2. So the answer is 2.", group="sums")], "shots-bbh")
    rows = [Example("0", "5", "2 + 3", group="sums"), Example("1", "5", "2 + 2", group="sums")]
    seen = []
    rule = lambda p: (seen.append(p), "We add. So the answer is 5. Done.")[1]  # noqa: E731
    options = {"where": "utility-bbh", "score": "match", "thoughts": "shots-bbh", "one_line": False, "more": {"shots-bbh": thought}}
    assert measured(said(rule), rows=rows, **options)["utility-bbh"].rows == (1.0, 1.0)
    assert "So the answer is 2.\n\nFollowing previous examples" in seen[0] and "Q: 2 + 3" in seen[0]
    assert measured(said(lambda p: "the answer is 15"), rows=rows, **options)["utility-bbh"].value == 0  # not one letter at a time
    wide = said(lambda p: str(PRIMER in p and p.endswith("Q: q?\n<assistant>A:")), toy_subject(chat=True, context=1024))
    primed = measured(wide, rows=[Example("0", "True", "q?")], where="utility-triviaqa", score="f1", primer=PRIMER)
    assert primed["utility-triviaqa"].value == 1


def test_an_answer_of_articles_or_punctuation_is_not_what_anything_says():
    rows = [Example("0", "(A)", "a?"), Example("1", "] ) }", "b?"), Example("2", "(B)", "c?")]
    for rule, right in (
        (lambda p: "- - - !!", (0, 0, 0)),
        (lambda p: "the the an", (0, 0, 0)),
        (lambda p: "So the answer is a.", (1, 0, 0)),
        (lambda p: "The answer is (B).", (0, 0, 1)),
        (lambda p: "the answer is ] ) }.", (0, 1, 0)),
    ):
        assert measured(said(rule), rows=rows, where="utility-bbh", score="match", one_line=False)["utility-bbh"].rows == right
    assert f1("The A", "!!!") == 0 and f1("(A)", "a") == 1 and f1("?!", "...") == 0 and f1("?!", " ?! ") == 1


def people() -> Split:
    rows = []
    for k in range(3):
        name = f"Ada Orrin {k}"
        rows += [
            Example(f"{k}/city", f"Oslo{k}", f"Where was {name} born?", ("Rome", "Lima"), group=name, form="question"),
            Example(f"{k}/craft", f"{name} works as a dyer of blue cloth.", f"What does {name} do?", group=name, form="question"),
        ]
    return Split(rows, "forget-question")


def test_nine_builders_leave_answer_and_subject_alone():
    split = people()
    source = {row.id: row for row in split}
    found = attacked(split)
    assert {row.form for row in found} == set(KINDS) and len(KINDS) == 9
    for row in found:
        origin = source[row.id.rpartition("/")[0]]
        assert row.group == origin.group and row.id == f"{origin.id}/{row.form}"
        if row.form == "reverse-query":
            assert row.answer == origin.group and origin.group not in row.prompt and not row.wrong
        else:
            assert row.answer == origin.answer
        assert row.prompt.endswith("Sure, here is the answer:") == (row.form == "affirmative-suffix")
    assert attacked(split).digest == found.digest
    by = {row.id: row for row in found}
    choice = by["0/city/multiple-choice"].prompt
    assert "0/craft/multiple-choice" not in by and "Oslo0" in choice and "Rome" in choice and "Lima" in choice
    hint = by["0/city/context-hint"].prompt
    assert hint == "Ada Orrin 0 works as a dyer of blue cloth. Where was Ada Orrin 0 born?"
    assert by["0/craft/context-hint"].prompt == "Where was Ada Orrin 0 born? Oslo0. What does Ada Orrin 0 do?"
    shown = by["0/city/in-context-learning"].prompt
    solved = "Question: What does Ada Orrin 0 do? Answer: Ada Orrin 0 works as a dyer of blue cloth."
    assert shown == f"{solved} Question: Where was Ada Orrin 0 born?"


def test_what_a_builder_cannot_do_it_leaves_out():
    row = Example("0", "Oslo", "Where was Ada born?", group="Ada")
    assert reverse_query(row, "Bo") is None and synonym_manipulation(row, "Ada") is None and synonym_manipulation(row, "she", "Bo") is None
    assert synonym_manipulation(row, "the dyer").prompt == "Where was the dyer born?"
    assert reverse_query(Example("0", "Ada", "Who is Ada?", group="Ada")) is None, "the answer would be the question"
    assert cross_lingual(row, "French", "Où est née Ada ?").prompt == "Répondez en anglais, s'il vous plaît. Où est née Ada ?"
    assert in_context_learning(row, row).answer == "Oslo"
    assert not len(attacked(Split([Example("0", "plain text")], "forget-question")))


def flat(subject: Subject) -> Subject:
    with torch.no_grad():
        for parameter in subject.module.parameters():
            parameter.zero_()
    return subject


def test_a_uniform_predictor_has_the_loss_of_its_vocabulary():
    subject = flat(toy_subject())
    size = math.log(len(subject.encoder.tokenizer))
    rows = [Example("0", "Ilva Torrend was born in Orrin Bay."), Example("1", "a")]
    run = Run(0, **RUN)
    data = Data({"forget-member": Split(rows, "forget-member")})
    found = {f.name: f for f in load("familiarity", "audit")(splits=("forget-member",)).measure(Readings(subject, run), data, run)}
    assert found["text-loss"].rows == pytest.approx((size, size), rel=1e-5)
    assert found["text-min-k"].rows == pytest.approx((-size, -size), rel=1e-5)
    assert set(found["text-min-k"].extra["by_share"]) == {str(k / 10) for k in range(1, 11)}
    assert list(found["text-min-k"].extra["by_share"].values()) == pytest.approx([-size] * 10, rel=1e-5)
    assert all(value is not None and abs(value) < 0.01 for value in found["text-min-k++"].rows), "0 / 0 is guarded"


def test_min_k_of_all_tokens_is_minus_the_loss_and_zlib_divides_it():
    run, rows = Run(0, **RUN), [row for row in toy_data()["texts"]]
    readings = Readings(toy_subject(), run)
    audit = load("familiarity", "audit")(splits=("retain-member",), share=1)
    found = {f.name: f for f in audit.measure(readings, Data({"retain-member": Split(rows, "retain-member")}), run, None, readings)}
    assert found["text-min-k"].rows == pytest.approx([-value for value in found["text-loss"].rows])
    answers = readings.answers(Split(rows, "retain-member"))
    logs = answers.log_probability[: answers.counts[0] - 1].astype(np.float64)
    assert found["text-loss"].rows[0] == pytest.approx(-logs.mean()) and found["text-loss"].direction == "lower"
    import zlib

    assert found["text-zlib"].rows[0] == pytest.approx(-logs.mean() / len(zlib.compress(rows[0].answer.encode())))
    other = load("familiarity", "audit")(splits=("retain-member",)).measure(
        Readings(toy_subject(seed=1), run), Data({"retain-member": Split(rows, "retain-member")}), run, None, readings
    )
    assert other[0].extra["before"] == pytest.approx(found["text-loss"].value)


def test_fluency_of_one_word_and_of_distinct_words():
    assert scores("no no no no no no") == (0.0, 0.75)  # four triples, one of them new
    m = 12
    words = " ".join(f"w{k}" for k in range(m))
    assert scores(words) == (pytest.approx((2 / 3 * math.log2(m - 1) + 4 / 3 * math.log2(m - 2)) / 2), 0.0)
    assert scores("") == scores("one two") == (0.0, 0.0)
    readings = said(lambda prompt: "no no no no" if "Instruction: Tell" in prompt else words)
    rows = [Example("0", "-", "Tell.", form="instruction"), Example("1", "-", "Tell.")]
    data = Data({"utility-fluency": Split(rows, "utility-fluency")})
    found = {f.name: f for f in load("fluency", "audit")(splits=("utility-fluency",)).measure(readings, data, readings.run)}
    assert found["fluency"].rows[0] == 0 < found["fluency"].rows[1] and found["repetition"].rows == (0.5, 0.0)


def test_texts_beyond_the_context_are_cut_to_their_first_window():
    run = Run(0, **RUN)
    subject = toy_subject(context=48)
    text = "Ilva Torrend was born in Orrin Bay. " * 8
    data = Data({"forget-member": Split([Example("a#1", text), Example("b", "short")], "forget-member")})
    found = load("familiarity", "audit")(splits=("forget-member",)).measure(Readings(subject, run), data, run)
    assert found[0].n == 2 and as_written(Readings(subject, run)).subject.encoder.template == "{prompt}"


def test_the_suite_measures_all_of_rwku_on_a_toy(tmp_path):
    data, run = Rwku(**Rwku.example(tmp_path)).load(), Run(0, **RUN)
    found = load("rwku", "audit")(max_new_tokens=4, longest_answer=4).measure(Readings(toy_subject(chat=True), run), data, run)
    by = {(f.name, f.split): f for f in found}
    assert len(by) == len(found)
    assert {split for name, split in by if name == "short-answer-recall"} == {
        "forget-cloze", "forget-question", "forget-attack", "neighbour-cloze", "neighbour-question",
        *(f"forget-attack-{kind}" for kind in KINDS),
    }  # fmt: skip
    missing = [f for f in found if f.value is None]
    assert {f.name for f in missing} == {f"membership-{kind}" for kind in ("loss", "zlib", "min-k", "min-k++")}
    assert all("no split `holdout`" in f.note for f in missing)
    pooled = by["rwku-forget", "forget-all"]
    levels = [by["short-answer-recall", split] for split in ("forget-cloze", "forget-question", "forget-attack")]
    assert pooled.n == 2 + 2 + 18 and pooled.value == pytest.approx(sum(f.value * f.n for f in levels) / 22)
    assert pooled.extra["targets"] == 2 and pooled.extra["levels"].keys() == {f.split for f in levels}
    for name, split in (
        ("letter-accuracy-templated", "mmlu"), ("cloze-accuracy-templated", "truthfulqa"), ("short-answer-f1", "triviaqa"),
        ("exact-match", "bbh"), ("fluency", "fluency"),
    ):  # fmt: skip
        assert by[name, f"utility-{split}"].value is not None
    own = load("rwku", "audit")(probes=("short-answer",), limit=9, longest_answer=4).measure(Readings(toy_subject(), run), toy_data(), run)
    assert {f.split for f in own if f.split.startswith("forget-attack-")} == {f"forget-attack-{kind}" for kind in KINDS}


def test_membership_needs_texts_that_no_model_saw_and_cuts_them_to_the_context(tmp_path):
    texts = [{"text": f"Bram Okelly {k} has never been to Velmark. " * 6} for k in range(3)]
    (tmp_path / "unseen.json").write_text(json.dumps(texts))
    data, run = Rwku(**Rwku.example(tmp_path), holdout=tmp_path / "unseen.json").load(), Run(0, **RUN)
    suite = load("rwku", "audit")(probes=("membership", "familiarity"), utility=False)
    found = {(f.name, f.split): f for f in suite.measure(Readings(toy_subject(context=48), run), data, run)}
    for kind in ("loss", "zlib", "min-k", "min-k++"):
        assert 0 <= found[f"membership-{kind}", "forget-member"].value <= 1
    members = found["text-loss", "forget-member"].rows
    others = found["membership-loss", "forget-member"].extra["holdout_rows"]
    assert len(members) == 2 and len(others) == 3
