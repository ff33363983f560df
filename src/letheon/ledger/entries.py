"""Entries of the ledger: how requests, hits, corpora and models are put into its tables, and read from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from letheon.core.errors import DataError, RunError, nearest

from .records import MOVES, Corpus, Event, Generation, Hit, Request, State, canonical, utc
from .store import append, do, kept, rows

if TYPE_CHECKING:
    from sqlalchemy import Connection


def move(connection: Connection, id_: str, to: State, facts: Mapping[str, Any]) -> None:
    """Take a request to another state.

    Raises:
        RunError: there is no way from its state to that one.
    """
    request = one(connection, id_)
    if to not in MOVES[request.state]:
        raise RunError(f"`{id_}` is {request.state} and cannot become {to}", f"`letheon requests show {id_}` tells its history")
    do(connection, "UPDATE requests SET state = :to WHERE id = :id", to=to, id=id_)
    append(connection, Event(request=id_, at=utc(), kind=to, facts=dict(facts)))


def free(connection: Connection, id_: str | None = None) -> None:
    """Check that no fulfilment under way rests on a request, or, without one, on the corpora.

    Raises:
        RunError: one does: what is signed at its end must be what it began with.
    """
    job = kept(connection, "job")
    if job is not None and (id_ is None or id_ in job["requests"]):
        what = "The corpora" if id_ is None else f"`{id_}`"
        hint = "`letheon requests fulfil` goes on with it, and `letheon requests fulfil --anew` gives it up"
        raise RunError(f"{what} cannot change while generation {job['number']} is being made", hint)


def put_hits(connection: Connection, id_: str, hits: Sequence[Hit]) -> None:
    """Put the hits of a request in the place of those it had."""
    do(connection, "DELETE FROM hits WHERE request = :id", id=id_)
    for hit in hits:
        do(connection, "INSERT INTO hits (request, record) VALUES (:id, :record)", id=id_, record=hit.model_dump_json())


def one(connection: Connection, id_: str) -> Request:
    """The request of that name.

    Raises:
        DataError: there is none; the hint gives the nearest.
    """
    found = rows(connection, "SELECT * FROM requests WHERE id = :id", id=id_)
    if not found:
        near = nearest(id_, [row.id for row in rows(connection, "SELECT id FROM requests")])
        raise DataError(f"There is no request `{id_}`", f"Did you mean `{near}`?" if near else "`letheon requests list` shows them all")
    return request_of(found[0])


def request_of(row: Any) -> Request:
    """The request that stands in a row of the table."""
    values: dict[str, Any] = dict(row._mapping)
    due = row.due.zfill(len("2026-01-31T12:00:00Z"))  # ledgers of old hold years below 1000 without their zeros
    return Request(**{**values, "due": due, "what": None if row.what is None else json.loads(row.what)})


def put_corpus(connection: Connection, corpus: Corpus) -> None:
    """Add a corpus, or put it in the place of the one of that name."""
    record = corpus.model_dump(mode="json")
    do(
        connection,
        "INSERT INTO corpora VALUES (:name, :record) ON CONFLICT (name) DO UPDATE SET record = :record",
        name=corpus.name, record=canonical(record).decode(),
    )  # fmt: skip
    append(connection, Event(at=utc(), kind="corpus", facts=record))


def put_generation(connection: Connection, generation: Generation) -> None:
    """Add a model."""
    record = generation.model_dump(mode="json")
    do(connection, "INSERT INTO generations VALUES (:number, :record)", number=generation.number, record=canonical(record).decode())
    facts = {"number": generation.number, "record": hashlib.sha256(canonical(record)).hexdigest()}
    append(connection, Event(at=utc(), kind="generation", facts=facts))
