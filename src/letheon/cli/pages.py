"""`letheon pages`: write the pages of a desk, of runs and of the atlas as static files."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Force, Json, print_json, say

if TYPE_CHECKING:
    from letheon.ledger.desk import Desk

DESK = Path("desk")
TOP = ("index.html", "requests.html", "requests", "models.html", "models", "runs.html", "runs", "atlas.html", "atlas", "sweeps", "feed.xml")
Paths = Annotated[list[Path] | None, typer.Option("--runs", metavar="RUN ...", help="Run folders or `findings.json` files; a pattern too.")]
More = Annotated[list[Path] | None, typer.Argument(metavar="[RUN]...", help="Further runs, as the shell expands `--runs runs/*`.")]
Results = Annotated[list[Path] | None, typer.Option(help="`results.json` of a sweep, for the atlas; may be given again.")]


def pages(
    more: More = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the pages.")] = None,
    desk: Annotated[Path | None, typer.Option(envvar="LETHEON_DESK", help="Folder of the desk; default: `desk`, if there is one.")] = None,
    runs: Paths = None,
    results: Results = None,
    text: Annotated[bool, typer.Option("--text", help="Show the text of requests until it is forgotten; the copy would keep it.")] = False,
    table: Annotated[Path | None, typer.Option(help="Instead of pages, write the table that comes with the package.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the pages as static files.

    Requests, lineage, runs side by side with their reports, and the atlas of methods with its feed. Open `index.html`.
    """
    from letheon.core.errors import RunError
    from letheon.core.files import whole_folder, write_text
    from letheon.flow import output

    if table is not None:
        from letheon.pages import collect

        output.check_file(table, "--table", force=force)
        write_text(table, collect.written(collect.collected(results or ())))
        print_json({"table": str(table)}) if as_json else typer.echo(table)
        return
    if out is None:
        raise RunError("No folder was given for the pages", "For example `letheon pages --out pages`")
    from letheon.pages import site

    chosen = _runs([*(runs or ()), *(more or ())])
    opened = _desk(desk)
    kept = [*chosen, *(results or ()), *([] if opened is None else [opened.folder])]
    output.check_folder(out, force=force, inputs=kept, parts=[*TOP, "style.css", "pages.js", "icon.svg"])
    made = site(opened, chosen, results, texts=text)
    with whole_folder(out, replace=True) as work:
        for path, content in made.items():
            place = work / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content())
    if as_json:
        print_json({"out": str(out), "pages": sorted(made)})
        return
    typer.echo(out / "index.html")


def _desk(folder: Path | None) -> Desk | None:
    """The desk that was named, or the one that lies here."""
    if folder is None and not (DESK / "ledger.db").is_file():
        return None
    from letheon.ledger.desk import Desk

    return Desk.open(folder or DESK)


def _runs(given: list[Path]) -> list[Path]:
    """The runs that were named. Of a pattern, or of several, those without findings are passed over.

    Raises:
        DataError: a run holds no findings, or none of several does.
    """
    from letheon.core.errors import DataError
    from letheon.core.findings import Findings

    patterns = any(glob.has_magic(str(path)) and not path.exists() for path in given)
    paths = [Path(name) for path in given for name in ([str(path)] if path.exists() else sorted(glob.glob(str(path))) or [str(path)])]
    found = []
    for path in paths:
        try:
            Findings.load(path)
        except DataError:
            if not (patterns or len(paths) > 1) or not path.exists() or (path / "findings.json").is_file():
                raise
            say("warning", f"{path} holds no findings and is left out")
            continue
        found.append(path)
    if paths and not found:
        raise DataError(f"None of {len(paths)} runs holds findings", "An audit writes them: `letheon audit`")
    return found
