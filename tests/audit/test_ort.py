"""One fact in several forms: forms made of rows, identities of the scores, the form-dependence index and what it needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import letheon as lt
from letheon.audit._forms import as_choice, by_character, by_letter, dependence, forms_of, scores
from letheon.audit.ort import Ort
from letheon.core.data import Data, Example, Split
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.testing.toys import toy_data, toy_subject

WRONG = ("in X.", "in Y.", "in Z.", "in W.")
QUESTION = Example("a/city/question", "Ilva was born in Low Harrow.", "Where was Ilva born?", WRONG, "again", "a")


def run() -> Run:
    return Run(3, device="cpu", dtype="float32")


def many(n: int, form: str, family: str = "forget") -> Split:
    """Rows whose answer is a word of its own."""
    return Split([Example(f"{i}/fact/{form}", f"{form}-{i}", f"{form} of {i}", form=form, group=str(i)) for i in range(n)], f"{family}-{form}")


def world(n: int = 8, *forms: str) -> Data:
    return Data({f"forget-{form}": many(n, form) for form in forms or ("cloze", "paraphrase", "blank")})


def telling(told, table):
    """Readings that give every answer of a form the probability that the table has for the form (or for the row)."""

    def probability(text: str) -> float:
        form, _, i = text.partition("-")
        found = table[form]
        return found if isinstance(found, float) else found[int(i)]

    texts = [f"{form}-{i}" for form in table for i in range(12)]
    # two tokens with this geometric mean, and an end token that must not count
    return told({text: [np.log(probability(text)) - 0.5, np.log(probability(text)) + 0.5, -9.0] for text in texts if _has(table, text)})


def _has(table, text):
    found = table[text.partition("-")[0]]
    return isinstance(found, float) or int(text.partition("-")[2]) < len(found)


def index(told, before, after, never=None, n=8, **settings):
    """The form-dependence finding for tables of probabilities."""
    forms = tuple(before)
    readings = [None if table is None else telling(told, table) for table in (after, never, before)]
    found = Ort(families=("forget",), forms=forms, **settings).measure(readings[0], world(n, *forms), run(), *readings[1:])
    return next(one for one in found if one.name == "form-dependence")


def test_rows_are_sorted_by_form_and_count_once():
    rows = [QUESTION, replace(QUESTION, id="a/city/cloze", answer="Low Harrow.", form="cloze"), replace(QUESTION, id="b", form="question")]
    splits = {"forget": rows[::2], "forget-cloze": rows[1:2], "forget-rest": rows[2:]}
    data = Data({name: Split(some, name) for name, some in splits.items()})
    forms = forms_of(data, "forget")
    assert list(forms) == ["question", "cloze", "choice", "characters"]
    assert [row.id for row in forms["question"]] == ["a/city/question", "b"] and forms["cloze"].name == "forget-cloze"
    assert [row.id for row in forms["characters"]] == ["a/city/question/characters", "b/characters"]
    # what is spelled is the value alone where a cloze of the same fact has it
    assert forms["characters"][0].answer == "L\no\nw\nH\na\nr\nr\no\nw\n.\n"
    assert forms["characters"][1].answer.startswith("I\nl\nv\na\nw\n")
    assert forms_of(data, "retain") == {} and forms_of(Data({"forget": Split([Example("t", "plain text")])}), "forget") == {}


def test_the_embedded_world_has_five_forms():
    data = lt.data("authors", people=40)
    forms = forms_of(data, "forget")
    assert list(forms) == ["question", "cloze", "choice", "characters", "paraphrase"] and {len(rows) for rows in forms.values()} == {40}
    for question, spelled, cloze in zip(forms["question"], forms["characters"], forms["cloze"], strict=True):
        assert spelled.prompt.startswith(question.prompt + "\n") and spelled.answer.replace("\n", "") == cloze.answer.replace(" ", "")
    assert forms["choice"].digest == Split(data["forget-choice"], "x").digest  # as they are, none is made


def test_characters_and_choices_are_pure_functions_of_a_row():
    spelled = by_character(QUESTION, "a b")
    assert (spelled.answer, spelled.form, spelled.wrong, spelled.paraphrase) == ("a\nb\n", "characters", (), None)
    assert spelled.prompt == "Where was Ilva born?\nWrite the answer one character per line."
    places = [as_choice(QUESTION, k) for k in range(5)]
    assert [row.answer[0] for row in places] == list("ABCDA")
    assert places[1].prompt == "Where was Ilva born?\nA) in X.\nB) Ilva was born in Low Harrow.\nC) in Y.\nD) in Z."
    letters = by_letter(Split(places[:1], "forget-choice"))
    assert letters[0].answer == "A" and letters[0].wrong == ("B", "C", "D") and letters[0].prompt == places[0].prompt
    assert by_letter(Split([QUESTION], "forget-choice")) is None


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_uniform_model_gives_one_over_v_at_any_length_and_a_quarter_of_letters(architecture):
    subject = toy_subject(architecture=architecture)
    with torch.no_grad():
        subject.module.get_output_embeddings().weight.zero_()
    readings, size = Readings(subject, run()), subject.module.get_output_embeddings().weight.shape[0]
    forms = forms_of(toy_data(), "forget")
    for form in ("question", "characters", "choice"):
        found = scores(readings, forms[form])
        assert found.probability == pytest.approx(1 / size, rel=1e-4), form
    assert found.known == pytest.approx(0.25, rel=1e-5) and found.chance == 0.25


def test_a_certain_model_gives_one_and_the_end_token_does_not_count(told):
    rows = Split([Example("0", "x", "q"), Example("1", "y", "q")], "forget-cloze")
    hits = {"x": [True, True, False], "y": [False, True, True]}
    found = scores(told({"x": [0.0, 0.0, -50.0], "y": [np.log(0.25), 0.0, 0.0]}, hits), rows)
    assert found.probability == pytest.approx([1.0, 0.5]) and found.accuracy == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_scores_are_those_of_a_row_alone_in_double_precision(architecture):
    """Each row by itself, with a softmax of its own; in the audit the same rows share batches and prompts."""
    subject = toy_subject(architecture=architecture)
    forms = forms_of(toy_data(), "forget")

    def alone(row, text):
        encoded = subject.encoder.pairs([row.prompt], [text])
        ids, start = torch.tensor(encoded.row(0).tolist()), int(encoded.starts[0])
        with torch.no_grad():
            logits = subject.module(input_ids=ids[None]).logits[0].double()
        tokens = range(start, len(ids) - 1)
        logs = [float(torch.log_softmax(logits[t - 1], -1)[ids[t]]) for t in tokens]
        return np.exp(np.mean(logs)), np.mean([int(logits[t - 1].argmax()) == int(ids[t]) for t in tokens])

    swept = 0
    for form in ("question", "characters"):
        found = scores(Readings(subject, run()), forms[form])
        for i, row in enumerate(forms[form]):
            wanted = alone(row, row.answer)
            assert found.probability[i] == pytest.approx(wanted[0], rel=1e-4) and found.accuracy[i] == pytest.approx(wanted[1])
            swept += 1
    found = scores(Readings(subject, run()), forms["choice"])
    for i, row in enumerate(by_letter(forms["choice"])):
        right, *wrong = (alone(row, text)[0] for text in (row.answer, *row.wrong))
        assert found.probability[i] == pytest.approx(right, rel=1e-4)
        assert found.known[i] == pytest.approx(right / (right + sum(wrong)), rel=1e-4)
        swept += 1
    assert swept == 24


class ByContent:
    """Readings of letters that look at what stands behind them: the true text has weight `right`, any other 1."""

    def __init__(self, told, truth, right):
        self.told, self.truth, self.right = told, truth, right

    def answers(self, split, which="answer", moments=False):
        found = []
        for row in split:
            lines = {line[0]: line[3:] for line in row.prompt.splitlines()[1:]}
            weight = {letter: self.right if text == self.truth[row.id.split("/")[0]] else 1.0 for letter, text in lines.items()}
            logs = {letter: [float(np.log(value / sum(weight.values()))), 0.0] for letter, value in weight.items()}
            found.append(self.told(logs).answers(Split([row], split.name), which))
        owner = np.concatenate([np.full(len(one), i) for i, one in enumerate(found)]).astype(np.int32)
        values = np.concatenate([one.log_probability for one in found])
        ends = np.concatenate([[0], np.cumsum(np.concatenate([one.counts for one in found]))])
        same = np.zeros(len(values), dtype=np.int32)
        return type(found[0])(values, same, same, same, None, None, ends, owner, len(split))


def test_shuffled_options_change_nothing_for_a_model_that_reads_and_a_constant_one_scores_a_quarter(told):
    rows = [Example(f"{i}", f"true {i}", f"what is {i}", tuple(f"other {i} {j}" for j in range(3))) for i in range(8)]
    truth = {row.id: row.answer for row in rows}
    means = []
    for shift in range(4):
        split = Split([as_choice(row, k + shift) for k, row in enumerate(rows)], "forget-choice")
        means.append(scores(ByContent(told, truth, 6.0), split).known.mean())
        constant = told({"A": [0.0, 0.0], "B": [-30.0, 0.0], "C": [-30.0, 0.0], "D": [-30.0, 0.0]})
        assert scores(constant, split).known.mean() == pytest.approx(0.25) == scores(constant, split).probability.mean()
    assert means == pytest.approx([6 / 9] * 4)


def test_the_index_of_all_alike_is_zero_of_one_untouched_is_one_and_it_is_monotone(told):
    before = {"cloze": 0.9, "paraphrase": 0.6, "blank": 0.8}
    alike = index(told, before, {form: 0.3 * p for form, p in before.items()})
    assert alike.value == pytest.approx(0, abs=1e-6) and alike.n == 24 and alike.direction == "lower"
    assert alike.extra["drops"] == pytest.approx(dict.fromkeys(before, 0.7))
    untouched = index(told, before, {**{form: 0.1 * p for form, p in before.items()}, "blank": 0.8})
    assert untouched.value == pytest.approx(1, abs=1e-6)
    values = [index(told, before, {"cloze": 0.09, "paraphrase": 0.06, "blank": p}).value for p in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert values == sorted(values) and values[-1] == 1.0  # more than before is clipped
    # by hand: drops 0.9, 0.9 and 1 - 0.5 / 0.8
    assert values[2] == pytest.approx(1 - (1 - 0.5 / 0.8) / 0.9)
    assert dependence({"a": 0.2, "b": 0.8}) == pytest.approx(0.75)


def test_means_are_over_rows_that_the_original_knows(told):
    before = {"cloze": [0.8] * 4 + [0.2] * 4, "paraphrase": 0.8}
    after = {"cloze": [0.4] * 4 + [0.9] * 4, "paraphrase": 0.4}
    one = index(told, before, after)  # rows below 0.25 do not count, whatever became of them
    assert one.value == pytest.approx(0, abs=1e-6) and one.extra["rows"] == {"cloze": 4, "paraphrase": 8}
    spread = index(told, {"cloze": [0.8] * 8, "paraphrase": 0.8}, {"cloze": [0.1, 0.7] * 4, "paraphrase": 0.4})
    assert spread.low < spread.value + 1e-9 and spread.high > spread.value - 1e-9 and spread.high - spread.low > 0.05


def test_an_exact_retrain_is_not_form_dependent_though_a_cloze_has_a_floor(told):
    before, never = {"cloze": 0.8, "paraphrase": 0.9}, {"cloze": 0.4, "paraphrase": 0.01}
    one = index(told, before, never, never)
    assert one.value == pytest.approx(0, abs=1e-6) and one.extra["floors"] == pytest.approx(never)
    assert one.extra["by_chance"] == pytest.approx(1 - 0.5 / (0.89 / 0.9))
    assert index(told, before, never).value == pytest.approx(one.extra["by_chance"])


def test_what_cannot_be_told_says_why(told):
    before = {"cloze": 0.9, "paraphrase": 0.9, "blank": 0.1}
    one = index(told, before, {"cloze": 0.1, "paraphrase": 0.1, "blank": 0.1})
    assert one.value == pytest.approx(0, abs=1e-6) and "left out: blank" in one.note and one.extra["left_out"] == {"blank": 0}
    same = index(told, before, before)
    assert same.value is None and "no form has fallen by 0.1" in same.note and same.extra["drops"]["cloze"] == 0
    single = index(told, {"cloze": 0.9, "blank": 0.1}, {"cloze": 0.1, "blank": 0.1})
    assert single.value is None and "1 form is left, and two are needed" in single.note
    level = index(told, before, {"cloze": 0.1, "paraphrase": 0.1, "blank": 0.1}, {"cloze": 0.1, "paraphrase": 0.89, "blank": 0.1})
    assert level.value is None and "paraphrase" in level.note  # the retrained model is as good: nothing to forget in that form
    alone = Ort(forms=tuple(before)).measure(telling(told, before), world(), run())
    assert alone[-1].value is None and "no original model" in alone[-1].note
    bare = Ort().measure(telling(told, before), Data({"holdout": Split([], "holdout")}), run())
    assert all(one.value is None and "no rows in forms" in one.note for one in bare)


def test_forms_that_the_original_does_not_know_have_no_value(told):
    before = telling(told, {"cloze": 0.9, "paraphrase": 0.9, "blank": 0.05})
    audit = Ort(families=("forget",), forms=("cloze", "paraphrase", "blank"))
    found = {(one.name, one.split): one for one in audit.measure(before, world(), run(), None, before)}
    blank = found["form-probability", "forget-blank"]
    assert blank.value is None and "knows 0 of 8 rows" in blank.note
    assert found["form-probability", "forget-cloze"].value == pytest.approx(0.9, rel=1e-5)


def test_rows_never_seen_are_asked_but_have_no_index(told):
    data = Data({"holdout": Split([replace(row, id=f"h{row.id}") for row in many(8, "cloze")], "holdout")})
    readings = telling(told, {"cloze": 0.2})
    found = Ort(families=("holdout",), forms=("cloze",)).measure(readings, data, run(), None, readings)
    assert [(one.name, one.split, one.direction) for one in found] == [
        ("form-probability", "holdout-cloze", "none"), ("form-token-accuracy", "holdout-cloze", "none"),
    ]  # fmt: skip
