"""`letheon requests` from the command line: what it prints, what it refuses in one sentence, and that nothing is half-done then."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the extra `desk` (tests/SKIPS.md)")
pytest.importorskip("cryptography", reason="the extra `desk` (tests/SKIPS.md)")

from letheon.cli.main import main
from letheon.ledger.desk import Desk

from .desks import ROWS, SECRET, lines, plain_desk, toy_model


@pytest.fixture
def letheon(capsys, monkeypatch, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """Call `letheon requests` as the entry point does, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LETHEON_CACHE", str(tmp_path / "cache"))

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["requests", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def desk(tmp_path) -> Desk:
    return plain_desk(tmp_path)


def one_sentence(err: str) -> bool:
    return err.count("error: ") == 1 and len(err.strip().splitlines()) == 1 and "Traceback" not in err


def added(letheon, *how: object) -> str:
    code, out, err = letheon("add", "--who", "case-9", *how, "--json")
    assert code == 0, err
    return json.loads(out)["id"]


def test_the_way_of_a_request(desk, letheon):
    id_ = added(letheon, "--entity", SECRET, "--due", "2030-01-31")
    code, out, _ = letheon("list")
    assert (code, id_ in out, "2030-01-31" in out, "OVERDUE" in out) == (0, True, True, False)
    code, out, _ = letheon("locate", id_)
    review = desk.review(id_)
    assert (code, "1 exact" in out, str(review.name) in out, desk.get(id_).state) == (0, True, True, "received")
    code, out, err = letheon("locate", id_, "--accept", review)
    assert (code, desk.get(id_).state) == (0, "located"), err
    code, out, _ = letheon("show", id_, "--json")
    told = json.loads(out)
    assert (told["state"], [event["kind"] for event in told["history"]]) == ("located", ["received", "located"])
    assert (told["hits"][0]["row"], told["what"], told["evidence"]) == ("people-1", {"entity": SECRET, "corpus": None}, None)
    code, out, _ = letheon("show", id_)
    assert SECRET in out
    assert "evidence: none yet" in out
    code, out, _ = letheon("refuse", id_, "--reason", "the law says otherwise")
    assert (code, out) == (0, f"{id_}: refused\n")
    code, out, err = letheon("refuse", id_, "--reason", "again")
    assert (code, one_sentence(err), "is refused and cannot become refused" in err) == (2, True, True)


def test_a_reviewer_keeps_a_row(desk, letheon):
    id_ = added(letheon, "--query", "contains=live")
    letheon("locate", id_)
    path = desk.review(id_)
    text = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([text[0], *(line.replace('"keep": false', '"keep": true') if "Ann" in line else line for line in text[1:])]))
    code, out, err = letheon("locate", id_, "--accept", path, "--json")
    assert code == 0, err
    assert json.loads(out)["kept"] == 1
    assert len(desk.marks(id_)) == 3
    path.write_text("{}\n", encoding="utf-8")
    other = added(letheon, "--query", "contains=live")
    letheon("locate", other)
    code, _, err = letheon("locate", other, "--accept", path)
    assert (code, one_sentence(err), desk.get(other).state) == (2, True, "received")


def test_nothing_found_stays_received(desk, letheon):
    id_ = added(letheon, "--entity", "Nobody Known")
    code, out, _ = letheon("locate", id_, "--yes")
    assert (code, out) == (0, f"{id_}: nothing was found in the corpora; it stays received\n")
    assert (desk.get(id_).state, desk.review(id_).exists()) == ("received", False)


def test_without_a_review_only_whole_names_count(desk, letheon):
    """One letter off may be somebody else: such a row is found for a person to look at, and not taken by `--yes`."""
    id_ = added(letheon, "--entity", SECRET[:-1] + "x")
    code, out, _ = letheon("locate", id_, "--json")
    assert (code, json.loads(out)["near"]) == (0, 1)
    code, out, _ = letheon("locate", id_, "--yes")
    assert (code, "nothing was found" in out, desk.get(id_).state) == (0, True, "received")


def test_late_requests_are_marked(desk, letheon):
    late, soon = added(letheon, "--entity", SECRET, "--due", "2020-01-01"), added(letheon, "--entity", SECRET)
    _, out, _ = letheon("list", "--due", "3")
    assert (late in out, soon in out, "OVERDUE" in out) == (True, False, True)
    assert [one["overdue"] for one in json.loads(letheon("list", "--json")[1])] == [True, False]
    assert letheon("list", "--state", "audited")[1] == "No requests\n"


