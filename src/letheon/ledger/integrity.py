"""Is the ledger whole? The chain of events, and what the tables hold against what the events say.

Whoever can write the file and knows how it is made can write another history that is whole in itself. What binds it is outside: the
evidence bundles that were given away, and copies of the last digest (`letheon requests check`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from . import salts
from .records import FIRST, Event, State
from .store import event_of, kept, rows

if TYPE_CHECKING:
    from .desk import Desk


def faults(desk: Desk) -> list[str]:
    """One sentence for each fault; empty where the ledger is whole."""
    with desk.store.write() as connection:
        events = rows(connection, "SELECT * FROM events ORDER BY number")
        head = kept(connection, "head") or {"events": 0, "digest": FIRST}
        requests = rows(connection, "SELECT * FROM requests ORDER BY rowid")
        generations = rows(connection, "SELECT * FROM generations ORDER BY number")
    found = _chain(events, head)
    if found:
        return found
    told = [event_of(row) for row in events]
    return [*_requests(desk, told, requests), *_generations(told, generations)]


def _chain(events: list[Any], head: dict[str, Any]) -> list[str]:
    """Events that were changed, removed or put in, by number and kind."""
    found, previous, number = [], FIRST, 0
    for row in events:
        name = f"event {row.number} ({row.kind}{f' of {row.request}' if row.request else ''})"
        if row.number != number + 1:
            missing = f"event {number + 1}" if row.number == number + 2 else f"events {number + 1} to {row.number - 1}"
            found.append(f"{missing} before {name} was removed")
        try:
            expected = event_of(row).expected(row.previous)
        except ValueError:
            expected = ""
        if expected != row.digest:
            found.append(f"{name} was changed")
        elif row.previous != previous and row.number == number + 1:
            found.append(f"{name} does not follow the one before it: one of them was changed or put in")
        previous, number = row.digest, row.number
    if number < head["events"]:
        found.append(f"the last {head['events'] - number} events, from {number + 1} on, were removed")
    elif number > head["events"]:
        found.append(f"events from {head['events'] + 1} on were put in")
    elif not found and previous != head["digest"]:
        found.append(f"event {number}, the last one, is not the one that was written")
    return found


def _requests(desk: Desk, events: list[Event], requests: list[Any]) -> list[str]:
    """Requests whose row is not what the events say."""
    states = {state.value for state in State}
    last = {event.request: event.kind for event in events if event.request and event.kind in states}
    first = {event.request: event.facts for event in events if event.kind == State.RECEIVED}
    secrets, found = desk.salts(), []
    for row in requests:
        if row.id not in first:
            found.append(f"request {row.id} was put in: no event tells of it")
            continue
        facts = first.pop(row.id)
        if row.state != last[row.id]:
            found.append(f"request {row.id} is called {row.state}, and its last event says {last[row.id]}")
        if (row.who, row.reason, row.due) != (facts["who"], facts["reason"], facts["due"]):
            found.append(f"request {row.id} was changed: who, why or by when")
        if row.what is not None and row.id in secrets and salts.keyed(secrets[row.id], row.what.encode()) != facts["what"]:
            found.append(f"request {row.id} was changed: what it asks for")
    return [*found, *(f"request {name} was removed" for name in first)]


def _generations(events: list[Event], generations: list[Any]) -> list[str]:
    told = {event.facts["number"]: event.facts["record"] for event in events if event.kind == "generation"}
    held = {row.number: hashlib.sha256(row.record.encode()).hexdigest() for row in generations}
    wrong = [number for number in told if held.get(number) != told[number]]
    found = [f"generation {number} was {'changed' if number in held else 'removed'}" for number in wrong]
    return [*found, *(f"generation {number} was put in" for number in held if number not in told)]


def head(desk: Desk) -> dict[str, Any]:
    """How many events there are, and the digest of the last: what to keep elsewhere."""
    with desk.store.write() as connection:
        return kept(connection, "head") or {"events": 0, "digest": FIRST}


