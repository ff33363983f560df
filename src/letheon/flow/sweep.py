"""Sweeps: methods x settings x seeds, each cell a run folder, a table and a page at the end.

Cells run in local processes through joblib, or as Ray tasks (`cluster.py`). A cell that is done is never run again; what was interrupted
goes on when the same command is given again.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.core.errors import DataError, LetheonError, MethodError, RunError
from letheon.core.settings import Choice

from . import lock, output
from .grid import ANEW, Axes, Cell, Sweep, axes, cells, recipe
from .inputs import check_same, with_models

if TYPE_CHECKING:
    from letheon.core.subject import Step

    from .cluster import Each

log = logging.getLogger("letheon")
MADE = ("original", "retrained", "cells", "trials", "results.json", "table.md", "sweep.html", "front.svg", "tuning.json", lock.NAME)


def swept(plan: Sweep, *, force: bool = False, progress: bool = True, ray: str | None = None) -> dict[str, Any]:
    """Run a sweep and write `results.json`, `table.md`, `sweep.html` and `front.svg` into its folder.

    Args:
        ray: address of the Ray cluster that cells run on (see `cluster.joined`); None runs them in local processes.

    Raises:
        LetheonError: the file, a method or a setting is wrong, before anything is run.
        RunError: a worker was killed, the folder holds something else, or cells and trials in it are of other rows or models.
    """
    out = Path(plan.out)
    methods = axes(plan)
    _checked(plan, methods)
    _check_folder(out)
    with lock.alone(out, out):
        output.sweep_up(out)
        if force:
            output.empty(out)
        if ray is None:
            return _all(plan, methods, out, progress, functools.partial(_locally, plan))
        from .cluster import joined

        with joined(ray, plan) as each:
            return _all(plan, methods, out, progress, each)


def _all(plan: Sweep, methods: list[Axes], out: Path, progress: bool, each: Each) -> dict[str, Any]:
    """Every cell, and the table and page at the end."""
    from letheon.core.files import write_text
    from letheon.core.learned import taught_otherwise
    from letheon.report import sweep as page

    from . import stages

    data = functools.cache(lambda: stages.load_data(recipe(plan, {"name": "none"}, 0, out).data))
    plan = with_models(plan, data, progress=progress)
    retraining = _retraining(plan)
    with _quiet():
        check_same(plan, methods, data)
        strange = taught_otherwise(retraining, data()) if retraining else None
    if strange is not None:
        log.warning("%s", strange)
    chosen, tuning = _chosen(plan, methods, each, progress=progress)
    jobs = cells(plan, chosen)
    found = _each(each, _cell, [(cell, plan.models) for cell in jobs], "cells", progress, unfit=(DataError,))
    if all(isinstance(result, DataError) for result in found):
        raise found[0]
    found = [{"failed": str(result)} if isinstance(result, DataError) else result for result in found]  # no data for this method
    rows = [
        {"row": cell.row, "seed": cell.seed, "method": cell.what, "folder": str(cell.folder), **result}
        | ({} if cell.judged is None else {"judged": True})
        for cell, result in zip(jobs, found, strict=True)
    ]
    results = {"out": str(out), "seeds": list(plan.seeds), "columns": list(plan.columns), "tuning": tuning, "cells": rows}
    spent = [step.notes.get("processor_seconds") for step in retraining]
    results["retrain_processor_seconds"] = sum(spent) if spent and all(isinstance(each, int | float) for each in spent) else None
    results["anchors"] = next((row.pop("anchors") for row in rows if "anchors" in row), {})
    for row in rows:
        row.pop("anchors", None)
    write_text(out / "results.json", json.dumps(results, indent=1) + "\n")
    comparison = page.compared(results)
    write_text(out / "table.md", comparison.markdown)
    write_text(out / "sweep.html", comparison.html)
    if comparison.drawing:
        write_text(out / "front.svg", comparison.svg)
    return results


def _checked(plan: Sweep, methods: list[Axes]) -> None:
    """Every method with each of its listed values once, the data source and the audit, before anything is run."""
    from letheon.core import registry

    from . import stages

    known = recipe(plan, {"name": "none"}, 0, Path(plan.out))
    if known.audit is None:
        raise MethodError("A sweep compares audits, and its base has none", 'For example `audit = "tofu"` under [base]')
    registry.make(known.audit, "audit")
    registry.find(known.data.name, "data")
    for model in plan.audits.values():
        registry.find(model.name, "subjects")
    for one in methods:
        for key, values in one.free.items():
            for value in values if isinstance(values, tuple) else (values.low, values.high):
                stages.make_change(Choice(**{**one.fixed, key: value}))
        stages.make_change(Choice(**one.fixed))


def _check_folder(out: Path) -> None:
    """Refuse what is neither an empty folder nor one that a sweep has left."""
    output.check_name(out)
    if not out.exists():
        return
    if not out.is_dir():
        raise RunError(f"{out} is a file, and the output of a sweep is a folder", "Choose another `out`")
    pieces = set(output.pieces(out))
    strange = [path.name for path in out.iterdir() if path.name.removesuffix(".run") not in MADE and path not in pieces]
    if strange:
        raise RunError(f"{out} holds things that a sweep did not write, first `{strange[0]}`", "Choose another `out`")


def _retraining(plan: Sweep) -> Sequence[Step]:
    """How the retrained model was made, where its folder says so."""
    from letheon.subjects._fit import notes_of

    choice = recipe(plan, {"name": "none"}, 0, Path(plan.out)).retrained
    folder = Path(str(choice.settings.get("path"))) if choice is not None else None
    return notes_of(folder)[1] if folder is not None and folder.is_dir() else ()


def _chosen(plan: Sweep, methods: list[Axes], each: Each, *, progress: bool) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """The values of each method: all combinations, or those of the best trial."""
    if not plan.trials:
        return {one.label: list(one.combinations()) for one in methods}, {}
    free = [one for one in methods if one.free]
    done = _each(each, _trials, [(plan, one) for one in free], "methods tuned", progress)
    tuning = {one.label: trials for one, trials in zip(free, done, strict=True)}
    for label, trials in tuning.items():
        if not any(trial["score"] for trial in trials):
            log.warning("No trial of `%s` scored above 0: widen its space", label)
    best = {label: [max(trials, key=lambda t: t["score"])["values"]] for label, trials in tuning.items()}
    return {one.label: best.get(one.label, [{}]) for one in methods}, tuning


def _each(
    each: Each, function: Callable[..., Any], jobs: list[tuple[Any, ...]], what: str, progress: bool, unfit: tuple[type, ...] = ()
) -> list[Any]:
    """`function(*job)` for every job, in order, with a bar; an error that one gives back ends all, unless it is of the kind `unfit`."""
    from rich.console import Console
    from rich.progress import track

    found = []
    with contextlib.closing(each(function, jobs)) as results:
        for one in track(results, what, len(jobs), console=Console(stderr=True), disable=not progress):
            if isinstance(one, LetheonError) and not isinstance(one, unfit):
                raise one
            found.append(one)
    return found


def _locally(plan: Sweep, function: Callable[..., Any], jobs: list[tuple[Any, ...]]) -> Generator[Any]:
    """As `cluster.Each`, in processes of this machine, `workers` of them at once."""
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    call = delayed(functools.partial(_threaded, plan.cpus, function))
    try:
        yield from Parallel(n_jobs=plan.workers, return_as="generator", batch_size=1)(call(*job) for job in jobs)
    except TerminatedWorkerError as error:
        hint = "Memory may have run out: lower `workers`, and give the command again to go on"
        raise RunError("A process of the sweep was killed", hint) from error


def _threaded(threads: int | None, function: Callable[..., Any], *job: Any) -> Any:
    """`function(*job)` with so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        return function(*job)
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing but errors while a worker works."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _trials(plan: Sweep, one: Axes) -> Any:
    """All trials of one method; a fault of the user's is given back, since a worker can raise only what can be pickled."""
    from .trials import tuned

    with _quiet():
        try:
            return tuned(plan, one)
        except LetheonError as error:
            return error


