"""What the desk writes down: requests, what they found, the models they led to, and the events of all that, chained by digests.

    digest of an event = sha256(digest of the event before + canonical JSON of what happened)

A request moves received -> located -> erased -> audited, or to refused from one of the first two.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import secrets
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

from pydantic import AwareDatetime, field_validator, model_validator

from letheon.core.errors import SettingsError
from letheon.core.settings import Field, Settings

FIRST = "0" * 64  # what the first event of a ledger calls the one before it
FARTHEST = timedelta(days=3653)  # between a request and its day
_SIGNS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that is taken for another
Reason = Literal["gdpr-17", "takedown", "safety", "contract", "other"]


class State(StrEnum):
    """Where a request stands."""

    RECEIVED = "received"
    LOCATED = "located"
    ERASED = "erased"
    AUDITED = "audited"
    REFUSED = "refused"


MOVES = {  # state -> the states that may follow it
    State.RECEIVED: (State.LOCATED, State.REFUSED),
    State.LOCATED: (State.LOCATED, State.ERASED, State.REFUSED),
    State.ERASED: (State.AUDITED,),
    State.AUDITED: (),
    State.REFUSED: (),
}


class What(Settings):
    """What is to be forgotten, said in exactly one of four ways."""

    rows: tuple[dict[str, Any], ...] = Field((), description="rows given in the request, with `prompt` and `answer`, or `text`")
    file: str | None = Field(None, min_length=1, description="file of such rows")
    query: str | None = Field(None, min_length=1, description="rows of a corpus: `field=value` or `contains=text`")
    entity: str | None = Field(None, min_length=1, description="name of a person or thing")
    corpus: str | None = Field(None, description="the registered corpus to look in; none: all")

    @model_validator(mode="after")
    def _one_way(self) -> What:
        ways = [name for name in ("rows", "file", "query", "entity") if getattr(self, name)]
        if len(ways) != 1:
            raise ValueError(f"exactly one of rows, file, query and entity must be given, got {' and '.join(ways) or 'none'}")
        return self


class Request(Settings):
    """One request. `who` is a keyed digest; `what` is None once the text is forgotten."""

    id: str = Field(description="`r-` and eight letters or digits")
    who: str = Field(description="HMAC of the reference of the one who asked, hexadecimal; the reference itself is not kept")
    what: What | None = Field(None, description="what is to be forgotten; none: forgotten itself")
    reason: Reason = Field("gdpr-17", description="on what ground")
    note: str | None = Field(None, description="a remark of the desk; no personal data")
    received: AwareDatetime = Field(description="UTC")
    due: AwareDatetime = Field(description="UTC; by default a month after `received`")
    state: State = Field(State.RECEIVED, description="where it stands")

    def overdue(self, now: datetime | None = None) -> bool:
        """Whether it is past its time and neither audited nor refused."""
        return self.state not in (State.AUDITED, State.REFUSED) and self.due < (now or utc())


class Event(Settings):
    """Something that happened. Events are only ever added."""

    request: str | None = Field(None, description="the request it is about; none: the desk")
    at: AwareDatetime = Field(description="UTC")
    kind: str = Field(description="received, located, refused, erased, audited, generation, corpus, forgotten, ...")
    facts: dict[str, Any] = Field({}, description="what is known of it; never a text that is to be forgotten")
    previous: str = Field(FIRST, description="digest of the event before")
    digest: str = Field("", description="sha256 of `previous` and the event, hexadecimal")

    def chained(self, previous: str) -> Event:
        """This event as the one after `previous`."""
        return self.model_copy(update={"previous": previous, "digest": self.expected(previous)})

    def expected(self, previous: str) -> str:
        """The digest it must have after the event with the digest `previous`."""
        said = {"request": self.request, "at": written(self.at), "kind": self.kind, "facts": self.facts}
        return hashlib.sha256(previous.encode() + canonical(said)).hexdigest()


class Corpus(Settings):
    """A registered file of rows that models are trained on."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$", description="lower-case letters, digits and dashes")
    path: str = Field(description="the file")
    digest: str = Field(description="sha256 of the file, hexadecimal")
    rows: int = Field(ge=0, description="rows in it")
    fields: dict[str, str | None] = Field({}, description="what letheon calls a field and what the file calls it, as in `files`")


class Hit(Settings):
    """A row of a corpus that a request is about. `keep` means that a person said that this row stays."""

    corpus: str = Field(description="name of the corpus")
    row: str = Field(description="id of the row")
    line: int = Field(ge=0, description="its number in the file, from 1; 0: not from a file")
    how: Literal["exact", "near", "semantic", "given"] = Field(description="how it was found")
    score: float = Field(ge=-1, le=1.0000001, description="how sure: 1 for exact")
    keep: bool = Field(False, description="whether the row stays")
    text: str = Field("", description="the row as a person reads it; empty once forgotten")


class Generation(Settings):
    """A model of the lineage. Number 0 came in; each later one forgot the rows of `requests`."""

    number: int = Field(ge=0, description="0, 1, 2 ...")
    folder: str = Field(description="the model's folder, relative to the desk where it lies in it")
    digest: str = Field(description="digest of weights and tokenizer, as letheon reports it")
    root: str = Field("", description="sha256 root over the folder, as model-signing has it")
    parent: int | None = Field(None, description="number of the model it was made from")
    requests: tuple[str, ...] = Field((), description="requests that it fulfils")
    made: AwareDatetime = Field(description="UTC")
    recipe: dict[str, Any] = Field({}, description="the recipe it was made with")
    verdict: str | None = Field(None, description="the word of the audit's verdict")

    @field_validator("requests")
    @classmethod
    def _each_once(cls, requests: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(requests)) != len(requests):
            raise ValueError("a request stands there twice")
        return requests


def new_id() -> str:
    """A random name for a request: `r-` and eight letters or digits."""
    return "r-" + "".join(secrets.choice(_SIGNS) for _ in range(8))


def utc(at: datetime | None = None) -> datetime:
    """`at`, or now, in UTC, to the second."""
    return (at or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)


def written(at: datetime) -> str:
    """A time as RFC 3339 in UTC: `2026-01-31T12:00:00Z`."""
    return utc(at).replace(tzinfo=None).isoformat() + "Z"


def month_after(day: datetime) -> datetime:
    """The same day of the next month, or its last day."""
    year, month = (day.year, day.month + 1) if day.month < 12 else (day.year + 1, 1)
    return day.replace(year=year, month=month, day=min(day.day, calendar.monthrange(year, month)[1]))


def due_by(given: datetime | None, received: datetime) -> datetime:
    """By when a request must be fulfilled, in UTC: as given, or a month after it was received.

    Raises:
        SettingsError: it is more than ten years off, as after a slip in the year.
    """
    try:
        due = month_after(received) if given is None else utc(given)
    except OverflowError:  # no day of the calendar in UTC
        due = None
    if due is None or abs(due - received) > FARTHEST:
        raise SettingsError(f"`due` of a request is more than ten years off: {given}", "Look at the year, as in 2027-01-31")
    return due


def canonical(value: Any) -> bytes:
    """JSON in the one way that digests are taken over: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
