"""Near duplicates against brute force: nothing that is none is reported, and no more is missed than the S-curve says."""

from __future__ import annotations

import functools
import random
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from letheon.core.data import Example
from letheon.core.errors import MethodError
from letheon.data._overlap import jaccard, normal
from letheon.ledger.near import MISS, Near, bands_for, miss, share, shingles_of


def varied(rng: random.Random, words: list[str]) -> str:
    """A copy with some words dropped, changed and moved."""
    made = list(words)
    for _ in range(rng.randrange(6)):
        place = rng.randrange(len(made))
        made[place : place + 1] = rng.choice([[], [f"w{rng.randrange(400)}"], [made[place], f"w{rng.randrange(400)}"]])
        if not made:
            made = ["w"]
    return " ".join(made)


def corpora(seed: int, texts: int = 20, copies: int = 10) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    wanted = [[f"w{rng.randrange(400)}" for _ in range(rng.randrange(1, 40))] for _ in range(texts)]
    corpus = [varied(rng, rng.choice(wanted)) for _ in range(texts * copies)]
    return [" ".join(words) for words in wanted], corpus


@functools.cache
def parts(text: str, kind: str) -> frozenset:
    words = text.split()
    if kind == "letters":
        return frozenset(text[k : k + 5] for k in range(len(text)) if k + 5 <= len(text)) or frozenset([text])
    return frozenset(words) | {(words[k], words[k + 1]) for k in range(len(words) - 1)}


def brute(one: str, two: str, kind: str) -> float:
    """J by its definition, with its own shingles."""
    a, b = parts(one, kind), parts(two, kind)
    return len([part for part in a if part in b]) / len(a | b)


@pytest.mark.parametrize("kind", ["words", "letters"])
@pytest.mark.parametrize("near", [0.5, 0.7, 0.9])
def test_all_true_pairs_are_found_and_no_others(near, kind):
    true = found = 0
    for seed in range(4):
        wanted, corpus = corpora(seed)
        index = Near(wanted, near, kind)
        for text in corpus:
            expected = {other: brute(text, other, kind) for other in set(wanted)}
            expected = {other: score for other, score in expected.items() if score >= near}
            given = {other: score for score, other in index.matches(text)}
            assert all(expected.get(other) == pytest.approx(score) for other, score in given.items()), "one that is none"
            assert all(other in given for other, score in expected.items() if miss(score, *bands_for(near)) < 1e-6), "above the margin"
            true, found = true + len(expected), found + len(given)
    assert true > 200 and found >= true * (1 - 3 * MISS) - 1


def test_the_miss_follows_the_s_curve():
    """Pairs with J = 1/2 by construction under layouts that miss often: the share missed is that of the S-curve, within four deviations."""
    rng = random.Random(1)
    pairs = []
    for k in range(400):
        common = [f"c{k}x{j}z{rng.random()}" for j in range(20)]
        # words alone would give pairs of words too: 20 words apart by rare separators keep J exactly known
        pairs.append((" ".join(common), " ".join(common[:14] + [f"d{k}x{j}" for j in range(6)])))
    shares = np.array([share(shingles_of(one), shingles_of(two)) for one, two in pairs])
    assert len(set(shares.tolist())) == 1
    for layout in ((8, 2), (16, 4), (4, 1)):
        index = Near([one for one, _ in pairs], 0.3, layout=layout)
        lost = sum(one not in {text for _, text in index.matches(two)} for one, two in pairs)
        expected = miss(float(shares[0]), *layout)
        assert abs(lost / 400 - expected) < 4 * (expected * (1 - expected) / 400) ** 0.5 + 1e-9, (layout, lost, expected)


def test_the_numbers_of_the_docstring():
    assert bands_for(0.7) == (32, 4)
    assert miss(0.7, 32, 4) == pytest.approx(0.000152, abs=2e-6) and miss(0.8, 32, 4) < 1e-7
    for near in np.arange(0.3, 1, 0.01):
        bands, rows = bands_for(float(near))
        assert bands * rows <= 128 and miss(float(near), bands, rows) <= MISS


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_shares_are_those_of_the_overlap_warnings(one, two):
    one, two = (normal(Example("", text)) for text in (one, two))
    assert share(shingles_of(one), shingles_of(two)) == jaccard(one, two)


def test_texts_without_words_are_near_nothing():
    index = Near(["?!", "", "a b c"], 0.5)
    assert index.matches("?!") == index.matches("") == [] and [score for score, _ in index.matches("a b c")] == [1.0]
    assert Near([], 0.7).matches("a b c") == []


def test_equal_for_any_order_and_a_very_long_text():
    wanted, corpus = corpora(5, texts=12, copies=4)
    one, two = Near(wanted, 0.5), Near(wanted[::-1], 0.5)
    assert [one.matches(text) for text in corpus] == [two.matches(text) for text in corpus]
    long = " ".join(f"w{k}" for k in range(30_000))
    assert Near([long], 0.9).matches(f"{long} more")[0][0] > 0.99


def test_without_datasketch(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(MethodError, match=r"needs datasketch, which is not installed.*letheon\[desk\]"):
        Near(["a"], 0.7)
