"""Commands that make models: demo, erase, run, micro."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    DataSpec,
    Device,
    DType,
    Force,
    Forget,
    Json,
    Pickle,
    Quiet,
    Remote,
    Resume,
    Retain,
    Seed,
    Sets,
    Template,
    Window,
    command,
    data_choice,
    model_choice,
    print_json,
    print_rich,
    quiet_if,
    spec,
)  # fmt: skip


def erase(
    model: Annotated[str, typer.Argument(help="Hugging Face folder or hub name of the model that knows.")],
    out: Annotated[Path, typer.Option(help="Folder for the changed model.")],
    method: Annotated[str, typer.Option(help="Erasing method, such as `npo` or `npo:beta=0.2`.")] = "npo",
    forget: Forget = None,
    retain: Retain = None,
    data: DataSpec = None,
    select: Annotated[str | None, typer.Option(metavar="SPEC", help="Coreset of the rows, such as `grand:fraction=0.1`.")] = None,
    set_: Sets = None,
    seed: Seed = 0,
    template: Template = None,
    window: Window = None,
    dtype: DType = "auto",
    device: Device = "auto",
    force: Force = False,
    resume: Resume = False,
    quiet: Quiet = False,
    allow_pickle: Pickle = False,
    trust_remote_code: Remote = False,
    as_json: Json = False,
) -> None:
    """Erase rows from a model.

    The model that comes in is never changed. The result is an ordinary Hugging Face folder. `letheon show METHOD` lists the settings that
    `--set` changes.
    """
    quiet_if(quiet)
    from letheon.core.errors import SettingsError
    from letheon.core.settings import parse_settings
    from letheon.flow import stages
    from letheon.flow.recipe import Recipe, merged

    values = {
        "subject": model_choice(model, template, allow_pickle, trust_remote_code).model_dump(),
        "data": data_choice(data, forget, retain).model_dump(),
        "method": spec(method, "--method", "npo:beta=0.2").model_dump(),
        "select": None if select is None else spec(select, "--select", "grand:fraction=0.1").model_dump(),
        **{"out": str(out), "seed": seed, "dtype": dtype, "device": device, "window": window},
    }
    recipe = parse_settings(Recipe, merged(values, set_ or (), inside="method"), "letheon erase")
    if recipe.audit is not None or recipe.retrained is not None:
        raise SettingsError("`letheon erase` does not audit", "Use `letheon audit` after it, or a recipe with `letheon run`")
    folder, after = stages.erased(recipe, force=force, resume=resume, progress=not quiet)
    step = after.lineage[-1]
    if as_json:
        found = {"out": str(folder), "digest": after.digest, "method": step.method, "settings": step.settings, "seed": step.seed}
        print_json({**found, "data": step.data, "before": step.before, **step.notes})
    else:
        typer.echo(f"{folder}: {step.method}, {_taken(step.notes)}, digest {after.digest[:12]}")


def _taken(notes: dict[str, Any]) -> str:
    steps, seconds = notes.get("steps"), notes.get("seconds")
    words = [] if steps is None else [f"{steps} step{'' if steps == 1 else 's'}"]
    return ", ".join(words + ([] if seconds is None else [f"{seconds} s"])) or "no training"


def run(
    recipe: Annotated[Path, typer.Argument(help="TOML file, see the folder `recipes`.")],
    set_: Sets = None,
    force: Force = False,
    resume: Resume = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a recipe: model, change, audit, report.

    `--set beta=0.2` changes a setting of the method, `--set audit.limit=100` one of another part. Until it is done, all is in `OUT.run`.
    """
    quiet_if(quiet)
    from letheon.flow import stages
    from letheon.flow.recipe import read

    from .results import show_findings

    out, findings = stages.execute(read(recipe, set_ or ()), force=force, resume=resume, progress=not quiet, command=command())
    if findings is not None:
        show_findings(findings, as_json)
    elif as_json:
        print_json({"out": str(out), "model": str(out / "model")})
    if not as_json:
        typer.echo(out / "model" if findings is None else out / "report.html")


def micro(
    out: Annotated[Path, typer.Option(help="Folder for the pair: `original` and `retrained` below it.")],
    data: DataSpec = "authors",
    set_: Sets = None,
    seed: Seed = 0,
    dtype: DType = "auto",
    device: Device = "auto",
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a small model, and the exact retrain beside it.

    The data needs the splits `full` and `kept`: the retrained model learns the same rows without those to forget, from the same start.
    `letheon show subjects/micro` lists the settings that `--set` changes.
    """
    quiet_if(quiet)
    from letheon.core.errors import SettingsError
    from letheon.core.files import whole_folder
    from letheon.core.run import Run
    from letheon.core.settings import Choice
    from letheon.flow import output, stages
    from letheon.flow.recipe import merged

    settings = merged({}, set_ or ())
    for key in ("split", "name"):
        if key in settings:
            raise SettingsError(f"`{key}` is not for `--set` here", "This command trains `micro` on `full` and on `kept`")
    source = spec(data or "authors", "--data", "tofu:path=DIR")
    inputs = [path for value in source.settings.values() if isinstance(value, str) and (path := Path(value)).exists()]
    replace = output.check_folder(out, force=force, inputs=inputs)
    stages.registry.make(Choice(name="micro", **settings), "subjects")  # a wrong setting shows before the data is read
    rows = stages.load_data(source)
    found: dict[str, Any] = {}
    with output.claimed(out), whole_folder(out, replace=replace) as work:
        for name, split in (("original", "full"), ("retrained", "kept")):
            began = time.monotonic()
            choice = Choice(name="micro", **settings, split=split)
            scratch = work / f"{name}.run"
            run = Run(seed, scratch, dtype=dtype, device=device, progress=not quiet, checkpoint_every=0)
            subject = stages.make_subject(choice, rows, run)
            run.close()
            subject.save(work / name)
            stages.kept_beside(scratch, work / name, "order.jsonl")
            shutil.rmtree(scratch)
            seconds = round(time.monotonic() - began, 1)
            found[name] = {"folder": str(out / name), "rows": len(rows[split]), "digest": subject.digest, "seconds": seconds}
    if as_json:
        print_json(found)
        return
    for made in found.values():
        typer.echo(f"{made['folder']}: {made['rows']} rows, {made['seconds']} s, digest {made['digest'][:12]}")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("runs/demo"),
    people: Annotated[int, typer.Option(min=40, max=4000, help="Invented authors in the embedded world.")] = 40,
    seed: Seed = 0,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the report in a browser at the end.")] = True,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Show it all: train, retrain, erase twice, audit, report.

    Works on the embedded world of invented authors, and replaces what an earlier demo has left in the same folder.
    """
    quiet_if(quiet)
    from .demo import show

    found = show(out, people=people, seed=seed, progress=not quiet)
    if as_json:
        print_json(found)
        return
    from letheon.core.findings import Findings
    from letheon.report import compare as comparison
    from letheon.report.terminal import table

    labelled = [(name, Findings.load(out / name)) for name in found["methods"]]
    print_rich(table(labelled[0][1]))
    typer.echo("")
    print_rich(comparison.table(labelled))
    for name in found["methods"]:
        typer.echo(out / name / "report.html")
    typer.echo(out / "compare.html")
    if open_ and sys.stdout.isatty():
        typer.launch(str(out / found["methods"][0] / "report.html"))
