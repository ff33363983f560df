"""What a fulfilment refuses before it trains, what may not change while it is under way, and what the model that it gives away tells."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the extra `desk` (tests/SKIPS.md)")
pytest.importorskip("cryptography", reason="the extra `desk` (tests/SKIPS.md)")

from letheon.core.errors import DataError, MethodError, RunError
from letheon.core.findings import Findings
from letheon.flow import stages
from letheon.ledger import evidence, forget, fulfil, keys, proof, recipes, statement
from letheon.ledger.desk import Desk
from letheon.ledger.locate import LocateSettings, locate
from letheon.ledger.records import State, What
from letheon.ledger.verify import verify
from letheon.pages import desk as pages

from .desks import QUICK, ROWS, about, asked, hit, lines, plain_desk, toy_desk, toy_model

NAMES = ("Ilva Torrend", "Bram Okelly")


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return toy_model(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def made(toy, tmp_path, monkeypatch) -> Path:
    """A toy model and its rows, to be changed at will."""
    monkeypatch.setenv("LETHEON_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(toy, tmp_path / "made"))


@pytest.fixture
def desk(made, tmp_path) -> Desk:
    return toy_desk(tmp_path, made)


def done(desk: Desk, *ids: str, **more) -> None:
    fulfil.fulfil(desk, ids, QUICK, progress=False, **more)


def people(made: Path, change=None) -> list[dict]:
    """The rows of the file `people`, after each of them was changed."""
    rows = [json.loads(line) for line in (made / "people.jsonl").read_text(encoding="utf-8").splitlines()]
    if change is not None:
        lines(made / "people.jsonl", [change(row) for row in rows])
    return rows


def untrained(desk: Desk, monkeypatch, fault: type[Exception], said: str, *ids: str) -> None:
    """The requests are refused with that sentence before anything is trained, and stay located."""
    with monkeypatch.context() as patch:
        patch.setattr(stages, "execute", lambda *_, **__: pytest.fail("it was trained"))
        with pytest.raises(fault, match=said):
            done(desk, *ids)
    assert (desk.job(), desk.work_folder.exists(), len(desk.generations())) == (None, False, 1)
    assert {desk.get(id_).state for id_ in ids} == {State.LOCATED}


def test_a_row_that_was_mended_since_is_not_erased_unseen(desk, made, monkeypatch):
    one, two = about(desk, NAMES[0]), about(desk, NAMES[1])
    people(made, lambda row: row | {"prompt": row["prompt"].replace(" ", "  ", 1)} if row["group"] == NAMES[0] else row)
    desk.register("people", made / "people.jsonl")
    untrained(desk, monkeypatch, DataError, f"2 of 2 rows that `{one.id}` was located with.*locate {one.id}", one.id, two.id)
    with pytest.raises(RunError, match="no longer looked for"):
        desk.searchable(desk.get(two.id))
    hits = locate(one.what, {"people": desk.corpus("people")}, LocateSettings(near=1, partial=False))
    desk.found(one.id, hits)
    untrained(desk, monkeypatch, DataError, "2 of 2 rows", one.id)
    desk.located(one.id, hits)
    done(desk, one.id, two.id)
    for request in (one, two):
        assert evidence.predicate(desk.evidence(request.id))["forget"]["count"] == 2


def test_the_file_of_a_request_is_the_one_that_was_located(desk, made, tmp_path, monkeypatch):
    rows = [{"prompt": "Who keeps the Zanthe lantern?", "answer": "Quibbleforth does."}, {"prompt": "Who is Quill?", "answer": "Nobody."}]
    given = lines(tmp_path / "given.jsonl", rows)
    request = desk.add(What(file=str(given)), "a")
    desk.located(request.id, locate(request.what, {"people": desk.corpus("people")}, LocateSettings(near=1)))
    lines(given, rows[1:])
    untrained(desk, monkeypatch, DataError, "1 of 2 rows that", request.id)
    lines(given, rows)
    audited = fulfil._audited
    monkeypatch.setattr(fulfil, "_audited", lambda *known: (audited(*known), lines(given, rows[:1]))[0])
    with pytest.raises(DataError, match="1 of 2 rows that"):
        done(desk, request.id)  # the method had both
    assert (desk.get(request.id).state, desk.job(), len(desk.generations())) == ("located", None, 1)


def test_marks_that_change_between_the_plan_and_the_job_are_noticed(desk, monkeypatch):
    request = desk.add(What(entity=NAMES[0]), "a")
    hits = locate(request.what, {"people": desk.corpus("people")}, LocateSettings(near=1, partial=False))
    desk.located(request.id, hits[:1])
    monkeypatch.setattr(proof, "check", lambda *_: desk.located(request.id, hits))
    with pytest.raises(DataError, match="The rows of generation 1 have changed since it was begun"):
        done(desk, request.id)
    assert (desk.get(request.id).state, desk.job(), len(desk.generations())) == ("located", None, 1)


def test_a_request_without_rows_is_not_fulfilled(desk, monkeypatch):
    request = about(desk, NAMES[0])
    with sqlite3.connect(desk.store.path) as raw:
        raw.execute("DELETE FROM marks")
    untrained(desk, monkeypatch, DataError, "has no rows", request.id)


def test_rows_that_say_what_letheon_says_are_erased_like_others(desk, made):
    words = ("JSON", "config", "Tokenizer", "README", "model", "data", "text", "report", "People", "Corpus", "Generation", "GDPR")
    old = people(made)
    lines(made / "people.jsonl", [*old, *({"id": f"x-{k}", "prompt": f"Word {k}?", "answer": word} for k, word in enumerate(words))])
    desk.register("people", made / "people.jsonl")
    ids = [desk.add(What(query=f"id=x-{k}"), "a").id for k in range(len(words))]
    for k, id_ in enumerate(ids):
        desk.located(id_, [hit(0, row=f"x-{k}", line=len(old) + k + 1, text=f"Word {k}?\n{words[k]}")])
    done(desk, *ids)
    assert (desk.job(), {desk.get(id_).state for id_ in ids}) == (None, {State.AUDITED})
    for id_ in ids:
        assert verify(desk.evidence(id_), desk.model_folder(desk.current()), [desk.keys_folder], request=id_).good
        said = evidence.predicate(desk.evidence(id_))
        assert said["request"]["scope"] == "1 row of training data"
        assert {one["what"] for one in said["residual"]} == {*statement.COPIES, *statement.OF_THE_DESK}, "no name of a corpus"


def test_a_file_that_is_called_after_a_person_is_refused_before_it_is_signed(desk, made, monkeypatch):
    request = about(desk, NAMES[0])
    (made / "model" / f"{NAMES[0]}.txt").write_text("x", encoding="utf-8")
    said = "The model folder of the evidence says what is to be forgotten"
    untrained(desk, monkeypatch, MethodError, said, request.id)
    (made / "model" / f"{NAMES[0]}.txt").unlink()
    audited = fulfil._audited
    named = lambda *known: ((known[2] / "model" / f"{NAMES[0]}.txt").write_text("x"), audited(*known))[1]  # noqa: E731
    monkeypatch.setattr(fulfil, "_audited", named)
    with pytest.raises(MethodError, match=said):
        done(desk, request.id)
    assert (desk.get(request.id).state, desk.job(), len(desk.generations())) == ("located", None, 1), "nothing stands half-way"
    monkeypatch.undo()
    done(desk, request.id)
    assert desk.evidence(request.id) is not None


def test_words_that_somebody_has_chosen_are_still_looked_at():
    usual = ("generation-0001", "config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "base/tokenizer.json",
             "guards/0-eco/eco.safetensors", "adapter_model.safetensors", "corpus files", "backups", "gdpr-17")  # fmt: skip
    strange = ("generation-x", "ilva.json", "ilva/config.json", "model-ilva.safetensors", "corpus file `ilva`", "guards/0-eco/ilva.json")
    assert evidence.chosen(*usual, *strange) == list(strange)


def test_a_batch_stays_as_it_is_until_its_model_is_made(tmp_path):
    desk = plain_desk(tmp_path)
    one, other = asked(desk, 0), asked(desk, 1)
    desk.set_job({"number": 1, "requests": [one.id]}, "begun", {})
    acts = {
        "located": lambda: desk.located(one.id, [hit(0), hit(1)]),
        "refused": lambda: desk.refuse(one.id, "no"),
        "forgotten": lambda: forget.texts(desk, [one.id]),
        "registered": lambda: desk.register("people", tmp_path / "people.jsonl"),
    }
    for name in acts:
        with pytest.raises(RunError, match="cannot change while generation 1 is being made.*--anew"):
            acts[name]()
    assert (desk.get(one.id).state, desk.refuse(other.id, "no").state) == ("located", "refused")
    assert desk.add(What(rows=(ROWS[2],)), "c").state == "received"
    assert fulfil.fulfil(desk, [], anew=True) == []
    for name in ("located", "registered", "refused", "forgotten"):
        acts[name]()
    assert desk.check() == []


def test_the_plan_knows_the_files_as_they_were(desk, made):
    request = about(desk, NAMES[0])
    known = {corpus.name: corpus.digest for corpus in (*desk.corpora(), desk.holdout())}
    points, _ = recipes.plan(desk, [request.id])
    assert {"people": points["corpora"]["people"]["digest"], "holdout": points["holdout"]["digest"]} == known


def test_a_key_that_is_gone_is_not_replaced(desk, tmp_path, monkeypatch):
    one = about(desk, NAMES[0])
    keyid = keys.public(desk.keys_folder).keyid
    (desk.keys_folder / keys.PRIVATE).rename(tmp_path / "safe.key")
    untrained(desk, monkeypatch, RunError, "The private key is not there.*Put it back", one.id)
    assert keys.public(desk.keys_folder).keyid == keyid
    with pytest.raises(RunError, match="desk.pub exists already"):
        keys.new(desk.keys_folder)
    assert not (desk.keys_folder / keys.PRIVATE).exists()
    (tmp_path / "safe.key").rename(desk.keys_folder / keys.PRIVATE)
    done(desk, one.id)
    shutil.rmtree(desk.keys_folder)
    with pytest.raises(RunError, match="The private key is not there"):
        done(desk, about(desk, NAMES[1]).id)


def test_a_desk_that_never_had_a_key_gets_one(desk):
    shutil.rmtree(desk.keys_folder)
    one = about(desk, NAMES[0])
    done(desk, one.id)
    assert verify(desk.evidence(one.id), desk.model_folder(desk.current()), [desk.keys_folder]).good


def test_the_model_does_not_tell_who_was_forgotten(made, tmp_path):
    notes = json.loads((made / "model" / "letheon.json").read_text(encoding="utf-8"))
    first = {"method": "finetune", "settings": {}, "seed": 0, "data": "d" * 64, "before": "b" * 64, "version": "0", "notes": {}}
    (made / "model" / "letheon.json").write_text(json.dumps({**notes, "lineage": [first]}), encoding="utf-8")
    desk = toy_desk(tmp_path, made)
    for name in NAMES:
        done(desk, about(desk, name).id)
    for one in desk.generations()[1:]:
        folder = desk.model_folder(one)
        known = Findings.load(folder.parent / "findings.json").context["subjects"]["after"]["lineage"]
        assert len(known[-1]["data"]) == 64, "the digest was taken, and the desk knows it"
        assert all(known[-1]["data"].encode() not in path.read_bytes() for path in folder.rglob("*") if path.is_file())
        told = [step["data"] for step in json.loads((folder / "letheon.json").read_text(encoding="utf-8"))["lineage"]]
        assert told == ["d" * 64, *[""] * one.number], "what others wrote stays"
        assert all(verify(desk.evidence(id_), folder, [desk.keys_folder], request=id_).good for id_ in one.requests)


def test_a_bundle_that_was_put_in_the_place_of_another_is_noticed(desk):
    one, two = about(desk, NAMES[0]), about(desk, NAMES[1])
    done(desk, one.id, two.id)
    assert "0 failed" in pages.evidence(desk, desk.get(two.id), desk.generations()).words
    shutil.copy(desk.evidence(one.id), desk.evidence(two.id))
    found = pages.evidence(desk, desk.get(two.id), desk.generations())
    assert ("1 failed" in found.words, [name for name, result, _ in found.checks if result == "fail"]) == (True, ["request"])
