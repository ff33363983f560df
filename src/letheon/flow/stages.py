"""What the commands do: load, change, audit, save. Each is whole or leaves nothing behind."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.core import processes, registry
from letheon.core.data import Data
from letheon.core.errors import DataError, MethodError, SubjectError
from letheon.core.settings import Choice

from . import output
from .recipe import Recipe
from .selection import Selection

if TYPE_CHECKING:
    from letheon.core.findings import Findings
    from letheon.core.method import Change
    from letheon.core.run import Run
    from letheon.core.subject import Subject

log = logging.getLogger("letheon")
_WORDS = {"forget": "forget", "retain": "keep", "holdout": "compare with"}


def cache_folder() -> Path:
    """Where readings are kept between commands: `$LETHEON_CACHE`, or `letheon` in the user's cache folder."""
    base = os.environ.get("LETHEON_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "letheon"
    return Path(base)


def make_run(recipe: Recipe, out: Path | None, *, resume: bool = False, progress: bool = True) -> Run:
    """The run of a recipe, with its metrics and checkpoints in `out`."""
    from letheon.core.run import Run

    return Run(
        recipe.seed,
        out,
        device=recipe.device,
        dtype=recipe.dtype,
        cache=cache_folder(),
        resume=resume,
        trackers=recipe.trackers,
        progress=progress,
        checkpoint_every=recipe.checkpoint_every,
    )


def load_data(choice: Choice) -> Data:
    """Read the data and say what a person should know about it."""
    data = registry.make(choice, "data").load()
    for warning in data.warnings:
        log.warning("%s", warning)
    shown = [name for name in ("forget", "retain", "holdout") if name in data] or list(data)[:3]
    more = f", and {len(data) - len(shown)} more splits" if len(data) > len(shown) else ""
    log.info("data %s: %s%s", data.name, ", ".join(f"{len(data[name]):,} rows to {_WORDS.get(name, name)}" for name in shown), more)
    return data


def make_subject(choice: Choice, data: Data, run: Run) -> Subject:
    """Load or train a model."""
    subject = registry.make(choice, "subjects").build(data, run)
    steps = ", ".join(step.method for step in subject.lineage) or "nothing that letheon knows of"
    log.info("model %s: %s parameters, before now %s", subject.name, f"{sum(p.numel() for p in subject.module.parameters()):,}", steps)
    return subject


def make_change(choice: Choice) -> Change:
    """The method of a recipe.

    Raises:
        MethodError: there is none of that name, or it does not change a model.
        SettingsError: a setting is unknown or out of bounds.
    """
    from letheon.core.method import Change

    plugin = registry.find(choice.name)
    if not issubclass(registry.load(plugin.name, plugin.role), Change):
        what = f"`{choice.name}` is {registry.called(plugin.role)} and does not change a model"
        raise MethodError(what, "`letheon methods erase` lists those that do")
    return registry.make(choice, plugin.role)


def check_kept(method: Change, data: Data) -> None:
    """Say before a model is loaded that rows to keep are missing, and how to go without."""
    term = getattr(method, "retain", None)
    if term is not None and "retain" in term.splits and "retain" not in data:
        hint = "Give `--retain ROWS`, or `--set retain=none` to go without"
        raise DataError(f"`{method.name()}` needs rows to keep (`retain`) and was given none", hint)


def windowed(data: Data, subject: Subject, window: int | None) -> Data:
    """Cut plain text into windows where that was asked for."""
    if window is None:
        return data
    for name, split in data.items():
        data = data.with_split(name, subject.encoder.windowed(split, window))
    return data


def audited(choice: Choice, models: Mapping[str, Subject | None], data: Data, run: Run, context: dict[str, Any]) -> Findings:
    """Audit models side by side. All must read text in the same way, or their numbers cannot be compared."""
    from letheon import api

    first = models["after"]
    if first is None:
        raise SubjectError("There is no model to audit")
    for label, model in models.items():
        if model is None:
            continue
        model.to(run.device)
        if model.encoder.digest != first.encoder.digest:
            log.warning("The %s model has another tokenizer, template or context than the audited one: compare with care", label)
    suite = registry.make(choice, "audit")
    with _waiting(f"audit `{choice.name}` of {len(models)} models", run.progress):
        return api.audit(suite, first, data, run, before=models.get("before"), retrained=models.get("retrained"), context=context)


@contextlib.contextmanager
def _waiting(what: str, shown: bool) -> Iterator[None]:
    """A sign of life on stderr where there is a terminal."""
    from rich.console import Console

    if not shown:
        yield
        return
    with Console(stderr=True).status(what):
        yield


@contextlib.contextmanager
def _claimed(recipe: Recipe, *, force: bool, resume: bool) -> Iterator[tuple[Path, bool]]:
    """The output folder, ours inside the block, and whether it is to be replaced, once all that is cheap to check has been checked."""
    out = Path(recipe.out)
    models = [Path(str(c.settings["path"])) for c in (recipe.subject, recipe.retrained) if c is not None and "path" in c.settings]
    inputs = [Path(str(value)) for value in recipe.data.settings.values() if isinstance(value, str)]
    existing = [[path for path in paths if os.path.exists(path)] for paths in (models, inputs)]
    check = functools.partial(output.check_folder, out, force=force, models=existing[0], inputs=existing[1])
    parts = ((recipe.subject, "subjects"), (recipe.data, "data"), (recipe.method, None), (recipe.select, "select"), (recipe.audit, "audit"))
    processes.join(cpu=recipe.device == "cpu")
    with contextlib.ExitStack() as held:
        with processes.agreed() as here:
            here.value = processes.first() and check()
            for choice, role in parts:
                if choice is not None:
                    registry.find(choice.name, role)
            if processes.first():
                held.enter_context(output.claimed(out, force=force, resume=resume))
                here.value = check()  # again: the process that was here before may have put something there
        yield out, here.all[0]


def _working(out: Path, *, resume: bool) -> contextlib.AbstractContextManager[Path]:
    """The folder to work in; the first of several processes keeps it, and they all know of it."""
    return output.working(out, resume=resume) if processes.first() else contextlib.nullcontext(output.work_folder(out))


def erased(recipe: Recipe, *, force: bool = False, resume: bool = False, progress: bool = True) -> tuple[Path, Subject]:
    """Change a model and save it as an ordinary Hugging Face folder, with `metrics.jsonl` beside the weights."""
    with _claimed(recipe, force=force, resume=resume) as (out, replace):
        return out, _erased(recipe, out, replace, resume, progress)


def _erased(recipe: Recipe, out: Path, replace: bool, resume: bool, progress: bool) -> Subject:
    data, method, selection = load_data(recipe.data), make_change(recipe.method), Selection(recipe.select)
    check_kept(method, data)
    before = make_subject(recipe.subject, data, make_run(recipe, None, progress=progress))
    with _working(out, resume=resume) as work:
        run = make_run(recipe, work, resume=resume, progress=progress)
        try:
            given = selection.given(windowed(data, before, recipe.window), before, run)
            before.disposable = True  # nothing else needs it: the change may take the weights over
            after = selection.noted(method.apply(before, given, run))
        finally:
            run.close()
        if not processes.first():
            return after
        after.save(work / "model", replace=True)
        learned = registry.find(recipe.method.name).role == "adapt"
        kept_beside(work, work / "model", "metrics.jsonl", *(["order.jsonl"] if learned else []))
        output.place(work / "model", out, replace=replace)
    return after


def kept_beside(work: Path, model: Path, *names: str) -> None:
    """Put what a training wrote about itself beside the weights.

    The order of training (digests of its rows) is no part of an erased model: it would tell who holds a row that the row was forgotten.
    """
    for name in names:
        if (work / name).is_file():
            shutil.copyfile(work / name, model / name)


def execute(
    recipe: Recipe, *, force: bool = False, resume: bool = False, progress: bool = True, command: str = ""
) -> tuple[Path, Findings | None]:
    """A whole recipe: `out/model` and `out/metrics.jsonl`, and with an audit `out/findings.json` and `out/report.html`."""
    with _claimed(recipe, force=force, resume=resume) as (out, replace):
        return out, _executed(recipe, out, replace, resume, progress, command)


def _executed(recipe: Recipe, out: Path, replace: bool, resume: bool, progress: bool, command: str) -> Findings | None:
    from letheon import api
    from letheon.core import crew

    data, method, selection = load_data(recipe.data), make_change(recipe.method), Selection(recipe.select)
    check_kept(method, data)
    if recipe.audit is not None:
        registry.make(recipe.audit, "audit")  # a wrong setting shows now, not after the training
    findings = None
    with _working(out, resume=resume) as work:
        run = make_run(recipe, work, resume=resume, progress=progress)
        try:
            before = make_subject(recipe.subject, data, _stage(run, "subject"))
            began = time.perf_counter(), time.process_time()
            given = selection.given(windowed(data, before, recipe.window), before, run)
            after = selection.noted(method.apply(before, given, run))
            cost = {"seconds": time.perf_counter() - began[0], "processor_seconds": time.process_time() - began[1]}
        finally:
            run.close()
        retrained = make_subject(recipe.retrained, data, _stage(run, "retrained")) if recipe.retrained and recipe.audit else None
        if processes.first():
            after.save(work / "model", replace=True)
        if recipe.audit is not None:
            context = {"command": command, "recipe": recipe.model_dump(mode="json")}
            if not resume:  # the clocks have seen only what was done since
                context["cost"] = {clock: round(seconds, 2) for clock, seconds in cost.items()}
            models = {"before": before, "after": after, "retrained": retrained}
            with crew.together(models, run) as leads:
                if leads:
                    findings = audited(recipe.audit, models, selection.seen(windowed(data, after, recipe.window)), run, context)
        if not processes.first():
            return None
        if findings is not None:
            findings.save(work / "findings.json")
            api.report(findings).save(work / "report.html")
        output.place(work, out, replace=replace)
    return findings


def _stage(run: Run, name: str) -> Run:
    """A run for one stage, with metrics and checkpoints of its own below the run's folder."""
    from letheon.core.run import Run

    out = None if run.out is None else run.out / name
    return Run(
        run.seed, out, device=str(run.device), dtype=run.dtype, cache=run.cache, resume=run.resume, progress=run.progress,
        checkpoint_every=run.checkpoint_every,
    )  # fmt: skip
