"""Commands that look things up: methods, show, check, new. None of them loads a model of yours."""

from __future__ import annotations

import re
import shutil
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from .options import Json, print_json


def _width() -> int:
    """Columns of the terminal, 80 where there is none."""
    return max(40, shutil.get_terminal_size((80, 24)).columns)


def _wrapped(text: str, indent: int, first: str = "") -> str:
    """`text` in lines of the terminal's width; `first` stands in front, the other lines are indented."""
    lines = textwrap.wrap(
        text, _width(), initial_indent=first, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines) or first


def _flowed(text: str) -> str:
    """A docstring at the terminal's width: prose is flowed anew, indented lines (formulas, tables) keep their beginning."""
    out: list[str] = []
    prose: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line and not line.startswith(" "):
            prose.append(line)
            continue
        if prose:
            out.append(_wrapped(" ".join(prose), 0))
            prose = []
        indent = len(line) - len(line.lstrip())
        parts = re.split(r" {3,}", line.strip()) if len(line) > _width() else []  # a formula and what it says about its names
        out += [_wrapped(part, indent + 6, " " * (indent + 4 * (k > 0))) for k, part in enumerate(parts)] or [line]
    return "\n".join(out).strip("\n")


def methods(
    role: Annotated[str | None, typer.Argument(help="Only one role, such as `erase`, `audit` or `retain`.")] = None,
    as_json: Json = False,
) -> None:
    """List everything that can be named.

    Methods, audits, data sources, subjects and the axes of training, by role.
    """
    from letheon.core import registry

    chosen = None if role is None else registry.role_named(role)
    found = [plugin for plugin in registry.all_plugins() if chosen in (None, plugin.role)]
    if as_json:
        print_json([{"name": p.name, "role": p.role, "summary": p.summary} for p in found])
        return
    width = max((len(plugin.name) for plugin in found), default=0)
    last = None
    for plugin in found:
        if plugin.role != last:
            typer.echo(("" if last is None else "\n") + plugin.role)
            last = plugin.role
        typer.echo(_wrapped(plugin.summary, width + 4, f"  {plugin.name.ljust(width)}  "))
    if not found:
        typer.echo(f"{chosen}: nothing yet")


def show(name: Annotated[str, typer.Argument(help="Name of a method, audit, source, subject or axis.")], as_json: Json = False) -> None:
    """Show what a method does, and its settings."""
    from letheon.core import registry
    from letheon.core.fields import fields, text

    plugin = registry.find(name)
    rows = fields(registry.load(plugin.name, plugin.role).Settings)
    if as_json:
        print_json({"name": plugin.name, "role": plugin.role, "text": plugin.docstring, "settings": rows})
        return
    typer.echo(f"{plugin.name} ({registry.ROLES[plugin.role]})\n\n{_flowed(plugin.docstring)}\n\nSettings" + ("" if rows else ": none"))
    for row in rows:
        default = "must be given" if row["required"] else f"default {text(row['default'])}"
        about = "; ".join(part for part in (row["type"], default, row["bounds"]) if part)
        typer.echo(_wrapped(f"({about})", 6, f"  {row['name']}  "))
        typer.echo(_wrapped(row["description"], 6, " " * 6))


def check(name: Annotated[str, typer.Argument(help="Name of a plug-in, or path of its file.")], as_json: Json = False) -> None:
    """Check a plug-in against its contracts on toy models.

    The exit code is 1 if one of them does not hold.
    """
    from letheon.testing.contracts import check as run_contracts

    results = run_contracts(name)
    failed = [result for result in results if not result.passed]
    if as_json:
        print_json([{"contract": r.contract, "passed": r.passed, "message": r.message} for r in results])
    else:
        for result in results:
            text = result.contract + (f": {result.message}" if result.message else "")
            typer.echo(_wrapped(text, 5, "ok   " if result.passed else "FAIL "))
        typer.echo(f"{len(results) - len(failed)} of {len(results)} contracts hold")
    if failed:
        raise typer.Exit(1)


def new(
    role: Annotated[str, typer.Argument(help="Role, such as `erase`.")],
    name: Annotated[str, typer.Argument(help="Name of the new plug-in, such as `my-method`.")],
    root: Annotated[Path | None, typer.Option(help="Folder to write into; default: here, or its place in a checkout of letheon.")] = None,
    as_json: Json = False,
) -> None:
    """Write the files of a new plug-in: method, card, test."""
    from letheon.core.registry import role_named
    from letheon.testing.scaffold import write

    paths = [str(path) for path in write(role_named(role), name, root)]
    if as_json:
        print_json({"files": paths})
        return
    typer.echo("\n".join(paths))