WRONG = {
    ("list", "--state", "audit"): "Did you mean `audited`",
    ("show", "r-zzzzzzzz"): "There is no request `r-zzzzzzzz`",
    ("add", "--who", "a"): "exactly one of rows, file, query and entity must be given, got none",
    ("add", "--who", "a", "--entity", "A B", "--query", "group=A"): "got query and entity",
    ("add", "--who", "a", "--entity", "A B", "--reason", "why"): "`reason` of `request` must be",
    ("add", "--who", "a", "--entity", "A B", "--due", "soon"): "`--due` takes a date",
    ("add", "--who", "a", "--entity", "A B", "--due", "0226-03-01"): "more than ten years off",
    ("add", "--who", "a", "--entity", "A B", "--due", "0001-01-01T00:00:00+05:00"): "more than ten years off",
    ("add", "--who", "\udcff", "--entity", "A B"): "is not valid UTF-8",
    ("refuse", "r-zzzzzzzz", "--reason", "\udcff"): "There is no request",
    ("show", "\udcff"): "is not valid UTF-8",
    ("list", "--due", "99999999999"): "less than or equal to 9999",
    ("add", "--who", "a", "--row", "[1]"): "`--row` takes a JSON object",
    ("add", "--who", "a", "--row", '{"prompt": "x"}'): "has no answer",
    ("add", "--who", "a", "--rows", "none.jsonl"): "There is no file none.jsonl",
    ("add", "--who", "a", "--entity", "A B", "--corpus", "poeple"): "Did you mean `people`",
    ("fulfil", "--all", "--method", "npo"): "no request is located",
    ("fulfil", "--method", "npo"): "There is nothing to fulfil",
    ("fulfil", "r-zzzzzzzz", "--method", "npo"): "There is no request",
    ("fulfil", "r-zzzzzzzz"): "No method was given",
    ("fulfil", "--all", "r-zzzzzzzz"): "`--all` was given beside requests",
    ("corpus", "people"): "takes NAME=FILE",
    ("corpus", "people=none.jsonl"): "none.jsonl",
    ("forget", "r-zzzzzzzz"): "There is no request",
    ("verify", "none.jsonl"): "none.jsonl",
    ("export", "--format", "xml"): "must be json or csv",
}


@pytest.mark.parametrize("arguments", WRONG, ids=lambda arguments: ascii(" ".join(arguments)))
def test_wrong_use_is_one_sentence(desk, letheon, arguments):
    events = len(desk.history())
    code, out, err = letheon(*arguments)
    assert (code, out, one_sentence(err)) == (2, "", True), err
    assert WRONG[arguments] in err
    assert len(desk.history()) == events


def test_a_reason_that_is_not_utf_8_is_one_sentence(desk, letheon):
    id_ = added(letheon, "--entity", SECRET)
    code, out, err = letheon("refuse", id_, "--reason", "\udcff")
    assert (code, out, one_sentence(err), "is not valid UTF-8" in err) == (2, "", True, True)
    assert (desk.get(id_).state, desk.check()) == ("received", [])


def test_no_desk_and_a_broken_one(letheon, tmp_path):
    code, _, err = letheon("list")
    assert (code, one_sentence(err), "There is no desk in desk" in err) == (2, True, True)
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "ledger.db").write_bytes(b"x" * 5000)
    code, _, err = letheon("list")
    assert (code, one_sentence(err), "no ledger, or a damaged one" in err) == (2, True, True)
    code, _, err = letheon("init", "nothing", "--corpus", "people")
    assert (code, one_sentence(err), "`--corpus` takes NAME=FILE" in err) == (2, True, True)


def test_the_packages_of_the_desk_are_named_where_they_are_missing(desk, letheon, monkeypatch):
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    code, _, err = letheon("list")
    assert (code, one_sentence(err), "pip install 'letheon[desk]'" in err) == (2, True, True)


def test_the_desk_is_found_by_the_environment(desk, letheon, monkeypatch, tmp_path):
    monkeypatch.setenv("LETHEON_DESK", str(desk.folder))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert letheon("list")[:2] == (0, "No requests\n")


