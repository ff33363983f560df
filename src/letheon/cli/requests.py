"""`letheon requests`: the ledger of deletion requests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _requests_text as texts
from . import _requests_work as work
from ._requests_work import DeskFolder
from .options import Json, print_json, print_rich

if TYPE_CHECKING:
    from letheon.ledger.records import Request

app = typer.Typer(no_args_is_help=True, help="Keep a ledger of deletion requests, fulfil them and prove it.")


@app.callback()
def options() -> None:
    """Keep a ledger of deletion requests, fulfil them and prove it."""


@app.command()
def init(
    model: Annotated[Path, typer.Argument(help="Folder of the model that is in use; it is never changed.")],
    corpus: Annotated[list[str], typer.Option(metavar="NAME=FILE", help="Rows that the model was trained on; may be given again.")],
    holdout: Annotated[Path | None, typer.Option(help="Rows of the same kind that it was not trained on, for the audits.")] = None,
    field: Annotated[list[str] | None, typer.Option(metavar="FIELD=NAME", help="What the files call a field, as in `files`.")] = None,
    desk: DeskFolder = Path("desk"),
    as_json: Json = False,
) -> None:
    """Make a desk for a model and the files it was trained on.

    The ledger, the secret salts, the models to come and their evidence lie in the folder of the desk. Back it up; keep `salts.json` and
    `keys` away from those who get a copy of the ledger.
    """
    from letheon.ledger.desk import Desk

    files = {name: Path(path) for name, path in _pairs(corpus, "--corpus", "people=people.jsonl").items()}
    if holdout is not None:
        files["holdout"] = holdout
    made = Desk.create(desk, model, files, fields=_fields(field))
    first, found = made.current(), made.corpora()
    if as_json:
        print_json({"desk": str(desk), "model": first.model_dump(mode="json"), "corpora": [one.model_dump(mode="json") for one in found]})
        return
    rows = ", ".join(f"{one.rows:,} rows in `{one.name}`" for one in found)
    typer.echo(f"{desk}: model {first.digest[:12]}, {rows}")


@app.command()
def add(
    who: Annotated[str, typer.Option(help="Reference of the one who asks, such as a case number; only a keyed digest is kept.")],
    entity: Annotated[str | None, typer.Option(help="Name of the person or thing to forget.")] = None,
    query: Annotated[str | None, typer.Option(help="Rows of a corpus: `field=value` or `contains=text`.")] = None,
    rows: Annotated[Path | None, typer.Option(help="File of rows to forget; it is read again when they are located.")] = None,
    row: Annotated[list[str] | None, typer.Option(metavar="JSON", help="A row with prompt and answer; may be given again.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Look in this corpus only.")] = None,
    reason: Annotated[str, typer.Option(help="gdpr-17, takedown, safety, contract or other.")] = "gdpr-17",
    due: Annotated[str | None, typer.Option(metavar="DATE", help="By when, such as 2027-01-31; default: a month from now.")] = None,
    note: Annotated[str | None, typer.Option(help="A remark; write no personal data.")] = None,
    desk: DeskFolder = Path("desk"),
    as_json: Json = False,
) -> None:
    """Write down a request: rows, a file of rows, a query or a name."""
    from letheon.core.settings import parse_settings
    from letheon.ledger.desk import Desk
    from letheon.ledger.records import What

    given = {"rows": [texts.json_row(text) for text in row or ()], "file": None if rows is None else str(texts.existing(rows))}
    what = parse_settings(What, {**given, "query": query, "entity": entity, "corpus": corpus}, "letheon requests add")
    texts.check_rows(what)
    request = Desk.open(desk).add(what, who, reason, texts.moment(due), note)
    if as_json:
        print_json(_plain(request))
    else:
        typer.echo(f"{request.id}: due {request.due:%Y-%m-%d}")


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="received, located, erased, audited or refused.")] = None,
    due: Annotated[int | None, typer.Option(metavar="DAYS", help="Only what is open and due within so many days", min=0, max=9999)] = None,
    desk: DeskFolder = Path("desk"),
    as_json: Json = False,
) -> None:
    """List requests, and what the audit said of those that are erased; those past their time are marked."""
    from datetime import timedelta

    from letheon.core.errors import SettingsError, did_you_mean
    from letheon.ledger.desk import Desk
    from letheon.ledger.records import State, utc

    if state is not None and state not in list(State):
        raise SettingsError(f"There is no state `{state}`", did_you_mean(state, [str(one) for one in State]))
    opened = Desk.open(desk)
    found, verdicts = opened.all(state), opened.verdicts()
    if due is not None:
        found = [one for one in found if one.overdue(one.due + timedelta(seconds=1)) and one.due <= utc() + timedelta(days=due)]
    if as_json:
        print_json([_plain(request) | {"verdict": verdicts.get(request.id)} for request in found])
        return
    if not found:
        typer.echo("No requests")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("request", "state", "reason", "received", "due", "verdict"):
        table.add_column(name, no_wrap=name != "verdict")
    for one in found:
        late = " OVERDUE" if one.overdue() else ""
        dates = f"{one.received:%Y-%m-%d}", f"{one.due:%Y-%m-%d}{late}"
        table.add_row(one.id, str(one.state), one.reason, *dates, verdicts.get(one.id) or "")
    print_rich(table)


@app.command()
def show(
    request: Annotated[str, typer.Argument(metavar="ID", help="A request.")],
    desk: DeskFolder = Path("desk"),
    as_json: Json = False,
) -> None:
    """Show a request: its state, its history, the rows found for it, its evidence."""
    from letheon.ledger.desk import Desk

    opened = Desk.open(desk)
    found, events, hits, evidence = opened.get(request), opened.history(request), opened.hits(request), opened.evidence(request)
    if as_json:
        told = {"history": [one.model_dump(mode="json") for one in events], "hits": [one.model_dump(mode="json") for one in hits]}
        print_json({**_plain(found), **told, "evidence": None if evidence is None else str(evidence)})
        return
    late = " OVERDUE" if found.overdue() else ""
    typer.echo(f"{found.id}: {found.state}, {found.reason}, due {found.due:%Y-%m-%d}{late}")
    asked = "forgotten" if found.what is None else ", ".join(f"{key} {value}" for key, value in _asked(found).items())
    typer.echo(f"asks for: {asked}")
    for event in events:
        facts = ", ".join(f"{key} {value}" for key, value in event.facts.items() if key not in ("who", "what"))
        typer.echo(f"{event.at:%Y-%m-%d %H:%M}  {event.kind}{f': {facts}' if facts else ''}")
    for hit in hits:
        kept = " (stays)" if hit.keep else ""
        typer.echo(f"  {hit.how} {hit.score:.2f}  {hit.corpus}/{hit.row}{kept}  {' '.join(hit.text.split())[:80]}")
    typer.echo(f"evidence: {evidence or 'none yet'}")


@app.command()
def refuse(
    request: Annotated[str, typer.Argument(metavar="ID", help="A request.")],
    reason: Annotated[str, typer.Option(help="Why; it stays in the history for good, so write no personal data.")],
    desk: DeskFolder = Path("desk"),
    as_json: Json = False,
) -> None:
    """Refuse a request, with the reason."""
    from letheon.ledger.desk import Desk

    found = Desk.open(desk).refuse(request, reason)
    print_json(_plain(found)) if as_json else typer.echo(f"{found.id}: {found.state}")


@app.command()
def corpus(
    named: Annotated[str | None, typer.Argument(metavar="NAME=FILE", help="Rows to register, or anew; default: list them.")] = None,
    field: Annotated[list[str] | None, typer.Option(metavar="FIELD=NAME", help="What the file calls a field, as in `files`.")] = None,
    desk: DeskFolder = Path("desk"),
    as_json: Json = False,
) -> None:
    """List the registered corpora, or register one; again after its file has changed."""
    from letheon.ledger.desk import Desk

    opened = Desk.open(desk)
    for name, path in _pairs([named] if named else [], "NAME=FILE", "people=people.jsonl").items():
        opened.register(name, Path(path), _fields(field))
    holdout = opened.holdout()
    found = [*opened.corpora(), *([holdout] if holdout else [])]
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
    for one in [] if as_json else found:
        typer.echo(f"{one.name}: {one.rows:,} rows, {one.path}, sha256 {one.digest[:12]}")


@app.command()
def check(desk: DeskFolder = Path("desk"), as_json: Json = False) -> None:
    """Check that the history is whole; prints the digest of its last event, to be kept elsewhere.

    Exit code 1: something was changed, removed or put in.
    """
    from letheon.ledger.desk import Desk
    from letheon.ledger.integrity import head

    opened = Desk.open(desk)
    faults, last = opened.check(), head(opened)
    if as_json:
        print_json({"whole": not faults, "faults": faults, **last})
    for fault in [] if as_json else faults:
        typer.echo(fault)
    if not faults and not as_json:
        typer.echo(f"{last['events']} events, the last is {last['digest']}")
    if faults:
        raise typer.Exit(1)


for function in (work.locate, work.fulfil, work.verify, work.forget, texts.export):
    app.command()(function)


def _plain(request: Request) -> dict[str, Any]:
    found = request.model_dump(mode="json")
    asked = None if request.what is None else {**_asked(request), "corpus": request.what.corpus}
    return {**found, "what": asked, "overdue": request.overdue()}


def _asked(request: Request) -> dict[str, Any]:
    return {} if request.what is None else request.what.model_dump(mode="json", exclude_defaults=True, exclude={"corpus"})


def _pairs(given: list[str], option: str, example: str) -> dict[str, str]:
    from letheon.core.errors import SettingsError

    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise SettingsError(f"`{option}` takes NAME=FILE, got {text!r}", f"For example `{example}`")
        if name in found:
            raise SettingsError(f"`{option}` names `{name}` twice", "Names must differ")
        found[name] = value
    return found


def _fields(given: list[str] | None) -> dict[str, str | None]:
    """The mapping of fields, checked as the data source `files` checks it."""
    from letheon.core.settings import parse_settings
    from letheon.data.files import FilesSettings

    fields = {key: None if value == "null" else value for key, value in _pairs(given or [], "--field", "answer=reply").items()}
    return parse_settings(FilesSettings, {"fields": fields}, "files").fields
