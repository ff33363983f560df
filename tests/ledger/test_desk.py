"""The desk: states and their order, what it refuses, and how changed, removed and inserted history is found."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("sqlalchemy", reason="the extra `desk` (tests/SKIPS.md)")

from letheon.core.errors import DataError, LetheonError, RunError, SettingsError, SubjectError
from letheon.ledger.desk import Desk
from letheon.ledger.records import MOVES, Generation, State, What, utc

from .desks import ROWS, SECRET, asked, hit, lines, plain_desk


def test_a_desk_holds_its_model_and_corpora(tmp_path):
    desk = plain_desk(tmp_path)
    first = desk.current()
    assert (first.number, first.parent, desk.model_folder(first)) == (0, None, (tmp_path / "model").resolve())
    assert [(corpus.name, corpus.rows) for corpus in desk.corpora()] == [("people", 4)]
    assert [row.answer for row in desk.corpus("people")] == [row["answer"] for row in ROWS]
    assert (desk.folder / "salts.json").stat().st_mode & 0o077 == 0


def test_nobody_cannot_ask(tmp_path):
    desk = plain_desk(tmp_path)
    for who in ("", " \t"):
        with pytest.raises(SettingsError, match="`who` of a request is blank"):
            desk.add(What(entity="A B"), who)
    assert desk.all() == []


def test_what_a_desk_cannot_be_made_of(tmp_path):
    desk = plain_desk(tmp_path)
    rows, model = {"people": tmp_path / "people.jsonl"}, tmp_path / "model"
    with pytest.raises(RunError, match="is a desk already"):
        Desk.create(desk.folder, model, rows, digest="0")
    with pytest.raises(RunError, match="exists and is no desk"):
        Desk.create(tmp_path, model, rows, digest="0")
    with pytest.raises(SubjectError, match="There is no model folder"):
        Desk.create(tmp_path / "new", tmp_path / "nothing", rows, digest="0")
    with pytest.raises(DataError, match="needs the rows"):
        Desk.create(tmp_path / "new", model, {}, digest="0")
    with pytest.raises(SettingsError, match="`name` of `corpus`"):
        Desk.create(tmp_path / "new", model, {"No Name": tmp_path / "people.jsonl"}, digest="0")
    with pytest.raises(DataError, match="There is no file|does not exist|no file"):
        Desk.create(tmp_path / "new", model, {"people": tmp_path / "none.jsonl"}, digest="0")
    assert not (tmp_path / "new").exists()


def test_the_one_who_asks_is_never_kept_in_clear(tmp_path):
    desk = plain_desk(tmp_path)
    one, two = desk.add(What(entity=SECRET), "case-4711"), desk.add(What(entity="A B"), "case-4711")
    assert one.who == two.who != desk.add(What(entity="A B"), "case-4712").who
    assert all(b"case-4711" not in path.read_bytes() for path in desk.folder.rglob("*") if path.is_file())


def test_due_is_a_month_or_what_is_said(tmp_path):
    desk = plain_desk(tmp_path)
    one = desk.add(What(entity=SECRET), "a")
    assert 28 <= (one.due - one.received).days <= 31
    assert desk.add(What(entity=SECRET), "a", due=datetime(2030, 5, 1, tzinfo=UTC)).due.year == 2030
    with pytest.raises(SettingsError, match="`reason` of `request`"):
        desk.add(What(entity=SECRET), "a", reason="because")
    with pytest.raises(DataError, match="There is no corpus `peple` at this desk. Did you mean `people`"):
        desk.add(What(entity=SECRET, corpus="peple"), "a")


def test_a_slip_in_the_year_leaves_the_desk_as_it_was(tmp_path):
    desk = plain_desk(tmp_path)
    events = len(desk.history())
    with pytest.raises(SettingsError, match="more than ten years off"):
        desk.add(What(entity=SECRET), "a", due=datetime(27, 1, 31, tzinfo=UTC))
    assert (desk.all(), len(desk.history())) == ([], events)


def test_a_ledger_with_a_year_that_was_not_padded_can_be_read(tmp_path):
    desk = plain_desk(tmp_path)
    request = asked(desk)
    with sqlite3.connect(desk.store.path) as raw:
        raw.execute("UPDATE requests SET due = '27-01-31T23:59:59Z'")
    assert desk.get(request.id).due == datetime(27, 1, 31, 23, 59, 59, tzinfo=UTC)
    assert desk.refuse(request.id, "no such day").state == "refused"


def test_near_names_of_requests(tmp_path):
    desk = plain_desk(tmp_path)
    request = asked(desk)
    wrong = request.id[:-1] + ("x" if request.id[-1] != "x" else "y")
    with pytest.raises(DataError, match=f"There is no request `{wrong}`. Did you mean `{request.id}`"):
        desk.get(wrong)


def test_locating_counts_and_knows_rows_that_were_erased(tmp_path):
    desk = plain_desk(tmp_path)
    request = desk.add(What(entity=SECRET), "a")
    found = [hit(0), hit(1, how="near", score=0.8), hit(2, how="near", score=0.7, keep=True)]
    assert desk.located(request.id, found).state == "located"
    facts = desk.history(request.id)[-1].facts
    assert (facts["rows"], facts["exact"], facts["near"], facts["kept"]) == (2, 1, 1, 1)
    assert desk.hits(request.id) == found
    assert len(desk.marks(request.id)) == 2
    erase(desk, request.id)
    again = asked(desk, 1)
    assert desk.history(again.id)[-1].facts["again"] == [request.id]
    assert "again" not in desk.history(asked(desk, 2).id)[-1].facts


def erase(desk: Desk, *ids: str) -> None:
    number = desk.current().number + 1
    made = Generation(number=number, folder=f"models/{number:04d}/model", digest="d", parent=number - 1, requests=ids, made=utc())
    desk.add_generation(made, {"verdict": "Gone"})


def test_what_cannot_be_located(tmp_path):
    desk = plain_desk(tmp_path)
    request = desk.add(What(entity=SECRET), "a")
    for hits, said in (([], "No row was found"), ([hit(0, keep=True)], "stay"), ([hit(0, row="people-99")], "no row `people-99`")):
        with pytest.raises(DataError, match=said):
            desk.located(request.id, hits)
    assert desk.get(request.id).state == "received"
    lines(tmp_path / "people.jsonl", ROWS[1:])
    with pytest.raises(DataError, match="is no longer what was registered as `people`"):
        desk.located(request.id, [hit(0)])
    desk.register("people", tmp_path / "people.jsonl")
    with pytest.raises(DataError, match="`people-1` of `people` is not the one that was found"):  # its number is another row's now
        desk.located(request.id, [hit(0)])
    assert desk.located(request.id, [hit(1, row="people-1", line=1)]).state == "located"


def test_a_generation_takes_all_its_requests_or_none(tmp_path):
    desk = plain_desk(tmp_path)
    ready, not_ready = asked(desk), desk.add(What(entity="A B"), "b")
    with pytest.raises(RunError, match="is received and cannot become erased"):
        erase(desk, ready.id, not_ready.id)
    assert desk.get(ready.id).state == "located"
    assert len(desk.generations()) == 1
    erase(desk, ready.id)
    assert [event.kind for event in desk.history(ready.id)] == ["received", "located", "erased", "audited"]
    assert desk.check() == []


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(moves=st.lists(st.sampled_from(["add", "locate", "refuse", "erase"]), min_size=3, max_size=10), picks=st.data())
def test_any_order_of_commands_obeys_the_table(tmp_path_factory, moves, picks):
    desk, states = plain_desk(tmp_path_factory.mktemp("moves") / "d"), {}
    for move in ["add", *moves]:
        if move == "add":
            states[desk.add(What(rows=(ROWS[0],)), "a").id] = State.RECEIVED
            continue
        id_ = picks.draw(st.sampled_from(sorted(states)))
        to, act = {
            "locate": (State.LOCATED, lambda id_=id_: desk.located(id_, [hit(0)])),
            "refuse": (State.REFUSED, lambda id_=id_: desk.refuse(id_, "no")),
            "erase": (State.ERASED, lambda id_=id_: erase(desk, id_)),
        }[move]
        if to in MOVES[states[id_]]:
            act()
            states[id_] = State.AUDITED if to == State.ERASED else to
        else:
            with pytest.raises(LetheonError, match="cannot become"):
                act()
    assert {one.id: one.state for one in desk.all()} == states
    assert desk.check() == []


CHANGES = {
    "UPDATE events SET facts = '{\"x\":1}' WHERE number = 4": r"event 4 \(received of r-\w+\) was changed",
    "DELETE FROM events WHERE number = 4": r"event 4 before event 5 \(located of r-\w+\) was removed",
    "DELETE FROM events WHERE number = 5": r"the last 1 events, from 5 on, were removed",
    "INSERT INTO events SELECT 6, request, at, kind, facts, digest, 'feed' FROM events WHERE number = 5": r"event 6 .* was changed",
    "UPDATE requests SET state = 'audited'": r"is called audited, and its last event says located",
    "UPDATE requests SET what = '{\"entity\":\"Somebody\"}'": r"was changed: what it asks for",
    "UPDATE requests SET due = '2040-01-01T00:00:00Z'": r"was changed: who, why or by when",
    "DELETE FROM requests": r"request r-\w+ was removed",
    "UPDATE generations SET record = replace(record, '0000', '1111')": r"generation 0 was changed",
    "DELETE FROM generations": r"generation 0 was removed",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_behind_the_desks_back_is_named(tmp_path, change):
    desk = plain_desk(tmp_path)
    asked(desk)
    assert desk.check() == []
    with sqlite3.connect(desk.store.path) as raw:
        for trigger in ("events_no_update", "events_no_delete", "events_in_order"):
            raw.execute(f"DROP TRIGGER {trigger}")
        raw.execute(change)
    import re

    assert any(re.search(CHANGES[change], fault) for fault in desk.check()), desk.check()


def test_an_event_that_was_put_in_and_chained_anew_does_not_fit(tmp_path):
    desk = plain_desk(tmp_path)
    asked(desk)
    events = desk.history()
    forged = events[3].model_copy(update={"facts": {**events[3].facts, "reason": "other"}}).chained(events[2].digest)
    with sqlite3.connect(desk.store.path) as raw:
        raw.execute("DROP TRIGGER events_no_update")
        values = (json.dumps(forged.facts, sort_keys=True, separators=(",", ":")), forged.digest)
        raw.execute("UPDATE events SET facts = ?, digest = ? WHERE number = 4", values)
    assert any("event 5" in fault and "does not follow" in fault for fault in desk.check())


def test_salts_that_are_missing_or_broken(tmp_path):
    desk = plain_desk(tmp_path)
    (desk.folder / "salts.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(DataError, match="does not hold salts"):
        desk.add(What(entity=SECRET), "a")
    (desk.folder / "salts.json").unlink()
    with pytest.raises(DataError, match="is missing"):
        desk.salts()
