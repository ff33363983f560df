"""Probes of whole texts: continuations, few-shot questions, texts longer than the context, privacy over texts."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from letheon.audit._texts import TextReadings, blocks, fitted
from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError
from letheon.core.readings import Readings
from letheon.core.registry import load
from letheon.maths.stats import auc_interval
from letheon.maths.strings import edit_distance, rouge_1

from .conftest import WORDS, subject_of


def data_of(**splits):
    return Data({name.replace("_", "-"): Split(rows, name) for name, rows in splits.items()})


def measure(name, readings, data, run, reference=None, original=None, **settings):
    return {(f.split, f.name): f for f in load(name, "audit")(**settings).measure(readings, data, run, reference, original)}


def words(n, seed=0):
    return " ".join(np.random.default_rng(seed).choice(WORDS, size=n))


@pytest.fixture
def scripted(toys, run, monkeypatch):
    """Readings that say `says[prompt]`; what they were asked is kept in `asked`."""

    def made(says):
        readings = Readings(toys[0], run)
        readings.asked = []

        def generations(self, split, max_new_tokens=200):
            readings.asked.append((split, max_new_tokens))
            return [says(row) for row in split]

        monkeypatch.setattr(TextReadings, "generations", generations)
        return readings

    return made


# Words and letters


def naive_edits(left, right):
    """Levenshtein distance by its recurrence."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, row = row, [i]
        for j, b in enumerate(right, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b)))
    return row[-1]


def test_edit_distance_is_that_of_its_recurrence():
    generator = np.random.default_rng(0)
    for _ in range(150):
        left, right = ("".join(generator.choice(list("abc "), size=generator.integers(0, 90))) for _ in range(2))
        assert edit_distance(left, right) == naive_edits(left, right)
    assert edit_distance("kitten", "sitting") == 3 and edit_distance("", "abc") == 3 and edit_distance("abc", "") == 3


def test_rouge_1_by_hand():
    """Truth: the cat sat on the mat (6 words); said: the the the cat (4 words); shared: the twice, cat once."""
    precision, recall, f = rouge_1("The cat sat on the mat.", "the the the cat", stem=False)
    assert (precision, recall) == (3 / 4, 3 / 6) and f == pytest.approx(2 * 0.75 * 0.5 / 1.25)
    assert rouge_1("...", "word") is None and rouge_1("word", "other") == (0.0, 0.0, 0.0)


# Continuation


def test_a_copy_scores_one_and_the_truth_is_cut_before_it_is_compared(scripted, run):
    truth = words(12)
    data = data_of(forget_verbatim=[Example("0", truth, "a0 b1")])
    readings = scripted(lambda row: " ".join(truth.split()[:5]))
    found = measure("continuation", readings, data, run, max_new_tokens=5)
    values = {name: found["forget-verbatim", f"continuation-{name}"].value for name in ("rouge-l", "rouge-1", "lcs", "levenshtein")}
    assert values == {"rouge-l": 1.0, "rouge-1": 1.0, "lcs": 5.0, "levenshtein": 0.0}
    (asked, longest), *_ = readings.asked
    assert asked[0].answer == " ".join(truth.split()[:5]) and longest == 5 and asked[0].prompt == "a0 b1"
    assert found["forget-verbatim", "continuation-rouge-l"].direction == "reference"


def test_f_punishes_running_on_and_recall_does_not(scripted, run):
    data = data_of(forget_verbatim=[Example("0", "a1 b2 c3 d4", "a0")])
    found = measure("continuation", scripted(lambda row: "a1 b2 c3 d4 e0 e1 e2 e3"), data, run)["forget-verbatim", "continuation-rouge-l"]
    assert found.value == pytest.approx(2 * 0.5 * 1 / 1.5) and found.extra["rouge_l_recall"] == 1.0
    reordered = measure("continuation", scripted(lambda row: "d4 c3 b2 a1"), data, run)
    assert reordered["forget-verbatim", "continuation-rouge-l"].value == 1 / 4
    assert reordered["forget-verbatim", "continuation-rouge-1"].value == 1.0
    assert reordered["forget-verbatim", "continuation-lcs"].value == 1.0


