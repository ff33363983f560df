"""The review file: comes back as written, takes the edits a person may make, and names the line of all others."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from letheon.core.errors import DataError, RunError
from letheon.ledger.records import Hit
from letheon.ledger.review import read_review, write_review

HITS = [
    Hit(corpus="books", row="r-1", line=1, how="exact", score=1, text="Who?\nJane Smith"),
    Hit(corpus="books", row="r-2", line=2, how="near", score=0.8125, text="[last name] So Smith"),
    Hit(corpus="more", row="r-1", line=9, how="semantic", score=0.9, text="\u2028 Stra\u00dfe \ud800 \u0000"),
]
ROW = '{"keep": false, "how": "exact", "score": 1.0, "corpus": "books", "row": "r-1", "line": 1, "text": "Who?\\nJane Smith"}'


@pytest.fixture
def lines(tmp_path):
    """The lines of a review, and a way to read changed ones."""
    path = write_review(tmp_path / "reviews" / "r.jsonl", HITS)
    written = path.read_bytes().split(b"\n")[:-1]

    def read(changed):
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in changed))
        return read_review(path, HITS)

    return written, read


def test_it_is_readable_and_comes_back(lines):
    written, read = lines
    assert len(written) == 4 and written[1].decode() == ROW
    assert json.loads(written[0])["rows"] == 3 and "delete its line" in json.loads(written[0])["how"]
    assert "Stra\u00dfe" in written[3].decode() and "\u2028" not in written[3].decode()
    assert read(written) == HITS


def test_what_a_person_may_do(lines):
    written, read = lines
    kept = [hit.keep for hit in read([written[0], written[1].replace(b"false", b"true"), *written[2:]])]
    assert kept == [True, False, False]
    assert read([b"", *written[::-1], b"  ", b""]) == HITS
    assert [hit.keep for hit in read([written[2], written[0]])] == [True, False, True]
    assert [hit.keep for hit in read(written[:1])] == [True] * 3
    assert read([b"\xef\xbb\xbf" + written[0] + b"\r", *(line + b"\r" for line in written[1:])]) == HITS
    assert read([written[0], json.dumps(json.loads(written[1]), sort_keys=True), *written[2:]]) == HITS


BAD = [
    (ROW.replace("1.0", "0.9"), "line 2: `score` was changed, and only `keep` may be"),
    (ROW.replace("1.0", "true"), "line 2: `score` was changed"),
    (ROW.replace("Who", "Whom"), "line 2: `text` was changed"),
    (ROW.replace('"line": 1', '"line": 2'), "line 2: `line` was changed"),
    (ROW.replace("exact", "near"), "line 2: `how` was changed"),
    (ROW.replace("r-1", "r-7"), "line 2: the request has not found the row 'r-7' of 'books'"),
    (ROW.replace('"r-1"', "[1]"), "line 2: the request has not found the row '[1]'"),
    (ROW.replace("false", '"false"'), "line 2: `keep` is 'false', not true or false"),
    (ROW.replace("false", "0"), "line 2: `keep` is '0', not true or false"),
    (ROW.replace("keep", "kept"), "line 2: a row has no field `kept`. Did you mean `keep`?"),
    (ROW.replace('"keep": false, ', ""), "line 2 lacks `keep`"),
    (ROW.replace('"line": 1', '"keep": true, "line": 1'), "line 2: broken JSON, `keep` stands there twice"),
    (ROW[:-1], "line 2: broken JSON, expecting ',' delimiter at column"),
    ("[" * 100_000, "line 2: broken JSON, nested too deeply"),
    ("[1]", "line 2 is not a row of a review"),
    (b"\xff", "line 2: not UTF-8 (byte 0xff)"),
    ('{"letheon": "findings"}', "line 2 is a second head of the file"),
]


@pytest.mark.parametrize(("row", "message"), BAD, ids=[message[8:40] for _, message in BAD])
def test_other_edits_name_the_line(lines, row, message):
    written, read = lines
    with pytest.raises(DataError) as error:
        read([written[0], row, *written[2:]])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_twice_and_without_head(lines, tmp_path):
    written, read = lines
    with pytest.raises(DataError, match="line 5 has the row `r-2` of `books`, and so has line 3"):
        read([*written, written[2]])
    with pytest.raises(DataError, match="line 5 is a second head of the file; the first is line 1"):
        read([*written, written[0]])
    with pytest.raises(DataError, match="has no line with the digest"):
        read(written[1:])
    with pytest.raises(DataError, match="has no line with the digest"):
        read([b""])
    with pytest.raises(DataError, match="is no review of letheon"):
        read([b'{"letheon": "findings"}'])
    with pytest.raises(DataError, match="There is no review file"):
        read_review(tmp_path / "none.jsonl", HITS)


def test_a_stale_review_is_refused(tmp_path):
    path = write_review(tmp_path / "r.jsonl", HITS)
    for hits in (HITS[:2], HITS[::-1], [HITS[0].model_copy(update={"score": 0.9}), *HITS[1:]]):
        with pytest.raises(DataError, match="line 1: the review was made from other hits"):
            read_review(path, hits)
    kept = [hit.model_copy(update={"keep": True}) for hit in HITS]
    assert read_review(path, kept) == HITS, "what was kept last time is no other search"


def test_it_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError):
        write_review(tmp_path / "file" / "r.jsonl", HITS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


any_text = st.text(st.characters(exclude_categories=()), max_size=30)
any_hit = st.builds(
    Hit, corpus=st.sampled_from(["a", "b"]), row=st.text(st.characters(exclude_categories=()), max_size=6), line=st.integers(0, 10**9),
    how=st.sampled_from(["exact", "near", "semantic", "given"]), score=st.floats(-1, 1), text=any_text,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(hits=st.lists(any_hit, max_size=5, unique_by=lambda hit: (hit.corpus, hit.row)), data=st.data())
def test_any_hits_go_round(tmp_path_factory, hits, data):
    path = write_review(tmp_path_factory.getbasetemp() / "any.jsonl", hits)
    assert read_review(path, hits) == hits
    lines = path.read_bytes().split(b"\n")[:-1]
    fate = [data.draw(st.sampled_from(["go", "keep", "cut"])) for _ in hits]
    edited = {"go": lambda line: line, "keep": lambda line: line.replace(b'"keep": false', b'"keep": true', 1)}
    left = [edited[what](line) for line, what in zip(lines[1:], fate, strict=True) if what != "cut"]
    path.write_bytes(b"\n".join(data.draw(st.permutations([lines[0], *left]))))
    assert [hit.keep for hit in read_review(path, hits)] == [what != "go" for what in fate]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = write_review(tmp_path_factory.getbasetemp() / "bytes.jsonl", HITS)
    path.write_bytes(path.read_bytes() + content)
    try:
        assert read_review(path, HITS) == HITS
    except DataError as error:
        str(error).encode("utf-8", "backslashreplace")
