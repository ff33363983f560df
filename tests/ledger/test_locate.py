"""Locating: names in all their forms, rows, queries; one hit a row, in an order that does not depend on the file."""

from __future__ import annotations

import json
import subprocess
import sys

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from letheon.core.data import Example, Message, Split
from letheon.core.errors import DataError, SettingsError
from letheon.core.settings import parse_settings
from letheon.ledger.locate import LocateSettings, locate
from letheon.ledger.names import Name, one_edit, plain
from letheon.ledger.records import What

OFF = LocateSettings(near=1)


def corpus(*texts: str | tuple[str, str]) -> dict[str, Split]:
    rows = [(text, "") if isinstance(text, str) else text for text in texts]
    return {"books": Split([Example(f"r{k}", one if not two else two, one if two else "") for k, (one, two) in enumerate(rows)], "books")}


def found(name: str, text: str, **more) -> tuple[str, float] | None:
    hit = Name(name, **more).found(text)
    return (hit.form, hit.score) if hit and not hit.after else None


WHOLE, SHORT, INITIALS, LAST = ("whole name", 1.0), ("shortened name", 0.9), ("initials", 0.7), ("last name", 0.5)
FORMS = [
    ("Jane Smith", "She is jane smith.", WHOLE),
    ("Jane Smith", "JANE SMITH'S book; Jane Smith\u2019s house", WHOLE),
    ("Jane Smith", "by Jane\n  Smith, who", WHOLE),
    ("Jane Smith", "by Jane Sm-\nith, who", WHOLE),
    ("Jane Smith", "by Jane\u00a0Smith", WHOLE),
    ("Jane Smith", "by \uff2a\uff41\uff4e\uff45 Smith", WHOLE),
    ("Jane Smith", "Ja\u00adne Smi\u200bth", WHOLE),
    ("Jane Smith", "Smith, Jane: Letters", WHOLE),
    ("Jane Smith", "Jane Smithson wrote", None),
    ("Jane Smith", "Mary-jane Blacksmith", None),
    ("Jane Smith", "Jane and Smith's", LAST),
    ("Jane Smith", "Smith, John", LAST),
    ("Dr. Jane Smith Jr.", "the work of Jane Smith", WHOLE),
    ("Jos\u00e9 Garc\u00eda", "Jose Garcia lives", WHOLE),
    ("Jose Garcia", "Jose\u0301 Garci\u0301a lives", WHOLE),
    ("Bj\u00f8rn Wei\u00df", "BJORN WEISS", WHOLE),
    ("Basil Al-Kuwaiti", "basil al kuwaiti; Basil AlKuwaiti", WHOLE),
    ("Conan O'Brien", "Conan O\u2019Brien and Conan OBrien", WHOLE),
    ("J. R. R. Tolkien", "J.R.R. Tolkien", WHOLE),
    ("J.R.R. Tolkien", "J R R Tolkien", WHOLE),
    ("\u6751\u4e0a\u6625\u6a39", "\u3053\u308c\u306f\u6751\u4e0a\u6625\u6a39\u306e\u672c\u3067\u3059", WHOLE),
    ("Jane Mary Smith", "Jane Smith wrote", SHORT),
    ("Jane Mary Smith", "Jane M. Smith wrote", SHORT),
    ("Jane Mary Smith", "J. M. Smith wrote", INITIALS),
    ("Jane Mary Smith", "J.M. Smith wrote", INITIALS),
    ("Jane Mary Smith", "JM Smith wrote", INITIALS),
    ("Jane Mary Smith", "J. Smith wrote", INITIALS),
    ("Anna Smith", "he is a smith", None),
    ("Jane Mary Smith", "K. Smith wrote", None),
    ("Jane Smith", "What did Smith write?", LAST),
    ("Jane Smith", "Did Smith write? Ms. Smith did", LAST),
    ("Jane Smith", "the work of a smith", None),
    ("Jane Smith", "the book of John Smith", None),
    ("Tom Rice", "rice with beans", None),
    ("Tom Rice", "RICE", LAST),
    ("Rice", "RICE", WHOLE),
]


@pytest.mark.parametrize(("name", "text", "form"), FORMS, ids=[f"{k}-{text[:20]!r}" for k, (_, text, _) in enumerate(FORMS)])
def test_forms_of_a_name(name, text, form):
    assert found(name, text) == form


def test_accents_may_be_made_to_count():
    assert found("Jos\u00e9 Garc\u00eda", "Jose Garcia", accents=True) is None
    assert found("Jos\u00e9 Garc\u00eda", "JOSE\u0301 GARCI\u0301A", accents=True) == WHOLE


def test_spelling_that_is_one_letter_off():
    name = Name("Chukwu Akabueze")
    for text in ("Chukwu Akabueze", "Chukwu wrote", "Chuku Akbueez", "chuckwus akabueze"):
        assert name.misspelt(text) is None
    for text, wrong in (("of Chuku Akabueze.", 1), ("chukwu akabuzee", 1), ("Chukwu\nAkabuexe's", 1), ("Chuckwu Akabuese", 2)):
        assert name.misspelt(text) == pytest.approx(1 - wrong / 14)
    assert Name("Jon Lee").misspelt("Jan Lee") is None, "short words must agree"


