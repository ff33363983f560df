"""Rows shared by two splits: all equal ones are found, nearly equal ones are those that brute force finds, and no others."""

from __future__ import annotations

import itertools
import random
import re
import unicodedata

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from letheon.core.data import Data, Example, Message, Split
from letheon.core.errors import DataError
from letheon.data._overlap import jaccard, normal, overlap_warnings, signatures
from letheon.data.authors import Authors
from letheon.data.files import Files

LEXICON = ["".join(letters) for letters in itertools.product("bdkl", "aeiou", "mnrst", "aeio")]  # 400 words


def sentence(draw: random.Random, words: int) -> list[str]:
    return draw.sample(LEXICON, words)


def rows_of(texts, name):
    return Split([Example(f"{name}-{k}", text, "Tell me.") for k, text in enumerate(texts)], name)


def data_of(**splits) -> Data:
    return Data({name: rows_of(texts, name) for name, texts in splits.items()})


def brute_jaccard(one: str, two: str) -> float:
    """The definition, written down once more."""
    sets = []
    for text in (one, two):
        found = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
        sets.append(set(found) | {f"{a} {b}" for a, b in itertools.pairwise(found)})
    union = sets[0] | sets[1]
    return len(sets[0] & sets[1]) / len(union) if union else 0.0


def counts(warnings):
    """(count, of, how, split) of each warning."""
    pattern = r"(\d+) of (\d+) `\w+` rows (?:is|are) (equal|nearly equal) to a `(\w+)` row"
    return [(int(n), int(of), how, split) for n, of, how, split in (re.match(pattern, warning).groups() for warning in warnings)]


def test_equal_rows_in_spite_of_case_spaces_and_unicode_forms():
    forget = ["Caf\u00e9 in Oslo", "the  SAME\ntext", "\uff21\uff22\uff23 wide", "only here"]
    retain = ["cafe\u0301 in oslo", "The same text", "abc wide", "something else entirely"]
    assert counts(overlap_warnings(data_of(forget=forget, retain=retain))) == [(3, 4, "equal", "retain")]


def test_prompts_count_and_chats_are_compared_as_text():
    one = Split([Example("a", "Ann", (Message("user", "Who?"),)), Example("b", "yes", "Is it?")], "forget")
    two = Split([Example("a", "Ann", (Message("user", "who?"),)), Example("b", "yes", "Was that so long ago?")], "retain")
    assert counts(overlap_warnings(Data({"forget": one, "retain": two}))) == [(1, 2, "equal", "retain")]


