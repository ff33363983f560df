"""What the ledger writes down: the ways of asking, ids, times, and the chain of events against a digest worked out by hand."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from letheon.core.errors import SettingsError
from letheon.ledger.canonical import stamp
from letheon.ledger.records import (
    FIRST, MOVES, Event, Generation, Request, State, What, canonical, due_by, month_after, new_id, utc, written,
)  # fmt: skip

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_a_request_is_asked_in_exactly_one_way():
    assert What(entity="A B").entity == "A B"
    for values in ({}, {"entity": "A", "query": "group=A"}, {"rows": (), "corpus": "people"}, {"entity": ""}):
        with pytest.raises(ValidationError):
            What(**values)


def test_ids_are_random_and_readable():
    ids = {new_id() for _ in range(500)}
    assert len(ids) == 500
    assert all(len(id_) == 10 and id_.startswith("r-") and id_[2:].isalnum() for id_ in ids)


def test_times_are_utc_to_the_second():
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5, minutes=30))) + timedelta(microseconds=900)
    assert written(elsewhere) == "2026-01-31T12:00:00Z"
    assert utc(elsewhere) == NOON
    assert month_after(NOON) == datetime(2026, 2, 28, 12, tzinfo=UTC)
    assert month_after(NOON.replace(month=12)) == datetime(2027, 1, 31, 12, tzinfo=UTC)


def test_years_have_four_digits():
    early = NOON.replace(year=27)
    assert written(early) == stamp(early) == "0027-01-31T12:00:00Z"
    assert datetime.fromisoformat(written(early)) == early


def test_a_day_that_cannot_be_meant_is_refused():
    assert due_by(None, NOON) == month_after(NOON)
    assert due_by(NOON - timedelta(days=40), NOON) == NOON - timedelta(days=40), "it was late when it was written down"
    east, west = timezone(timedelta(hours=5)), timezone(timedelta(hours=-5))
    years = [NOON.replace(year=year) for year in (27, 226, 2015, 2037, 9999)]
    for given in (*years, datetime(1, 1, 1, tzinfo=east), datetime(9999, 12, 31, 23, tzinfo=west)):
        with pytest.raises(SettingsError, match="`due` of a request is more than ten years off"):
            due_by(given, NOON)


def test_the_digest_of_an_event_is_the_one_of_the_head_of_the_file():
    event = Event(request="r-1", at=NOON, kind="received", facts={"b": 1, "a": "ä"}).chained(FIRST)
    text = '{"at":"2026-01-31T12:00:00Z","facts":{"a":"ä","b":1},"kind":"received","request":"r-1"}'
    assert event.digest == hashlib.sha256((FIRST + text).encode()).hexdigest()
    assert event.previous == FIRST
    assert event.model_copy(update={"kind": "refused"}).expected(FIRST) != event.digest


def test_canonical_json_has_one_form():
    assert canonical({"b": [1, None], "a": "é"}) == '{"a":"é","b":[1,null]}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant|Out of range"):
        canonical({"a": float("nan")})


def test_overdue_means_open_and_late():
    values = {"id": "r-1", "who": "0", "what": None, "received": NOON, "due": NOON + timedelta(days=3)}
    late, early = NOON + timedelta(days=4), NOON
    open_, done = Request(**values), Request(**values, state="audited")
    assert (open_.overdue(late), open_.overdue(early), done.overdue(late)) == (True, False, False)


def test_nothing_follows_audited_and_refused():
    assert MOVES[State.AUDITED] == MOVES[State.REFUSED] == ()
    assert set(MOVES) == set(State)


def test_a_generation_names_each_request_once():
    with pytest.raises(ValidationError, match="twice"):
        Generation(number=1, folder="m", digest="d", made=NOON, requests=("r-1", "r-1"))