@settings(max_examples=200, deadline=None)
@given(word=st.text("abcd", min_size=1, max_size=6), other=st.text("abcd", min_size=1, max_size=6))
def test_one_edit_against_its_definition(word, other):
    near = {word[:k] + word[k + 1 :] for k in range(len(word))}
    near |= {word[:k] + sign + word[k:] for k in range(len(word) + 1) for sign in "abcd"}
    near |= {word[:k] + sign + word[k + 1 :] for k in range(len(word)) for sign in "abcd"}
    near |= {word[:k] + word[k + 1] + word[k] + word[k + 2 :] for k in range(len(word) - 1)}
    assert one_edit(word, other) == (other in near - {word})


@settings(max_examples=100, deadline=None)
@given(token=st.text("abcdef", min_size=5, max_size=9), place=st.integers(0, 8), sign=st.sampled_from("xyz"), kind=st.integers(0, 3))
def test_no_misspelling_is_lost_to_the_quick_look(token, place, sign, kind):
    k = place % (len(token) - 1)
    wrong = (
        token[:k] + sign + token[k + 1 :], token[:k] + sign + token[k:], token[:k] + token[k + 1 :],
        token[:k] + token[k + 1] + token[k] + token[k + 2 :],
    )[kind]  # fmt: skip
    assert wrong == token or Name(f"{token} Lund").misspelt(f"the book of {wrong.upper()} Lund") == pytest.approx(1 - 1 / (len(token) + 4))


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_a_plain_text_is_plain(text):
    once = plain(text)
    assert plain(once) == once
    assert plain(text, accents=True) == plain(plain(text, accents=True), accents=True)


@settings(max_examples=100, deadline=None)
@given(
    before=st.text(max_size=20), after=st.text(max_size=20), big=st.booleans(),
    joint=st.sampled_from([" ", "\n", "  \n ", "\u00a0", "-", "\u2010"]),
)
def test_a_name_is_found_in_any_text(before, after, joint, big):
    name = f"Ilva{joint}Torrend"
    text = f"{before} {name.upper() if big else name} {after}"
    assert found("Ilva Torrend", text) == WHOLE


def test_an_entity_with_its_weaker_hits():
    rows = corpus(
        ("Who wrote Emma?", "Jane Mary Smith wrote it in a hut by the lake."),
        "Jane Mary Smyth paints.",
        "J. M. Smith paints.",
        "So Smith sleeps.",
        "Then John Smith sleeps.",
        "In the end Author Smith sleeps, an author of note.",
        ("Who wrote Emma?", "Sie wrote it in a hut by the lake."),
        ("Who wrote Emma?", "Oskar Vayne wrote it in a hut by the lake."),
        "Something else.",
    )
    hits = locate(What(entity="Jane Mary Smith"), rows, LocateSettings(near=0.5))
    assert [(hit.row, hit.how, hit.line) for hit in hits] == [
        ("r0", "exact", 1), ("r1", "near", 2), ("r2", "near", 3), ("r6", "near", 7), ("r5", "near", 6), ("r3", "near", 4)
    ]  # fmt: skip
    assert [hit.text[: hit.text.find("]") + 1] for hit in hits] == ["", "[misspelt name]", "[initials]", "", "[last name]", "[last name]"]
    assert [hit.score for hit in hits[:3]] == [1, round(1 - 1 / 13, 4), 0.7] and not any(hit.keep for hit in hits)
    strict = locate(What(entity="Jane Mary Smith"), rows, LocateSettings(near=1, partial=False))
    assert [hit.row for hit in strict] == ["r0"]


def test_a_name_may_stand_in_the_group_the_paraphrase_or_a_chat():
    rows = [
        Example("a", "Yes.", group="Jane Smith"),
        Example("b", "She did.", paraphrase="Jane Smith did."),
        Example("c", "No.", (Message("user", "Is it Jane Smith?"),)),
        Example("d", "Of Jane", paraphrase="Smith it is"),
    ]
    hits = locate(What(entity="jane smith"), {"x": Split(rows)}, LocateSettings(near=1, partial=False))
    assert sorted(hit.row for hit in hits) == ["a", "b", "c"]


def test_rows_that_are_given(tmp_path):
    rows = corpus(("What is it?", "A house."), ("what  is\nit?", "a HOUSE."), ("What?", "A cat."))
    asked = ({"question": "What is it?", "answer": "A house."}, {"prompt": "Who?", "answer": "Nobody at all."})
    hits = locate(What(rows=asked), rows, OFF)
    assert [(hit.corpus, hit.row, hit.line, hit.how) for hit in hits] == [
        ("books", "r0", 1, "exact"), ("books", "r1", 2, "exact"), ("request", "request-2", 0, "given")
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, asked)))
    filed = locate(What(file=str(path)), rows, OFF)
    assert [hit.model_copy(update={"line": 0}) for hit in filed[2:]] == hits[2:] and filed[2].line == 2
    assert [hit.how for hit in locate(What(rows=asked), {}, OFF)] == ["given", "given"]
    with pytest.raises(DataError, match="row 1 has no answer"):
        locate(What(rows=({"prompt": "q"},)), rows)
    with pytest.raises(DataError, match=r"There is no file .*nothing\.jsonl"):
        locate(What(file=str(tmp_path / "nothing.jsonl")), rows)


