"""`/admin`: the ledger behind a token. Lists show where requests stand and never what they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from letheon.core.errors import LetheonError, RunError
from letheon.ledger.records import Event, Reason, Request, State, What

from .access import need_token
from .errors import ServeError, described
from .settings import ServeSettings

if TYPE_CHECKING:
    from letheon.ledger.desk import Desk

Id = Annotated[str, Path(pattern=r"^r-[a-z0-9]{8}$", description="`r-` and eight letters or digits")]
Text = Annotated[str, Field(min_length=1, max_length=4096)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Row(_Body):
    """A row that is to be forgotten."""

    prompt: Annotated[str, Field(max_length=65536)] = ""
    answer: Annotated[str, Field(min_length=1, max_length=65536)]


class Wanted(_Body):
    """What is to be forgotten, in exactly one of three ways. Files are named at the desk itself, not from afar."""

    rows: list[Row] | None = Field(None, min_length=1, max_length=1000)
    query: Text | None = Field(None, description="rows of a corpus: `field=value` or `contains=text`")
    entity: Text | None = Field(None, description="name of a person or thing")
    corpus: Text | None = Field(None, description="the registered corpus to look in; none: all")

    @model_validator(mode="after")
    def _one_way(self) -> Wanted:
        if sum(way is not None for way in (self.rows, self.query, self.entity)) != 1:
            raise ValueError("exactly one of rows, query and entity must be given")
        return self


class NewRequest(_Body):
    """A request as it comes in."""

    what: Wanted
    who: Text = Field(description="opaque reference of the one who asks; only a keyed digest of it is kept")
    reason: Reason = "gdpr-17"
    due: AwareDatetime | None = Field(None, description="by when; default a month")
    note: Text | None = None


class Refusal(_Body):
    """Why a request is refused."""

    reason: Text


class Standing(BaseModel):
    """Where a request stands."""

    id: str
    state: State
    reason: Reason
    received: AwareDatetime
    due: AwareDatetime
    overdue: bool


class Standings(BaseModel):
    """Where all requests stand."""

    requests: list[Standing]


class Whole(Standing):
    """A request with what it is about and what happened to it."""

    who: str
    what: What | None
    note: str | None
    history: list[Event]


def _standing(request: Request) -> dict[str, Any]:
    shown = {name: getattr(request, name) for name in ("id", "state", "reason", "received", "due")}
    return {**shown, "overdue": request.overdue()}


def router(desk: Desk, settings: ServeSettings) -> APIRouter:
    """The addresses below `/admin`."""
    common = (400, 401, 408, 413, 429)
    extra: dict[str, Any] = {"security": [{"bearer": []}]}
    routes = APIRouter(prefix="/admin", tags=["ledger"], dependencies=[Depends(need_token(settings))])

    def known(id_: str) -> Request:
        try:
            return desk.get(id_)
        except LetheonError as error:
            raise ServeError(404, "There is no such request", param="id") from error

    def whole(id_: str) -> Whole:
        request = known(id_)
        more: dict[str, Any] = {"who": request.who, "what": request.what, "note": request.note, "history": desk.history(id_)}
        return Whole(**_standing(request), **more)

    @routes.get("/requests", responses=described(*common), openapi_extra=extra)
    def listed(state: Annotated[State | None, Query(description="only those in this state")] = None) -> Standings:
        """List requests, without what they are about."""
        return Standings(requests=[Standing(**_standing(request)) for request in desk.all(state)])

    @routes.post("/requests", status_code=201, responses=described(*common), openapi_extra=extra)
    def add(body: NewRequest, response: Response) -> Standing:
        """Write down a request."""
        what = body.what.model_dump(exclude_none=True)
        try:
            request = desk.add(What(**what), who=body.who, reason=body.reason, due=body.due, note=body.note)
        except LetheonError as error:
            raise ServeError(400, str(error), param="what", code="invalid_value") from error
        response.headers["location"] = f"/admin/requests/{request.id}"
        return Standing(**_standing(request))

    @routes.get("/requests/{id}", responses=described(*common, 404), openapi_extra=extra)
    def shown(id: Id) -> Whole:
        """Show a request, what it is about and its history."""
        return whole(id)

    @routes.post("/requests/{id}/refuse", responses=described(*common, 404, 409), openapi_extra=extra)
    def refuse(id: Id, body: Refusal) -> Standing:
        """Refuse a request that has not been fulfilled."""
        known(id)
        try:
            desk.refuse(id, body.reason)
        except RunError as error:
            raise ServeError(409, error.message, code="wrong_state") from error
        return Standing(**_standing(known(id)))

    return routes