def test_export_has_no_text(desk, letheon, tmp_path):
    id_ = added(letheon, "--entity", SECRET, "--note", "Ysolde wrote")
    letheon("locate", id_, "--yes")
    code, out, _ = letheon("export")
    assert (code, SECRET in out, "Ysolde" in out) == (0, False, False)
    told = json.loads(out)
    assert (told["requests"][0]["id"], [one["kind"] for one in told["history"]][-1]) == (id_, "located")
    assert letheon("export", "--out", "r.csv")[0] == 0
    with (tmp_path / "r.csv").open(encoding="utf-8") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["located"]
    code, _, err = letheon("export", "--out", "r.csv")
    assert (code, one_sentence(err), "already exists" in err) == (2, True, True)


def test_check_tells_of_a_change(desk, letheon):
    import sqlite3

    added(letheon, "--entity", SECRET)
    code, out, _ = letheon("check")
    assert (code, out.split()[-1]) == (0, desk.history()[-1].digest)
    with sqlite3.connect(desk.store.path) as raw:
        raw.execute("UPDATE requests SET state = 'audited'")
    code, out, _ = letheon("check")
    assert (code, "is called audited" in out) == (1, True)
    assert json.loads(letheon("check", "--json")[1])["whole"] is False


def test_corpora_are_listed_and_registered_again(desk, letheon, tmp_path):
    assert letheon("corpus")[1].startswith("people: 4 rows")
    lines(tmp_path / "people.jsonl", ROWS[:3])
    assert letheon("corpus", "people=people.jsonl")[1].startswith("people: 3 rows")
    lines(tmp_path / "more.jsonl", [{"q": "A?", "reply": "B"}])
    code, out, err = letheon("corpus", "more=more.jsonl", "--field", "prompt=q", "--field", "answer=reply", "--json")
    assert code == 0, err
    assert json.loads(out)[-1]["fields"] == {"prompt": "q", "answer": "reply"}
    assert json.loads(letheon("corpus", "--json")[1])[-1]["rows"] == 1


def test_erasing_verifying_and_forgetting_from_the_command_line(letheon, tmp_path, monkeypatch):
    made = toy_model(tmp_path)
    code, out, err = letheon("init", made / "model", "--corpus", "people=people.jsonl", "--holdout", "holdout.jsonl")
    assert (code, "20 rows in `people`" in out) == (0, True), err
    id_ = added(letheon, "--entity", "Ilva Torrend")
    letheon("locate", id_, "--yes")
    quick = ("--method", "npo:steps=2,batch_size=4", "--audit", "memorisation:limit=4", "--set", "device=cpu", "-q")
    code, out, err = letheon("fulfil", "--all", *quick)
    assert (code, out.splitlines()[0].startswith("generation 1: 1 request, verdict: ")) == (0, True), err
    bundle = Path("desk/evidence") / f"{id_}.intoto.jsonl"
    code, out, err = letheon("verify", bundle)
    assert (code, "does not prove" in out) == (0, True), out
    told = json.loads(letheon("verify", bundle, "--json")[1])
    assert told["good"] is True
    text = bundle.read_bytes()
    bundle.write_bytes(text.replace(b'"payload":"', b'"payload":"A', 1))
    assert letheon("verify", bundle)[0] == 1
    bundle.write_bytes(text)
    shutil.copy(bundle, "elsewhere.jsonl")
    code, out, _ = letheon("verify", "elsewhere.jsonl", "--model", "desk/models/0001/model")
    assert (code, f"It is about {id_}" in out) == (0, True), "sent under another name"
    wrong = shutil.copy(bundle, bundle.with_name("r-zzzzzzzz.intoto.jsonl"))
    code, out, _ = letheon("verify", wrong, "--model", "desk/models/0001/model", "--json")
    assert (code, [one["name"] for one in json.loads(out)["checks"] if one["result"] == "fail"]) == (1, ["request"])
    Path(wrong).unlink()
    code, out, err = letheon("forget", id_, "--salt")
    assert (code, out) == (0, f"{id_}: forgotten, with its salt\n")
    code, out, _ = letheon("show", id_)
    assert "asks for: forgotten" in out
    assert letheon("check")[0] == 0