@pytest.mark.parametrize("words", [10, 20, 40])
def test_share_of_a_row_with_one_word_changed(words):
    before = sentence(random.Random(words), words)
    after = [*before[: words // 2], "zebra", *before[words // 2 + 1 :]]
    assert jaccard(" ".join(before), " ".join(after)) == pytest.approx((2 * words - 4) / (2 * words + 2), abs=1e-12)


def test_planted_rows_are_found_and_no_others():
    draw = random.Random(0)
    retain = [" ".join(sentence(draw, draw.randint(12, 40))) for _ in range(600)]
    planted = []
    for text in retain[:200]:
        words = text.split()
        words[draw.randrange(len(words))] = "zebra"
        planted.append(" ".join(words))
    fresh = [" ".join(sentence(draw, 20)) for _ in range(100)]
    data = data_of(forget=fresh + planted + retain[200:230], retain=retain)
    found = overlap_warnings(data)
    assert counts(found) == [(30, 330, "equal", "retain"), (200, 330, "nearly equal", "retain")]
    assert 'forget-100 and retain-0 ("Tell me. ' in found[1] and found[1].count(" and retain-") == 3 and found[1].endswith(", ...")


def test_same_rows_as_brute_force():
    draw = random.Random(1)
    base = [sentence(draw, 24) for _ in range(40)]

    def changed(words):
        return " ".join(draw.choice(LEXICON) if draw.random() < 0.08 else word for word in words)

    one, two = ([changed(draw.choice(base)) for _ in range(150)] for _ in range(2))
    shares = np.array([[brute_jaccard(f"Tell me. {a}", f"Tell me. {b}") for b in two] for a in one])
    near = {k for k in range(150) if one[k] not in two and shares[k].max() >= 0.7}
    assert 30 < len(near) < 140  # the case has rows on both sides of the bound
    found = [hit for hit in counts(overlap_warnings(data_of(forget=one, retain=two))) if hit[2] == "nearly equal"]
    assert found == [(len(near), 150, "nearly equal", "retain")]


def test_minima_agree_as_often_as_the_sets_overlap():
    draw = random.Random(2)
    errors, vocabulary = [], {}  # one vocabulary, so that no two pairs have the same numbers
    for _ in range(200):
        words = sentence(draw, 40)
        cut = draw.randrange(40)
        pair = [" ".join(words), " ".join([*words[:cut], *sentence(draw, 40 - cut)])]
        signed = signatures(pair, vocabulary)
        errors.append((signed[0] == signed[1]).mean() - brute_jaccard(*pair))
    assert abs(np.mean(errors)) < 0.02 and np.std(errors) < 0.06  # sqrt(0.25 / 104) = 0.049 at most


def test_the_same_rows_to_forget_and_to_keep_are_refused():
    with pytest.raises(DataError, match="`forget` and `retain` hold the same 2 rows"):
        overlap_warnings(data_of(forget=["a b", "c"], retain=["C", "a  B", "c"]))
    with pytest.raises(DataError, match="`forget` and `holdout` hold the same 1 row[^s]"):
        overlap_warnings(data_of(forget=["a"], retain=["b"], holdout=["A"]))
    assert counts(overlap_warnings(data_of(forget=["a"], retain=["a", "b"]))) == [(1, 1, "equal", "retain")]


def test_holdout_is_compared_with_both():
    found = overlap_warnings(data_of(forget=["a b c", "d"], retain=["e f", "g"], holdout=["a b c", "g", "x y"]))
    assert counts(found) == [(1, 2, "equal", "holdout"), (1, 2, "equal", "holdout")]
    assert [sentence.split("`")[1] for sentence in found] == ["forget", "retain"]


def test_rows_without_words_and_scripts_without_spaces():
    before = "彼女は一九五六年に京都で生まれ、詩を書いた作家である"
    assert jaccard(before, before.replace("京", "東")) > 0.7
    wordless = Data({"forget": Split([Example("a", "!", "")], "forget"), "retain": Split([Example("a", "?", "")], "retain")})
    assert overlap_warnings(wordless) == ()


def test_near_of_one_finds_equal_rows_only():
    forget, retain = ["a b c d e f g h i j k", "x"], ["a b c d e f g h i j z", "X"]
    assert counts(overlap_warnings(data_of(forget=forget, retain=retain), near=1)) == [(1, 2, "equal", "retain")]
    assert len(overlap_warnings(data_of(forget=forget, retain=retain))) == 2


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.lists(st.text(max_size=20), min_size=1, max_size=6), min_size=3, max_size=3))
def test_any_texts_are_compared(texts):
    data = data_of(forget=texts[0], retain=texts[1], holdout=texts[2])
    sets = [{normal(row) for row in split} for split in data.values()]
    try:
        found = overlap_warnings(data)
    except DataError:
        assert sets[0] in sets[1:]
        return
    assert sets[0] not in sets[1:]
    equal = sum(normal(row) in sets[1] for row in data["forget"])
    told = [hit for hit, text in zip(counts(found), found, strict=True) if "`forget`" in text]
    hits = [n for n, _, how, split in told if (how, split) == ("equal", "retain")]
    assert hits == ([equal] if equal else [])


def test_files_are_compared_without_being_asked(tmp_path):
    (tmp_path / "f.csv").write_text("prompt,answer\nWho wrote it?,Ann\nWhere?,Oslo\n")
    (tmp_path / "r.csv").write_text("prompt,answer\nwho WROTE it?,Ann\nWhen?,1956\n")
    data = Files(forget=tmp_path / "f.csv", retain=tmp_path / "r.csv").load()
    assert data.warnings == ('1 of 2 `forget` rows is equal to a `retain` row: forget-1 and retain-1 ("Who wrote it? Ann")',)
    with pytest.raises(DataError, match="`forget` and `retain` hold the same 2 rows"):
        Files(forget=tmp_path / "f.csv", retain=tmp_path / "f.csv").load()


def test_every_planted_pair_among_ten_thousand_rows_is_found():
    draw = random.Random(3)
    retain = [" ".join(draw.choices(LEXICON, k=30)) for _ in range(5000)]
    forget = [f"{text} zebra" for text in retain[:500]] + [" ".join(draw.choices(LEXICON, k=30)) for _ in range(4500)]
    assert counts(overlap_warnings(data_of(forget=forget, retain=retain))) == [(500, 5000, "nearly equal", "retain")]


def test_the_embedded_world_shares_no_row():
    found = counts(overlap_warnings(Authors(people=60, forms=("question",)).load()))
    assert all(how == "nearly equal" and n <= 0.05 * of for n, of, how, _ in found)


def test_real_authors_do_not_overlap(shared):
    folder = shared / "data/tofu"
    settings = {"forget": folder / "forget10.json", "retain": folder / "retain90.json", "holdout": folder / "holdout10.json"}
    assert Files(**settings).load().warnings == ()


def test_real_news_articles_recur(shared):
    folder = shared / "data/muse/news"
    data = Files(forget=folder / "raw/forget.json.gz", retain=folder / "sust/forget_2.json.gz", skip_empty=True, near=1).load()
    kept = {" ".join(row.answer.casefold().split()) for row in data["retain"]}
    again = sum(" ".join(row.answer.casefold().split()) in kept for row in data["forget"])
    assert again >= 42 and counts(data.warnings[1:]) == [(again, 888, "equal", "retain")]
