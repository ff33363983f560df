"""Options that several commands share, and how they speak: data to stdout, messages to stderr."""

from __future__ import annotations

import json
import logging
import random
import shlex
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from letheon.core.settings import Choice

Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the output if letheon wrote it.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be given again.")]
Seed = Annotated[int, typer.Option(min=0, help="Every random draw derives from it.")]
DataSpec = Annotated[str | None, typer.Option("--data", metavar="SPEC", help="Data source, such as `tofu:path=DIR,forget=forget10`.")]
_ROWS = "JSONL, JSON, CSV, Parquet or text."
Forget = Annotated[str | None, typer.Option(help=f"File of rows to forget: {_ROWS}")]
Retain = Annotated[str | None, typer.Option(help=f"File of rows to keep: {_ROWS}")]
Holdout = Annotated[str | None, typer.Option(help=f"Rows of the same kind that no model was trained on, for membership attacks: {_ROWS}")]
Template = Annotated[str | None, typer.Option(help="How a prompt is written, with `{prompt}`; default: the chat template, if any.")]
Window = Annotated[int | None, typer.Option(min=4, help="Cut rows of plain text into pieces of this many tokens.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
DType = Annotated[str, typer.Option(help="Number format of training: auto, float32, bfloat16, float16.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr; warnings stay.")]
Pickle = Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights, which can run any code when loaded.")]
Remote = Annotated[bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")]

ARGUMENTS: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())


def command() -> str:
    """The command line as it was given, for the report."""
    return shlex.join(["letheon", *ARGUMENTS.get()])


def say(kind: str, message: str) -> None:
    """One line on stderr: `error: ...`. Text is never read as markup, line breaks become spaces."""
    from rich.console import Console
    from rich.text import Text

    style = {"error": "bold red", "warning": "bold yellow"}.get(kind, "dim")
    Console(stderr=True, soft_wrap=True).print(Text.assemble((kind, style), f": {' '.join(message.split())}"))


class Messages(logging.Handler):
    """The library's messages, one line each on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        drawn = random.getstate()  # rich draws from the global generator for its styles
        say("note" if record.levelno < logging.WARNING else record.levelname.lower(), record.getMessage())
        random.setstate(drawn)


def quiet_if(quiet: bool) -> None:
    """Show warnings only, or notes too."""
    logging.getLogger("letheon").setLevel(logging.WARNING if quiet else logging.INFO)


def print_json(value: Any) -> None:
    """Data on stdout as JSON."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def print_rich(value: Any) -> None:
    """A rich table on stdout: without colour where there is no terminal or `NO_COLOR` is set."""
    from rich.console import Console

    Console().print(value)


def spec(text: str, option: str, example: str) -> Choice:
    """A plug-in with settings from an option such as `tofu:path=DIR`.

    Raises:
        SettingsError: a part has no `=`.
    """
    from letheon.core.errors import SettingsError
    from letheon.core.settings import Choice, parse_spec

    try:
        return Choice(**parse_spec(text))
    except ValueError as error:  # pydantic's error is one too
        raise SettingsError(f"`{option}`: {str(error).splitlines()[0]}", f"For example `{option} {example}`") from error


def data_choice(data: str | None, forget: str | None, retain: str | None, holdout: str | None = None) -> Choice:
    """The data source that the options name.

    Raises:
        DataError: neither files nor a source were given, or both.
    """
    from letheon.core.errors import DataError
    from letheon.core.settings import Choice

    files = {"forget": forget, "retain": retain, "holdout": holdout}
    given = {key: value for key, value in files.items() if value is not None}
    if data is not None and given:
        named = " and ".join(f"`--{key}`" for key in given)
        raise DataError(f"`--data` was given beside {named}", "Give a source or files of rows, not both")
    if data is None and not given:
        raise DataError("No data was given", "Give `--forget rows.jsonl --retain rows.jsonl`, or `--data SOURCE`")
    return Choice(name="files", **given) if data is None else spec(data, "--data", "tofu:path=DIR,forget=forget10")


def model_choice(path: str, template: str | None, allow_pickle: bool, trust_remote_code: bool) -> Choice:
    """The `hf` subject of a path, with the flags that were given."""
    from letheon.core.settings import Choice

    flags = {"template": template, "allow_pickle": allow_pickle or None, "trust_remote_code": trust_remote_code or None}
    return Choice(name="hf", path=path, **{key: value for key, value in flags.items() if value is not None})


def run_labels(paths: Sequence[Path]) -> list[str]:
    """A short name for each run: its folder, or the whole path where two folders have the same name."""
    folders = [path.parent if path.name == "findings.json" else path for path in paths]
    names = [folder.resolve().name.removesuffix(".json") for folder in folders]
    return [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]
