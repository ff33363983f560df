"""Errors in the form that OpenAI's clients understand. They say what is wrong and never repeat what was sent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_BY_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type", 429: "rate_limit_exceeded"}


class Fault(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is no success."""

    error: Fault


class ServeError(Exception):
    """An answer with a status that is no success.

    Args:
        status: of HTTP.
        message: one sentence.
        param: the parameter that is wrong.
        code: a word for programs.
        retry: seconds after which it is worth trying again.
        headers: more headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry: float | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code or _BY_STATUS.get(status)
        self.headers = dict(headers or {}) | ({} if retry is None else {"retry-after": str(max(1, round(retry)))})

    def response(self) -> JSONResponse:
        """The answer."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        body = ErrorBody(error=Fault(message=self.message, type=kind, param=self.param, code=self.code))
        return JSONResponse(body.model_dump(), self.status, headers=self.headers)


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI document says of these statuses."""
    texts = {
        400: "The request is malformed, or asks for what this server does not do",
        401: "The key or token is missing or wrong",
        403: "Another site sent this request",
        404: "There is no such thing",
        408: "The request did not come in time",
        409: "Its state does not allow that",
        413: "The request is too large",
        415: "The body is not JSON",
        429: "Too many requests of one client",
        503: "Too many requests of all clients",
    }
    return {status: {"model": ErrorBody, "description": texts[status]} for status in statuses}


def install(app: FastAPI) -> None:
    """Let `app` answer all errors in this form."""

    @app.exception_handler(ServeError)
    async def _ours(_: Request, error: ServeError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _refusal(error.errors()).response()

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        message = {404: "There is no such address", 405: "The address does not take this method"}.get(error.status_code, str(error.detail))
        return ServeError(error.status_code, message, headers=error.headers).response()


def _refusal(errors: Sequence[Any]) -> ServeError:
    """The first thing that is wrong with a request."""
    first = errors[0]
    place, kind = [part for part in first["loc"] if part not in ("body", "query", "path")], first["type"]
    param = _param(place)
    if kind == "json_invalid":
        return ServeError(400, "The body is not valid JSON", code="invalid_json")
    if kind in ("model_attributes_type", "missing") and param is None:
        return ServeError(400, "The body must be a JSON object, sent as application/json", code="invalid_body")
    if kind == "extra_forbidden":
        return ServeError(400, f"This server does not know the parameter `{param}`", param=param, code="unknown_parameter")
    if kind == "unsupported":
        return ServeError(400, first["msg"], param=first["ctx"].get("param", param), code="unsupported_parameter")
    if kind == "missing":
        return ServeError(400, f"`{param}` must be given", param=param, code="missing_required_parameter")
    message = re.sub(r"^Value error, ", "", first["msg"])
    shown = f"`{param}`: " if param else ""
    return ServeError(400, f"{shown}{message[:1].lower()}{message[1:]}", param=param, code="invalid_value")


def _param(place: Sequence[str | int]) -> str | None:
    """`messages[0].content` for a place in the body; names of types that unions put there are left out."""
    out = ""
    for part in place:
        if isinstance(part, int):
            out += f"[{part}]" if out else ""
        elif re.fullmatch(r"[a-z_]+", part) and part not in ("str", "int", "list", "float", "constrained", "text", "nullable"):
            out += f".{part}" if out else part
        elif not re.match(r"[A-Z]|list\[|constrained|function-", part):
            out += "" if out else "unknown"
    return out or None


def place_of(error: BaseException) -> str:
    """Where an error came up, without what it says: that may hold what was asked."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_name}, line {trace.tb_lineno}"
