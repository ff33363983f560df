"""`letheon requests`: what people write (rows, dates) and what is exported."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._requests_work import DeskFolder
from .options import Json

if TYPE_CHECKING:
    from letheon.ledger.desk import Desk
    from letheon.ledger.records import What


def export(
    out: Annotated[Path | None, typer.Option(help="File to write; default: stdout. `.csv`: requests only.")] = None,
    form: Annotated[str, typer.Option("--format", help="json or csv.")] = "json",
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    desk: DeskFolder = Path("desk"),
    as_json: Json = False,
) -> None:
    """Export requests and history, without any text of a request."""
    from letheon.core.errors import SettingsError
    from letheon.core.files import write_text
    from letheon.flow.output import check_file
    from letheon.ledger.desk import Desk

    form = "csv" if out is not None and out.suffix == ".csv" else form
    if form not in ("json", "csv") or (form == "csv" and as_json):
        raise SettingsError(f"`--format` must be json or csv, got {form!r}" if not as_json else "`--json` was given beside csv")
    check_file(out, "--out", force=force)
    opened = Desk.open(desk)
    text = _csv(opened) if form == "csv" else json.dumps(_exported(opened), indent=1, ensure_ascii=False) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)
        typer.echo(out)


def _exported(desk: Desk) -> dict[str, Any]:
    requests = _bare(desk)
    told = {"requests": requests, "history": [one.model_dump(mode="json") for one in desk.history()]}
    return {**told, "generations": [one.model_dump(mode="json") for one in desk.generations()]}


def _bare(desk: Desk) -> list[dict[str, Any]]:
    """All requests without their texts."""
    verdicts = desk.verdicts()
    return [
        {**one.model_dump(mode="json", exclude={"what", "note"}), "overdue": one.overdue(), "verdict": verdicts.get(one.id)}
        for one in desk.all()
    ]


def _csv(desk: Desk) -> str:
    file = io.StringIO()
    names = ("id", "state", "verdict", "reason", "received", "due", "overdue", "who")
    writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_bare(desk))
    return file.getvalue()


def json_row(text: str) -> dict[str, Any]:
    """A row from the command line.

    Raises:
        DataError: it is not a JSON object.
    """
    from letheon.core.errors import DataError

    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise DataError(f"`--row` takes a JSON object, got {text[:80]!r}", '`--row \'{"prompt": "...", "answer": "..."}\'`')
    return row


def existing(path: Path) -> Path:
    """The full path of a file that is there."""
    from letheon.core.errors import DataError

    if not path.expanduser().is_file():
        raise DataError(f"There is no file {path}", "`--rows` takes a file of rows to forget")
    return path.expanduser().resolve()


def check_rows(what: What) -> None:
    """Read the rows of a request once, so that a broken one is refused before it is written down."""
    from letheon.data.desk import given_of, rows_of

    if what.rows:
        given_of(what.rows)
    if what.file:
        rows_of("request", what.file, {})


def moment(text: str | None) -> datetime | None:
    """A date or time; a date means its end, UTC.

    Raises:
        SettingsError: it is neither.
    """
    from letheon.core.errors import SettingsError

    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"`--due` takes a date, got {text!r}", "For example 2027-01-31") from error
    if len(text) <= 10:
        at = at.replace(hour=23, minute=59, second=59)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