def test_plain_text_is_cut_after_its_first_words(scripted, run):
    readings = scripted(lambda row: row.answer)
    found = measure("continuation", readings, data_of(forget=[Example("0", "a0 a1 a2 a3 a4"), Example("1", "b0")]), run, given=0.4)
    (asked, _), *_ = readings.asked
    assert [(row.prompt.strip(), row.answer) for row in asked] == [("a0 a1", "a2 a3 a4")]
    assert found["forget", "continuation-rouge-l"].rows == (1.0, None) and "1 of 2 rows" in found["forget", "continuation-rouge-l"].note


def test_a_prompt_longer_than_the_context_keeps_its_end(toys, run):
    """64 tokens of context, less begin token, 10 to be said and the end token: 52 words of the prompt are left."""
    long = words(100, 1)
    data = data_of(forget_verbatim=[Example("0", words(20, 2), long), Example("1", "a0 a1", "b0 b1")])
    found = measure("continuation", Readings(toys[0], run), data, run, max_new_tokens=10)["forget-verbatim", "continuation-rouge-l"]
    assert "1 of 2 prompts lost their beginning" in found.note and found.n == 2
    plain = TextReadings.of(Readings(toys[0], run))
    rows, shortened, longest = fitted(plain, data["forget-verbatim"], 10)
    assert (shortened, longest) == (1, 10) and rows[0].prompt.split() == long.split()[-52:] and rows[1].prompt == "b0 b1"
    short = measure("continuation", Readings(toys[0], run), data, run, max_new_tokens=128)["forget-verbatim", "continuation-rouge-l"]
    assert "32 tokens at most: the context is short" in short.note


def test_prompts_have_no_template(toys, run):
    plain = TextReadings.of(Readings(toys[0], run))
    assert plain.subject.encoder.prompt_text("a0 b1") == "a0 b1" and toys[0].encoder.prompt_text("a0 b1") == "ask a0 b1 ;"
    assert TextReadings.of(plain) is plain and plain.costs is not None and plain.digest != toys[0].digest


# Knowledge


def test_an_answer_ends_at_a_blank_line_or_a_new_question(scripted, run):
    said = {"q0": "in Oslo\n\nmore words", "q1": "two cats\nQuestion: next", "q2": "one Question: next", "q3": "Question: one"}
    truth = {"q0": "in Oslo", "q1": "two cats", "q2": "one dog here", "q3": "one"}
    rows = [Example(key, truth[key], key) for key in said]
    readings = scripted(lambda row: said[row.id])
    found = measure("knowledge", readings, data_of(forget_knowledge=rows), run)
    assert found["forget-knowledge", "knowledge-rouge-l"].rows == pytest.approx((1.0, 1.0, 2 * 1 * (1 / 3) / (4 / 3), 0.0))
    assert found["forget-knowledge", "knowledge-recall"].rows == pytest.approx((1.0, 1.0, 1 / 3, 0.0))
    assert readings.asked[0][0][0].prompt == "Question: q0\nAnswer: " and readings.asked[0][1] == 32


def test_examples_stand_before_the_question_as_far_as_they_fit(scripted, run):
    """An example has 6 tokens here; 64 of context less 12 to be said leave room for some of 20, the same number for all questions."""
    rows = [Example("0", "a0", "b0"), Example("1", "a1", " ".join(["b1"] * 8))]
    shots = [Example(f"s{k}", "c1 c2", "d3 d4") for k in range(20)]
    readings = scripted(lambda row: row.answer)
    data = data_of(forget_knowledge=rows, knowledge_examples=shots, retain_knowledge=rows, retain_knowledge_examples=shots[:2])
    found = measure("knowledge", readings, data, run, longest_answer=12)
    asked = readings.asked[0][0]
    used = found["forget-knowledge", "knowledge-rouge-l"].extra["examples"]
    assert used == (64 - 12 - 1 - 1 - 10) // 6 and f"{used} of 20 solved examples fit" in found["forget-knowledge", "knowledge-rouge-l"].note
    assert asked[0].prompt == "Question: d3 d4\nAnswer: c1 c2\n\n" * used + "Question: b0\nAnswer: "
    assert found["retain-knowledge", "knowledge-rouge-l"].extra["examples"] == 2  # its own examples come first
    none = measure("knowledge", scripted(lambda row: row.answer), data, run, examples=0)
    assert none["forget-knowledge", "knowledge-rouge-l"].extra["examples"] == 0