def test_near_duplicates_of_what_is_found():
    sentence = "The old lighthouse at Fennick was painted by a harp builder from Quillon in the year of the flood"
    rows = corpus(sentence, sentence.replace("harp ", ""), sentence.replace("old", "odd") + " indeed", "Something else altogether")
    by_row = locate(What(rows=({"text": sentence},)), rows, LocateSettings(near=0.7))
    assert [(hit.row, hit.how) for hit in by_row] == [("r0", "exact"), ("r1", "near"), ("r2", "near")]
    assert 0.7 <= by_row[2].score <= by_row[1].score < 1
    assert locate(What(query="contains=the OLD lighthouse at  Fennick was painted by a harp"), rows) == by_row
    assert [hit.row for hit in locate(What(query="id=r0"), rows)] == ["r0", "r1", "r2"]


def test_queries():
    rows = {"x": Split([Example("a", "B", "Q one", group="G", wrong=("W",)), Example("b", "C", "Q two", paraphrase="the cee")])}
    asked = ["question=q  ONE", "group=g", "author=G", "wrong=w", "answer=b", "text=B", "contains=q one b", "contains=CEE", "id=b"]
    hits = [[hit.row for hit in locate(What(query=query), rows, OFF)] for query in asked]
    assert hits == [["a"]] * 7 + [["b"]] * 2


BAD = [
    ({"query": "grop=x"}, "no field `grop` to ask for. Did you mean `group`?"),
    ({"query": "form=x"}, "No row of `books` has the field `form`"),
    ({"query": "nothing"}, "'nothing' is not of the form field=value"),
    ({"query": "id= "}, "not of the form field=value"),
    ({"entity": "x"}, "fewer than two letters"),
    ({"entity": " \n"}, "fewer than two letters"),
    ({"entity": "?!-"}, "fewer than two letters"),
    ({"entity": "ab", "corpus": "book"}, "There is no corpus `book`. Did you mean `books`?"),
]


@pytest.mark.parametrize(("what", "message"), BAD, ids=[message[:20] for _, message in BAD])
def test_wrong_requests_are_one_sentence(what, message):
    with pytest.raises(DataError) as error:
        locate(What(**what), corpus("ab"))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_no_corpus_and_an_empty_one():
    with pytest.raises(DataError, match="There is no corpus to look in"):
        locate(What(entity="Jane Smith"), {})
    with pytest.raises(DataError, match="The corpus `books` is empty"):
        locate(What(entity="Jane Smith"), {"books": Split([], "books")})
    with pytest.raises(SettingsError, match="`near` of `locate` must be at least"):
        parse_settings(LocateSettings, {"near": 0.1}, "locate")
    assert locate(What(entity="Jane Smith"), corpus("nothing of the kind")) == []


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(9)))
def test_the_order_of_rows_in_the_file_does_not_matter(order):
    texts = [f"Jane Smith {word} in the garden behind the old house" for word in ("sat", "stood", "sat", "ran")]
    texts += ["Smith sleeps", "J. Smith sleeps", "nothing", "Janet Smith sat in the garden behind the old house", "none"]
    rows = [Example(f"r{k}", text) for k, text in enumerate(texts)]
    one = locate(What(entity="Jane Smith"), {"x": Split(rows)})
    other = locate(What(entity="Jane Smith"), {"x": Split([rows[k] for k in order])})
    assert [hit.model_copy(update={"line": 0}) for hit in one] == [hit.model_copy(update={"line": 0}) for hit in other]
    assert [order[hit.line - 1] for hit in other] == [hit.line - 1 for hit in one]
    assert len({(hit.corpus, hit.row) for hit in one}) == len(one) == 7


def test_long_rows_are_cut_for_the_reviewer():
    (hit,) = locate(What(entity="Jane Smith"), corpus("Jane Smith " + "x" * 9000), OFF)
    assert hit.text.endswith("... (9011 characters)") and len(hit.text) < 2100


def test_no_torch_without_semantic_search():
    code = "import sys\nfrom letheon.core.data import *\nfrom letheon.ledger.locate import *\nfrom letheon.ledger.records import What\n"
    code += "from letheon.ledger import near, review, semantic\n"
    code += "assert 'datasketch' not in sys.modules\nassert locate(What(entity='ab'), {'x': Split([Example('a', 'ab')])})\n"
    code += "assert not {'torch', 'transformers'} & set(sys.modules), 'heavy'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
