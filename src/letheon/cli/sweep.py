"""`letheon sweep`: methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Force, Json, Quiet, Sets, print_json, print_rich, quiet_if


def sweep(
    file: Annotated[Path, typer.Argument(help="TOML file, see the folder `recipes/sweeps`.")],
    set_: Sets = None,
    ray: Annotated[str | None, typer.Option("--ray", metavar="ADDRESS", help="Ray cluster for the cells: auto, local, HOST:PORT.")] = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare methods, settings and seeds.

    Tunes each method with the same number of trials on rows that stay (`trials` in the file), then runs every cell and sets all of them
    side by side. Models named under `[audits]` are audited as they are. Given again after an interruption, it goes on.
    `--set trials=4` changes a key of the file.
    """
    quiet_if(quiet)
    from letheon.flow.grid import read
    from letheon.flow.sweep import swept
    from letheon.report import sweep as page

    plan = read(file, set_ or ())
    results = swept(plan, force=force, progress=not quiet, ray=ray)
    if as_json:
        print_json(results)
        return
    print_rich(page.compared(results).table)
    typer.echo(Path(plan.out) / "sweep.html")