def _cell(cell: Cell, keep_model: bool) -> Any:
    """Run one cell, or read it where it is done: values, cost, and what the anchors say. One that fails says why and stops no other."""
    with _quiet():
        try:
            findings = _findings(cell)
        except MethodError as error:
            return {"failed": str(error)}
        except LetheonError as error:
            return error
    if not keep_model:
        shutil.rmtree(cell.folder / "model", ignore_errors=True)
    values = {label: {f"{f.split}/{f.name}": f.value for f in found} for label, found in findings.models.items()}
    anchors = {label: said for label, said in values.items() if label != "after"}
    return {"values": values["after"], "cost": findings.context.get("cost", {}), "anchors": anchors}


def _findings(cell: Cell) -> Any:
    """The findings of a cell: those that are there, or those of a run, which goes on where an earlier one was stopped.

    Raises:
        RunError: the folder holds a cell with other settings.
    """
    from letheon.core.findings import Findings

    from . import stages

    if (cell.folder / "findings.json").is_file():
        findings = Findings.load(cell.folder)
        if any(findings.context.get(key) != value for key, value in _about(cell).items()):
            raise RunError(f"{cell.folder} is a cell of another sweep", ANEW)
        shutil.rmtree(output.work_folder(cell.folder), ignore_errors=True)  # there is one if the process was killed at the very end
        return findings
    if cell.judged is not None:
        return _judged(cell, cell.judged)
    work = output.work_folder(cell.folder)
    stopped = work.is_dir()
    begun = stopped and output.saved(work)
    return stages.execute(cell.recipe, resume=begun, force=stopped and not begun, progress=False)[1]


def _about(cell: Cell) -> dict[str, Any]:
    """What the findings of a cell say of how they were made."""
    made = {"recipe": cell.recipe.model_dump(mode="json")}
    return made if cell.judged is None else {**made, "judged": cell.judged.model_dump(mode="json")}


def _judged(cell: Cell, model: Choice) -> Any:
    """Audit a model as it is, beside the original and the retrained one: a folder with findings and report."""
    from letheon import api
    from letheon.core.files import whole_folder

    from . import stages

    recipe = cell.recipe
    with output.claimed(cell.folder, force=True), whole_folder(cell.folder, replace=True) as work:
        data, run = stages.load_data(recipe.data), stages.make_run(recipe, None, progress=False)
        choices = {"before": recipe.subject, "after": model, "retrained": recipe.retrained}
        models = {label: stages.make_subject(choice, data, run) for label, choice in choices.items() if choice is not None}
        rows = stages.windowed(data, models["after"], recipe.window)
        findings = stages.audited(recipe.audit or Choice(name="tofu"), models, rows, run, _about(cell))
        findings.save(work / "findings.json")
        api.report(findings).save(work / "report.html")
    return findings