# Texts longer than the context


def test_windows_are_read_one_by_one_and_laid_end_to_end(toys, run):
    """Against logits of each window by itself, in plain torch."""
    long, short = words(150, 3), "a0 b1 c2"
    split = Split([Example("long", long), Example("short", short)], "forget")
    plain = TextReadings.of(Readings(toys[0], run))
    found = plain.answers(split, moments=True)
    encoder, module = toys[0].encoder, toys[0].module
    wanted = []
    for row in split:
        pieces = encoder.windowed(Split([row]))
        for k, piece in enumerate(pieces):
            ids = torch.tensor([[0, *encoder.tokenizer(piece.answer, add_special_tokens=False)["input_ids"], 1]])
            with torch.no_grad():
                log = module(input_ids=ids).logits.double().log_softmax(-1)[0, :-1]
            facts = [log.gather(1, ids[0, 1:, None])[:, 0], (log.exp() * log).sum(-1)]
            wanted.append([fact[: None if k == len(pieces) - 1 else -1].numpy() for fact in facts])
    assert len(wanted) == 1 + math.ceil(150 / 62) and found.counts.tolist() == [151, 4] and found.owner.tolist() == [0, 1]
    assert np.allclose(found.log_probability, np.concatenate([facts[0] for facts in wanted]), atol=1e-4)
    assert np.allclose(found.mean, np.concatenate([facts[1] for facts in wanted]), atol=1e-4)
    assert "1 of 2 texts are longer than the context of 64 tokens" in plain.cut(split) and plain.cut(split[1:]) == ""
    with pytest.raises(DataError, match="longer than the model's context"):
        Readings(toys[0], run).answers(split)


def test_short_rows_are_read_as_ever(toys, run, tofu_like):
    readings = Readings(toys[0], run)
    bare = Split([Example(row.id, row.answer) for row in tofu_like["holdout"]], "holdout")
    assert np.array_equal(TextReadings.of(readings).answers(bare).log_probability, readings.answers(bare).log_probability)


def test_blocks_hold_all_words_in_order(toys, run):
    split = Split([Example(str(k), words(40, k)) for k in range(5)], "forget")
    found = blocks(TextReadings.of(Readings(toys[0], run)), split, 32)
    assert " ".join(row.answer for row in found).split() == " ".join(row.answer for row in split).split()
    assert max(len(row.answer.split()) for row in found) <= 30 and len(found) == math.ceil(200 / 30)


# Privacy over texts


def sides(told, forget, holdout, retain=(-3.0, -3.0)):
    texts = {f"f{i}": [score, 0.0] for i, score in enumerate(forget)} | {f"h{i}": [score, 0.0] for i, score in enumerate(holdout)}
    return told(texts | {f"r{i}": [score, 0.0] for i, score in enumerate(retain)})


def private(n):
    return data_of(**{name: [Example(f"{name[0]}{i}", f"{name[0]}{i}") for i in range(n)] for name in ("forget", "holdout", "retain")})


def test_orientation_of_the_area(told, run):
    """Forget log-probabilities -1, holdout -5: A = 0 and AUC = 1; the other way round A = 1. Against A_r = 0.5 that is -100 and 100."""
    equal = sides(told, (-3.0, -3.0), (-3.0, -3.0))
    known = measure("text-privacy", sides(told, (-1.0, -1.0), (-5.0, -5.0)), private(2), run, equal)["forget", "privleak"]
    assert (known.extra["area"], known.extra["auc"], known.extra["area_retrained"], known.value) == (0.0, 1.0, 0.5, -100.0)
    pushed = measure("text-privacy", sides(told, (-5.0, -5.0), (-1.0, -1.0)), private(2), run, equal)["forget", "privleak"]
    assert (pushed.extra["area"], pushed.value) == (1.0, 100.0) and "P(holdout scores higher than forget)" in pushed.extra["convention"]
    bound = auc_interval(np.array([-1.0, -1.0]), np.array([-5.0, -5.0]), np.random.default_rng(0))[0]
    for found, ends in ((known, (-100.0, 200 * (0.5 - bound))), (pushed, (200 * (bound - 0.5), 100.0))):
        assert (found.low, found.high) == pytest.approx(ends), "two texts on a side that do not overlap are no certainty"


