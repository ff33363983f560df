"""What comes back word for word, against definitions written out per answer, and ROUGE-L against the reference package."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from letheon.maths import recall

answers = st.lists(st.lists(st.booleans(), min_size=1, max_size=7), min_size=1, max_size=6)


def laid(rows):
    return np.array([hit for row in rows for hit in row], dtype=bool), np.concatenate([[0], np.cumsum([len(row) for row in rows])])


def strength(row, last):
    """The definition: try every number of given tokens."""
    for given_tokens in range(last + 1):
        if all(row[given_tokens:]):
            return 1 - given_tokens / len(row)
    return 1 - last / len(row)


@given(answers)
def test_strength_and_memorisation_against_the_definition(rows):
    hits, offsets = laid(rows)
    exact, extracted = recall.exact_memorisation(hits, offsets), recall.extraction_strength(hits, offsets)
    peer = recall.extraction_strength(hits, offsets, floor=True)
    for i, row in enumerate(rows):
        assert exact[i] == pytest.approx(sum(row) / len(row)) and exact[i] * len(row) == pytest.approx(round(exact[i] * len(row)))
        assert extracted[i] == pytest.approx(strength(row, len(row)))
        assert peer[i] == pytest.approx(strength(row, len(row) - 1))
        assert extracted[i] <= exact[i] + 1e-12 and (extracted[i] == 1) == (exact[i] == 1)
        assert row[-1] or extracted[i] == 0.0


def test_only_the_first_token_wrong():
    hits, offsets = laid([[False] + [True] * 7])
    assert recall.extraction_strength(hits, offsets)[0] == pytest.approx(1 - 1 / 8)


def test_an_answer_without_tokens_is_unknown():
    hits, offsets = np.array([True]), np.array([0, 0, 1])
    for floor in (False, True):
        found = recall.extraction_strength(hits, offsets, floor=floor)
        assert np.isnan(found[0]) and found[1] == 1.0
    assert np.isnan(recall.exact_memorisation(hits, offsets)[0])


def test_dropping_the_end_token():
    keep, offsets = recall.without_last(np.array([0, 3, 4, 6]))
    assert keep.tolist() == [True, True, False, False, True, False] and offsets.tolist() == [0, 2, 2, 3]
    keep, offsets = recall.without_last(np.array([0, 0, 2]))
    assert keep.tolist() == [True, False] and offsets.tolist() == [0, 0, 1]


def plain_lcs(left, right):
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(st.lists(st.sampled_from("abcd"), max_size=90), st.lists(st.sampled_from("abcde"), max_size=40))
def test_common_subsequence_against_the_table(left, right):
    assert recall.common_subsequence(left, right) == plain_lcs(left, right)


def test_rouge_equals_the_reference_package():
    from rouge_score import rouge_scorer

    words = "The author's writing was praised, 1987 novels; relational CAFÉ-owners studying flies dying happily naïve skies".split()
    generator = random.Random(0)
    for stem in (True, False):
        scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=stem)
        for _ in range(60):
            true, said = (" ".join(generator.choices(words, k=generator.randint(1, 25))) for _ in range(2))
            wanted = scorer.score(true, said)["rougeL"]
            assert recall.rouge_l(true, said, stem) == pytest.approx((wanted.precision, wanted.recall, wanted.fmeasure), abs=1e-12)


def test_rouge_of_equal_empty_and_wordless_texts():
    assert recall.rouge_l("Born in Oslo.", "born in oslo") == (1.0, 1.0, 1.0)
    assert recall.rouge_l("Born in Oslo.", "") == (0.0, 0.0, 0.0)
    assert recall.rouge_l("!?", "born") is None
