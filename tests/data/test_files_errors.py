"""Bad files: each fault has its own sentence with file, row and a hint, and is always a DataError."""

from __future__ import annotations

import gzip
import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from letheon.core.errors import DataError
from letheon.data.files import Files

GOOD = '{"prompt": "q", "answer": "a"}\n'

# file name, content, part of the message
BAD = [
    ("empty.jsonl", b"", "empty.jsonl is empty"),
    ("blank.json", b" \n\n ", "blank.json is empty"),
    ("none.json", b"[]", "none.json holds no rows"),
    ("header.csv", b"prompt,answer\n", "header.csv holds no rows"),
    ("mark.jsonl", b"\xef\xbb\xbf", "mark.jsonl is empty"),
    ("a.jsonl", (GOOD * 16 + '{"prompt": "q" "answer": 1}').encode(), "a.jsonl, row 17: broken JSON, expecting ',' delimiter at column 16"),
    ("gap.jsonl", f"{GOOD}\n\n{GOOD}{{\n".encode(), "gap.jsonl, row 3 (line 5): broken JSON"),
    ("a.json", b'[{"text": "a"},\n {"prompt": "q" "answer": 1}]', "a.json, row 2: broken JSON, expecting ',' delimiter at line 2"),
    ("cut.json", b'[{"prompt": "q", "answer": "a"}, {"prompt": "q", "ans', "cut.json, row 2: broken JSON"),
    ("open.json", b'[{"prompt": "q", "answer": "a"}', "open.json, row 1: broken JSON"),
    ("two.json", b'[{"text": "a"}] [{"text": "b"}]', "two.json, row 1: broken JSON, extra data"),
    ("deep.json", b"[" * 200_000, "deep.json, row 1: broken JSON, nested too deeply"),
    ("deep.jsonl", b'{"a":' * 200_000, "deep.jsonl, row 1: broken JSON, nested too deeply"),
    ("digits.jsonl", b'{"a": ' + b"9" * 5000 + b"}", "digits.jsonl, row 1: broken JSON, Exceeds the limit"),
    ("number.json", b"17", "number.json holds no list of rows"),
    ("lists.json", b'{"train": [{"text": "a"}], "test": [{"text": "b"}]}', "lists.json holds 2 lists: `train`, `test`"),
    ("mixed.jsonl", f"{GOOD}[1, 2]\n".encode(), "mixed.jsonl, row 2 is a list, not an object"),
    ("null.json", b'[{"text": "a"}, null]', "null.json, row 2 is null, not an object"),
    ("noanswer.jsonl", b'{"question": "q", "gt": "a"}', "noanswer.jsonl, row 1 has no answer: it has `question`, `gt`"),
    ("noprompt.jsonl", b'{"answer": "a", "q": "q"}', "noprompt.jsonl, row 1 has no prompt: it has `answer`, `q`"),
    ("neither.jsonl", b'{"a": "a"}', "neither.jsonl, row 1 has no prompt and no answer: it has `a`"),
    ("frage.jsonl", b'{"Frage": "q"}', """--data 'files:forget=FILE,fields={"prompt": "NAME", "answer": "NAME"}'"""),
    ("nothing.jsonl", b"{}", "nothing.jsonl, row 1 has no prompt and no answer: it has no fields"),
    ("half.jsonl", b'{"text": "a", "target": "b"}', 'give fields={"answer": null} to read `text` as plain text'),
    ("blankanswer.jsonl", f'{GOOD}{{"prompt": "q", "answer": " "}}'.encode(), "blankanswer.jsonl, row 2 has an empty answer"),
    ("int.jsonl", b'{"prompt": "q", "answer": 42}', "int.jsonl, row 1: `answer` is a number (42), not text"),
    ("bool.jsonl", b'{"prompt": "q", "answer": true}', "`answer` is true or false"),
    ("list.jsonl", b'{"prompt": ["q"], "answer": "a"}', "`prompt` is a list, not text"),
    ("nan.jsonl", b'{"prompt": "q", "answer": NaN}', "`answer` is a number, not text"),
    ("half-pair.jsonl", b'{"prompt": "q", "answer": "\\ud800"}', "`answer` holds half of a character pair (U+D800)"),
    ("id.jsonl", b'{"id": "x", "text": "a"}\n{"id": "y", "text": "a"}\n{"id": "x", "text": "b"}', "row 3 has the id `x`, and so has row 1"),
    ("latin.jsonl", GOOD.encode() + b'{"text": "M\xe4rz"}', "latin.jsonl, row 2: not UTF-8 (byte 0xe4)"),
    ("latin.csv", b"text\nok\nM\xe4rz\n", "latin.csv: not UTF-8 in line 3 (byte 0xe4)"),
    ("wide.json", '[{"text": "a"}]'.encode("utf-16"), "wide.json is UTF-16, not UTF-8"),
    ("uneven.csv", b'prompt,answer\n"two\nlines",a\nq,a,b\n', "uneven.csv, row 2 (line 4) has 3 cells, the header has 2"),
    ("quote.csv", b'prompt,answer\nq,"a\n', "quote.csv, row 1 (line 2): broken CSV"),
    ("twice.csv", b"prompt,prompt\nq,a\n", "twice.csv has two columns called `prompt`"),
    ("index.json", b'[{"question": "q", "choices": ["a", "b"], "answer": 2}]', "`answer` is 2, which is none of the 2 choices"),
    ("below.json", b'[{"question": "q", "choices": ["a", "b"], "answer": -1}]', "`answer` is -1, which is none of the 2 choices"),
    ("letter.json", b'[{"question": "q", "choices": ["a", "b"], "answer": "C"}]', "`answer` is 'C', which is none of the 2 choices"),
    ("single.json", b'[{"question": "q", "choices": ["a"], "answer": 0}]', "`choices` must hold two or more choices"),
    ("nochoices.json", b'[{"question": "q", "choices": "see below", "answer": "A"}]', "`choices` is text, not a list"),
    ("role.jsonl", b'{"messages": [{"role": "tool", "content": "x"}]}', "`messages[0]` has the role 'tool'"),
    ("silent.jsonl", b'{"messages": [{"role": "user", "content": "x"}]}', "`messages` has no assistant turn"),
    ("notalk.jsonl", b'{"messages": "hello"}', "`messages` is not a list of messages"),
    ("nullturn.jsonl", b'{"messages": [{"role": "assistant", "content": null}]}', "`messages[0].content` is null, not text"),
    ("wrong.jsonl", b'{"prompt": "q", "answer": "a", "wrong": ["b", ""]}', "`wrong` holds an empty text"),
    ("cut.jsonl.gz", gzip.compress(GOOD.encode() * 99)[:-9], "cut.jsonl.gz is not a whole gzip file"),
    ("plain.jsonl.gz", GOOD.encode(), "plain.jsonl.gz is not a whole gzip file"),
    ("broken.parquet", b"PAR1 nothing of the kind PAR1", "broken.parquet is not a whole Parquet file"),
    ("table.xlsx", b"PK", "table.xlsx has no known ending"),
    ("noending", b"x", "noending has no known ending"),
    ("x.parquet.gz", b"x", "x.parquet.gz has no known ending"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=[name for name, _, _ in BAD])
def test_each_fault_has_its_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        Files(forget=tmp_path / name).load()
    assert message in str(error.value)
    assert str(tmp_path / name) in error.value.message
    assert "\n" not in str(error.value)


def test_no_file_given():
    with pytest.raises(DataError, match="`files` was given no file"):
        Files().load()


def test_missing_files_name_the_nearest(tmp_path):
    (tmp_path / "forget.jsonl").write_text(GOOD)
    with pytest.raises(DataError, match=r"There is no file .*forgot\.jsonl\. Did you mean `forget\.jsonl`"):
        Files(forget=tmp_path / "forgot.jsonl").load()
    with pytest.raises(DataError, match=r"There is no folder .*nowhere"):
        Files(forget=tmp_path / "nowhere" / "forget.jsonl").load()
    with pytest.raises(DataError, match=r"is a folder, not a file\. Name a file in it, such as forget\.jsonl"):
        Files(forget=tmp_path).load()
    with pytest.raises(DataError, match="There is no file"):
        Files(splits={"more": str(tmp_path / "more.csv")}).load()


def test_what_is_too_large_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD * 100)
    size = len(GOOD) * 100
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert packed.stat().st_size < size / 10  # a small file that unpacks to a large one
    for name in (path, packed):
        with pytest.raises(DataError, match="holds more than"):
            Files(forget=name, max_megabytes=(size - 1) / 1e6).load()
        assert len(Files(forget=name, max_megabytes=size / 1e6).load()["forget"]) == 100
    with pytest.raises(DataError, match="has more than 99 rows"):
        Files(forget=path, max_rows=99).load()
    assert len(Files(forget=path, max_rows=99, limit=5).load()["forget"]) == 5
    path.write_text(json.dumps({"text": "x" * 50}))
    with pytest.raises(DataError, match="`text` has 50 characters, more than 49"):
        Files(forget=path, max_characters=49).load()


