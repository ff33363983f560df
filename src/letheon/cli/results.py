"""Commands that measure and show: audit, report, compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    DataSpec,
    Device,
    Force,
    Forget,
    Holdout,
    Json,
    Pickle,
    Quiet,
    Remote,
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
    run_labels,
    spec,
)  # fmt: skip

if TYPE_CHECKING:
    from letheon.core.findings import Findings


def audit(
    model: Annotated[str | None, typer.Argument(help="Hugging Face folder or hub name of the model to audit.")] = None,
    before: Annotated[str | None, typer.Option(help="The model before the change.")] = None,
    retrained: Annotated[str | None, typer.Option(help="The model that never saw the forget rows.")] = None,
    suite: Annotated[str, typer.Option(help="Audit to run, such as `general` or `tofu:limit=100`.")] = "general",
    forget: Forget = None,
    retain: Retain = None,
    holdout: Holdout = None,
    data: DataSpec = None,
    set_: Sets = None,
    quick: Annotated[bool, typer.Option("--quick", help="Look only, at 100 rows a split: seconds.")] = False,
    full: Annotated[bool, typer.Option("--full", help="All rows and all attacks: minutes.")] = False,
    self_test: Annotated[bool, typer.Option("--self-test", help="Audit the audit: models whose truth is known; takes no MODEL.")] = False,
    out: Annotated[Path | None, typer.Option(help="File for the findings (JSON).")] = None,
    report: Annotated[Path | None, typer.Option(help="File for the report (one HTML page).")] = None,
    seed: Seed = 0,
    template: Template = None,
    window: Window = None,
    device: Device = "auto",
    cache: Annotated[bool, typer.Option(help="Keep readings on disk for the next audit of the same model and rows.")] = True,
    force: Force = False,
    quiet: Quiet = False,
    allow_pickle: Pickle = False,
    trust_remote_code: Remote = False,
    as_json: Json = False,
) -> None:
    """Measure what a model still knows.

    The model before the change and the exact retrain, where given, are measured beside it. What cannot be measured says why.
    `letheon show audit/SUITE` lists the settings that `--set` changes.
    """
    quiet_if(quiet)
    if self_test and model is None:
        from .selftest import shown

        shown(set_ or (), out, as_json=as_json, progress=not quiet, force=force)
        return
    if model is None or self_test:
        raise typer.BadParameter("`--self-test` takes no MODEL" if self_test else "Give the MODEL to audit, or `--self-test`")
    from letheon.audit._suite import at_level
    from letheon.core.errors import RunError
    from letheon.core.run import Run
    from letheon.core.settings import Choice, parse_settings
    from letheon.flow import output, stages
    from letheon.flow.recipe import merged

    output.check_file(out, "--out", force=force)
    output.check_file(report, "--report", force=force)
    if out is not None and report is not None and out.resolve() == report.resolve():
        raise RunError(f"`--out` and `--report` are both {out}", "Give two files")
    asked = spec(suite, "--suite", "tofu:limit=100")
    chosen = parse_settings(Choice, merged(asked.model_dump(), set_ or ()), "letheon audit")
    source = data_choice(data, forget, retain, holdout)
    if quick and full:
        raise RunError("`--quick` and `--full` are both given", "Give one of them, or neither")
    chosen = at_level(chosen, "quick" if quick else "full" if full else None)
    stages.registry.make(chosen, "audit")  # a wrong setting shows before anything is read
    rows = stages.load_data(source)
    run = Run(seed, device=device, cache=stages.cache_folder() if cache else None, progress=not quiet)
    paths = {label: path for label, path in (("before", before), ("after", model), ("retrained", retrained)) if path is not None}
    flags = template, allow_pickle, trust_remote_code
    models = {label: stages.make_subject(model_choice(path, *flags), rows, run) for label, path in paths.items()}
    rows = stages.windowed(rows, models["after"], window)
    findings = stages.audited(chosen, models, rows, run, {"command": command(), "models": paths})
    if out is not None:
        findings.save(out)
    _finish(findings, report, as_json, out)


def _finish(findings: Findings, page: Path | None, as_json: bool, *written: Path | None) -> None:
    """Write the page if it was asked for, print the result, and then the files that were written."""
    from letheon import api

    if page is not None:
        api.report(findings).save(page)
    show_findings(findings, as_json)
    for path in () if as_json else (*written, page):
        if path is not None:
            typer.echo(path)


def show_findings(findings: Findings, as_json: bool) -> None:
    """The verdict and the key table on stdout, or all values as JSON; rows of single examples are only in `findings.json`."""
    if as_json:
        values = findings.model_dump(mode="json", exclude={"models": {"__all__": {"__all__": {"rows"}}}})
        print_json({"verdict": _verdict(findings), **values})
        return
    from letheon.report.terminal import table

    print_rich(table(findings))


def _verdict(findings: Findings) -> dict[str, Any]:
    from letheon.report.verdict import verdict

    said = verdict(findings)
    return {"word": said.word, "text": str(said)}


def report(
    findings: Annotated[Path, typer.Argument(help="`findings.json`, or a run folder that holds one.")],
    out: Annotated[Path | None, typer.Option(help="File for the page (HTML); default: print the result only.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Print findings again, or write their HTML page."""
    from letheon.core.findings import Findings
    from letheon.flow import output

    output.check_file(out, "--out", force=force)
    _finish(Findings.load(findings), out, as_json)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders or `findings.json` files.")],
    out: Annotated[Path | None, typer.Option(help="File for the page (HTML).")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Set several runs side by side."""
    from letheon.core.files import write_text
    from letheon.core.findings import Findings, by_name
    from letheon.flow import output
    from letheon.report import compare as comparison
    from letheon.report.places import judged

    output.check_file(out, "--out", force=force)
    found = [(label, Findings.load(path)) for label, path in zip(run_labels(runs), runs, strict=True)]
    if out is not None:
        write_text(out, comparison.page(found))
    if as_json:
        rows = []
        for (label, each), path in zip(found, runs, strict=True):
            values = {key: finding.value for key, finding in by_name(each.models.get(judged(each) or "", ())).items()}
            rows.append({"run": label, "path": str(path), "audit": each.audit, "verdict": _verdict(each)["word"], "values": values})
        print_json(rows)
        return
    print_rich(comparison.table(found))
    if out is not None:
        typer.echo(out)