def test_privleak_from_the_area_and_from_the_auc_agree(told, run):
    generator = np.random.default_rng(0)
    now, never = (sides(told, *generator.normal(-3, 1, (3, 12))) for _ in range(2))
    found = measure("text-privacy", now, private(12), run, never)
    leak, moved = found["forget", "privleak"], found["retain", "retain-deviation"]
    a, never_a = leak.extra["area"], leak.extra["area_retrained"]
    assert leak.value == pytest.approx(100 * (a - never_a) / never_a, abs=1e-9)
    assert leak.value == pytest.approx(100 * ((1 - leak.extra["auc"]) - never_a) / never_a, abs=1e-9)
    assert abs(leak.value - 100 * (leak.extra["auc"] - (1 - never_a)) / (1 - never_a)) > 1
    assert moved.value == pytest.approx(100 * abs(moved.extra["area"] - moved.extra["area_retrained"]) / moved.extra["area_retrained"])
    assert leak.low <= leak.value <= leak.high and moved.low >= 0 and leak.n == moved.n == 12
    swapped = measure("text-privacy", now, private(12), run, never, forget="holdout", holdout="forget")["holdout", "privleak"]
    assert swapped.extra["area"] == pytest.approx(1 - a)


def test_it_is_privleak_where_rows_fit_the_context(toys, run, tofu_like):
    data = Data({name: Split([Example(row.id, row.answer) for row in tofu_like[name]], name) for name in ("forget", "holdout")})
    pair = [Readings(subject, run) for subject in toys]
    ours, theirs = (measure(name, pair[0], data, run, pair[1])["forget", "privleak"] for name in ("text-privacy", "privleak"))
    assert ours.value == pytest.approx(theirs.value, abs=1e-9) and ours.extra["auc"] == theirs.extra["auc"]


def test_a_model_with_uniform_output_and_the_retrained_model_itself(toys, run):
    data = data_of(**{name: [Example(f"{name}{i}", words(9 + 7 * i, i)) for i in range(6)] for name in ("forget", "retain", "holdout")})
    flat = subject_of(copy.deepcopy(toys[0].module), toys[0].encoder)
    torch.nn.init.zeros_(flat.module.lm_head.weight)
    for statistic in ("min-k", "loss"):
        found = measure("text-privacy", Readings(flat, run), data, run, statistic=statistic)
        assert found["forget", "privleak"].extra["area"] == 0.5 and found["forget", "privleak"].value == 0.0
    for statistic in ("min-k", "min-k++", "loss"):
        same = [Readings(toys[0], run) for _ in range(2)]
        found = measure("text-privacy", same[0], data, run, same[1], statistic=statistic, block=16)
        assert found["forget", "privleak"].value == found["retain", "retain-deviation"].value == 0.0


def test_privacy_says_what_is_missing(told, run):
    alone = measure("text-privacy", sides(told, (-1.0,), (-2.0,)), private(1), run)
    assert "no retrained model" in alone["retain", "retain-deviation"].note and alone["retain", "retain-deviation"].value is None
    assert "against an area of 0.5" in alone["forget", "privleak"].note and alone["forget", "privleak"].low is None
    bare = measure("text-privacy", sides(told, (), ()), data_of(forget=[Example("0", "f0")]), run)
    assert "no split `holdout`" in bare["forget", "privleak"].note
    exposed = sides(told, (-1.0, -1.0), (-5.0, -5.0))
    assert "separates all texts" in measure("text-privacy", exposed, private(2), run, exposed)["forget", "privleak"].note
