"""Forgetting the forget set: what requests say is removed from the desk once they are fulfilled.

What stays are marks, digests under the salt of the request: the same row is recognised when it is asked for again, and nothing can be read
from them. When the salt is destroyed too, a mark is a random number, and nobody can show any more what the request was about.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.core.errors import RunError

from . import salts, statement
from .entries import free
from .records import Event, Generation, State, utc
from .store import append, do, rows

if TYPE_CHECKING:
    from letheon.core.findings import Finding, Findings

    from .desk import Desk


def stripped(findings: Findings) -> Findings:
    """Findings without what rows say: the worst leftovers, values that are text, and digests by which rows can be tried one by one."""
    models = {label: tuple(map(_bare, found)) for label, found in findings.models.items()}
    return findings.model_copy(update={"leftovers": (), "models": models, "context": _undigested(findings.context)})


def _undigested(context: dict[str, Any]) -> dict[str, Any]:
    """How it was measured, without digests of the data, of its splits, and of the data of each step that made a model."""
    data = {key: value for key, value in context.get("data", {}).items() if key != "digest"}
    data["splits"] = {name: {"rows": facts["rows"]} for name, facts in data.get("splits", {}).items()}
    subjects = {}
    for label, facts in context.get("subjects", {}).items():
        steps = [{key: value for key, value in step.items() if key != "data"} for step in facts["lineage"]]
        subjects[label] = {**facts, "lineage": steps}
    return {**context, "data": data, "subjects": subjects}


def _bare(one: Finding) -> Finding:
    return one.model_copy(update={"extra": {key: value for key, value in one.extra.items() if not _said(value)}})


def _said(value: object) -> bool:
    """Whether a value holds text somewhere."""
    if isinstance(value, dict):
        return any(_said(part) for part in value.values())
    return isinstance(value, str) or isinstance(value, list | tuple) and any(_said(part) for part in value)


def texts(desk: Desk, ids: Iterable[str], generation: Generation | None = None) -> None:
    """Remove the texts of fulfilled or refused requests from the ledger, from its free pages, and with them the review files.

    Raises:
        RunError: a request is still to be fulfilled, or its evidence is not written yet.
    """
    with desk.store.write() as connection:
        for id_ in ids:
            if generation is None:
                free(connection, id_)
            _check(desk, id_, rows(connection, "SELECT state FROM requests WHERE id = :id", id=id_)[0].state)
            told = rows(connection, "SELECT 1 FROM events WHERE request = :id AND kind = 'forgotten'", id=id_)
            do(connection, "UPDATE requests SET what = NULL, note = NULL WHERE id = :id", id=id_)
            do(connection, "DELETE FROM hits WHERE request = :id", id=id_)
            if not told:
                facts = {} if generation is None else {"generation": generation.number}
                append(connection, Event(request=id_, at=utc(), kind="forgotten", facts=facts))
    desk.store.vacuum()
    for id_ in ids:
        desk.review(id_).unlink(missing_ok=True)


def salt(desk: Desk, id_: str) -> None:
    """Destroy the salt of a request whose text is forgotten: from now on nobody can tell what it was about.

    Raises:
        RunError: its text is still there.
    """
    if desk.get(id_).what is not None:
        raise RunError(f"The text of `{id_}` is still in the ledger", f"`letheon requests forget {id_}` removes it")
    with desk.store.write() as connection:
        secrets = desk.salts()
        if secrets.pop(id_, None) is None:
            raise RunError(f"The salt of `{id_}` is destroyed already")
        salts.write(desk.folder, secrets)
        append(connection, Event(request=id_, at=utc(), kind="salt-destroyed"))


def residual(forgotten: bool) -> dict[str, str]:
    """Copies of what was erased that a desk knows of, and their state: none, deleted, kept or unknown. Nobody's names are among them."""
    states = ("kept", "deleted" if forgotten else "kept", "none" if forgotten else "kept")
    return {"earlier checkpoints": "kept", **dict(zip(statement.OF_THE_DESK, states, strict=True))}


def _check(desk: Desk, id_: str, state: str) -> None:
    if state not in (State.AUDITED, State.REFUSED):
        raise RunError(f"`{id_}` is {state}: its text is still needed", f"`letheon requests fulfil {id_}` comes before")


def left(desk: Desk, id_: str) -> list[Path]:
    """Findings and reports that still say what a forgotten request was about: they were not stripped when they were made."""
    from letheon.core.findings import Findings

    files = []
    for generation in desk.generations():
        folder = desk.run_folder(generation)
        if folder is not None and id_ in generation.requests and Findings.load(folder / "findings.json").leftovers:
            files += [folder / "findings.json", folder / "report.html"]
    return files