def test_the_csv_limit_of_the_process_is_put_back(tmp_path):
    import csv

    before = csv.field_size_limit()
    (tmp_path / "long.csv").write_text("text\n" + "x" * 200_000 + "\n")
    assert len(Files(forget=tmp_path / "long.csv").load()["forget"][0].answer) == 200_000
    (tmp_path / "bad.csv").write_text('text\n"x\n')
    with pytest.raises(DataError):
        Files(forget=tmp_path / "bad.csv").load()
    assert csv.field_size_limit() == before


_KNOWN = "id prompt question input answer output text messages choices option1 option2 A B wrong paraphrase group form role content label"
_NAMES = st.one_of(st.sampled_from(_KNOWN.split()), st.text(max_size=3))
_TEXT = st.one_of(st.text(st.characters(), max_size=6), st.sampled_from(["A", "1", "user", "assistant", '["a", "b"]', "[", ""]))
_LEAF = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _TEXT)
_JSON = st.recursive(_LEAF, lambda part: st.one_of(st.lists(part, max_size=4), st.dictionaries(_NAMES, part, max_size=5)), max_leaves=12)
_ROWS = st.lists(st.one_of(st.dictionaries(_NAMES, _JSON, max_size=6), _JSON), max_size=4)


def loads_or_says_why(path, **more):
    try:
        data = Files(forget=path, **more).load()
    except DataError as error:
        str(error).encode()  # it can be printed
        return
    for row in data["forget"]:
        assert isinstance(row.id, str) and row.answer.strip() and all(isinstance(text, str) and text.strip() for text in row.wrong)
    assert len(data.digest) == 64


@settings(max_examples=70, deadline=None)
@given(rows=_ROWS, lines=st.booleans(), listed=st.booleans())
def test_any_json_loads_or_is_a_data_error(tmp_path_factory, rows, lines, listed):
    path = tmp_path_factory.getbasetemp() / f"any.{'jsonl' if lines else 'json'}"
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
    loads_or_says_why(path, choices="listed" if listed else "hidden")


@settings(max_examples=70, deadline=None)
@given(content=st.one_of(st.binary(max_size=80), st.text('{}[]",:ab\n\r;\t0', max_size=60).map(str.encode)), ending=st.integers(0, 5))
def test_any_bytes_load_or_are_a_data_error(tmp_path_factory, content, ending):
    path = tmp_path_factory.getbasetemp() / f"bytes{['.json', '.jsonl', '.csv', '.parquet', '.txt', '.json.gz'][ending]}"
    path.write_bytes(content)
    loads_or_says_why(path)
