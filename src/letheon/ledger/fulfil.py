"""Fulfilment: a recipe over one or many requests at once, on the newest model of the lineage.

A batch of requests leads to one new model. In order, and each step leaves something by which the next attempt knows that it is done:

    job         which requests, with which recipe, under which number          (ledger)
    model       the recipe's method on the newest model                        work/NNNN/model
    audit       the recipe's audit, and whether earlier batches stay erased     work/NNNN/findings.json
    placed      the whole folder                                               models/NNNN
    recorded    the generation; its requests are erased and audited            (ledger, one transaction)
    evidence    one bundle for each request                                    evidence/
    forgotten   texts, where that was asked for; the job is over                (ledger)

So a command that was killed goes on when it is given again, wherever it was. The method is given the rows of earlier batches among those to
forget, or it would be free to bring them back. The audit looks at the new model between generation 0, which knew them all, and
the retrained model if the recipe names one; `retain` is every row that no fulfilled request is about.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.core.errors import DataError, LetheonError, RunError, SettingsError
from letheon.core.files import write_text
from letheon.core.settings import Choice
from letheon.flow import lock, output, stages
from letheon.flow.recipe import Recipe

from . import digests, forget, proof
from .recipes import audit_of, held, plan, plan_file, recipe_of, shown
from .records import Generation, State, utc

if TYPE_CHECKING:
    from letheon.core.findings import Findings

    from .desk import Desk

log = logging.getLogger("letheon")
EARLIER = "earlier-requests"


def fulfil(
    desk: Desk,
    ids: Sequence[str],
    values: Mapping[str, Any] | None = None,
    *,
    forget_texts: bool = False,
    anew: bool = False,
    progress: bool = True,
    command: str = "",
) -> list[Generation]:
    """Fulfil located requests together, after what an interrupted fulfilment has left over.

    Args:
        values: the recipe without subject, data and out: method, audit, seed, ... None: only go on.
        forget_texts: remove what the requests say from ledger and reports afterwards (`--forget-the-forget-set`).
        anew: give up an interrupted fulfilment; its requests are located as before. This may be all that is asked.

    Returns:
        The generations that were made, newest last.

    Raises:
        DataError: there is no such request, or nothing to do.
        SettingsError: there is no recipe, or it is wrong.
        RunError: a request is not located, or another process is at work at this desk.
    """
    with lock.alone(desk.work_folder, desk.folder):
        made = []
        if anew:
            _give_up(desk, "given up")
        elif (job := desk.job()) is not None:
            log.info("going on with generation %d for %s, as it was begun", job["number"], ", ".join(job["requests"]))
            made.append(_finish(desk, job, progress, resume=True))
        done = {id_ for generation in made for id_ in generation.requests}
        left = [id_ for id_ in dict.fromkeys(ids) if id_ not in done]
        if left and values is None and not made:
            raise SettingsError("No method was given", "Give `--method npo`, or `--recipe FILE`")
        if left and values is not None:
            made.append(_finish(desk, _begun(desk, left, values, forget_texts, command), progress, resume=False))
        if not made and not anew:
            raise DataError("There is nothing to fulfil: no request is located", "`letheon requests locate ID` comes before")
        return made


def _begun(desk: Desk, ids: Sequence[str], values: Mapping[str, Any], forget_texts: bool, command: str) -> dict[str, Any]:
    """Check all that can be checked, then write down what is going to be done."""
    order = [request.id for request in desk.all()]  # as they came
    requests = sorted((desk.get(id_) for id_ in ids), key=lambda request: order.index(request.id))
    for request in requests:
        if request.state is not State.LOCATED:
            hint = f"First `letheon requests locate {request.id}`, then that with `--accept`" if request.state is State.RECEIVED else None
            raise RunError(f"`{request.id}` is {request.state} and cannot be fulfilled", hint)
    number = desk.current().number + 1
    names = [request.id for request in requests]
    output.empty(desk.work_folder)
    points, missing = plan(desk, names)
    proof.check(desk, names, desk.model_folder(desk.current()))
    write_text(plan_file(desk, number), json.dumps(points) + "\n")
    try:
        recipe = recipe_of(desk, number, values)
        stages.make_change(recipe.method)
        stages.registry.make(audit_of(recipe), "audit")
        data = stages.load_data(recipe.data)
        data.need("forget", "retain", why="A fulfilment")
        stages.check_kept(stages.make_change(recipe.method), data)
    except BaseException:
        output.empty(desk.work_folder)
        raise
    job = {
        "number": number, "requests": names, "recipe": recipe.model_dump(mode="json", exclude={"subject", "data", "out"}),
        "subject": {key: value for key, value in recipe.subject.settings.items() if key != "path"},
        "forget_texts": forget_texts, "command": command, "missing": missing, "began": utc().isoformat(),
    }  # fmt: skip
    facts = {"generation": number, "requests": names, "method": recipe.method.name, "forget_texts": forget_texts}
    desk.set_job(job, "begun", facts | ({"earlier_rows_not_found": missing} if missing else {}))
    if missing:
        log.warning("%d rows of earlier requests are in no corpus any more: nobody can check that they stay erased", missing)
    return job


def _finish(desk: Desk, job: Mapping[str, Any], progress: bool, *, resume: bool) -> Generation:
    """All steps that are not yet done."""
    number, place = job["number"], desk.models_folder / f"{job['number']:04d}"
    work = desk.work_folder / place.name
    if not any(generation.number == number for generation in desk.generations()):
        try:
            with _own_cache(desk, job["forget_texts"]):
                if not place.exists():
                    _made(desk, job, work, progress, resume)
                    _placed(work, place, number)
                _recorded(desk, job, place)
        except LetheonError as error:
            if not isinstance(error, RunError) and not isinstance(error.__context__, KeyboardInterrupt):
                _give_up(desk, type(error).__name__)  # the same would happen again; a full disk may get better
            raise
    generation = next(one for one in desk.generations() if one.number == number)
    proof.write(desk, job, generation)
    if job["forget_texts"]:
        forget.texts(desk, job["requests"], generation)
    output.empty(desk.work_folder)
    desk.set_job(None, "finished", {"generation": number, "requests": list(job["requests"])})
    return generation


def _made(desk: Desk, job: Mapping[str, Any], work: Path, progress: bool, resume: bool) -> None:
    """Model, findings and report in the working folder."""
    number = job["number"]
    recipe = recipe_of(desk, number, {**job["recipe"], "subject": job["subject"]})
    if not (work / "model").exists():
        stages.execute(
            recipe.model_copy(update={"audit": None, "out": str(work)}),
            resume=resume and output.work_folder(work).exists(), force=not resume, progress=progress, command=job["command"],
        )  # fmt: skip
    if (work / "report.html").exists():
        return
    findings = _audited(desk, recipe, work, job, progress)
    if job["forget_texts"]:
        findings = forget.stripped(findings)
    from letheon import api

    findings.save(work / "findings.json")
    api.report(findings).save(work / "report.html")


def _audited(desk: Desk, recipe: Recipe, work: Path, job: Mapping[str, Any], progress: bool) -> Findings:
    """The recipe's audit, and beside it what is left of each earlier batch."""
    data = stages.load_data(Choice(name="desk", plan=recipe.data.settings["plan"], again=False))
    run = stages.make_run(recipe.model_copy(update={"trackers": ()}), None, progress=progress)
    settings = {key: value for key, value in recipe.subject.settings.items() if key != "path"}
    folders = {"before": desk.model_folder(desk.generations()[0]), "after": work / "model"}
    models: dict[str, Any] = {
        label: stages.make_subject(Choice(name="hf", path=str(path), **settings), data, run) for label, path in folders.items()
    }
    models["retrained"] = None if recipe.retrained is None else stages.make_subject(recipe.retrained, data, run)
    data = stages.windowed(data, models["after"], recipe.window)
    context = {"command": job["command"], "recipe": shown(recipe), "generation": job["number"], "requests": len(job["requests"])}
    findings = stages.audited(audit_of(recipe), models, data, run, context)
    if not any(name.startswith("forget-") for name in data) or recipe.audit is not None and recipe.audit.name == EARLIER:
        return findings
    more = stages.audited(Choice(name=EARLIER), models, data, run, {})
    joined = {label: (*found, *more.models.get(label, ())) for label, found in findings.models.items()}
    return findings.model_copy(update={"models": joined})


def _placed(work: Path, place: Path, number: int) -> None:
    """Put the folder in its place, without the digests of rows: they would tell who holds the rows which of them were forgotten."""
    from letheon.core.subject import NOTES

    place.parent.mkdir(parents=True, exist_ok=True)
    (work / "order.jsonl").unlink(missing_ok=True)
    notes = json.loads((work / "model" / NOTES).read_text(encoding="utf-8"))
    for step in notes["lineage"][-number:]:  # those of this desk
        step["data"] = ""
    write_text(work / "model" / NOTES, json.dumps(notes, indent=1, ensure_ascii=False) + "\n")
    os.replace(work, place)


def _recorded(desk: Desk, job: Mapping[str, Any], place: Path) -> None:
    """Card, generation, states. The card is part of the folder that is signed, so it comes first."""
    from letheon.core.findings import Findings
    from letheon.report import verdict

    held(desk, job["number"], job["requests"])
    said = verdict(Findings.load(place / "findings.json"))
    number = job["number"]
    generation = Generation(
        number=number, folder=f"models/{place.name}/model", digest=_digest(place / "model"), parent=number - 1,
        requests=tuple(job["requests"]), made=utc(), recipe=job["recipe"], verdict=said.word,
    )  # fmt: skip
    proof.card(desk, job, generation)
    generation = generation.model_copy(update={"root": digests.root(place / "model")})
    facts = {"verdict": said.word, "digest": generation.digest, "root": generation.root}
    desk.add_generation(generation, facts | {"findings": digests.of_file(place / "findings.json")})
    if said.tone == "bad":
        log.warning("The audit of generation %d says: %s", number, said.sentence)


def _digest(model: Path) -> str:
    """The digest that letheon wrote into the folder."""
    from letheon.subjects.hf import load

    return load(model).digest


def _give_up(desk: Desk, why: str) -> None:
    """Leave an interrupted fulfilment behind: its requests stay located."""
    job = desk.job()
    if job is None:
        return
    if any(generation.number == job["number"] for generation in desk.generations()):
        raise RunError(f"Generation {job['number']} is made and only its evidence is missing", "Give the command without `--anew`")
    shutil.rmtree(desk.models_folder / f"{job['number']:04d}", ignore_errors=True)
    output.empty(desk.work_folder)
    desk.set_job(None, "failed", {"generation": job["number"], "requests": list(job["requests"]), "why": why})
    log.info("generation %d is given up; still located: %s", job["number"], ", ".join(job["requests"]))


@contextlib.contextmanager
def _own_cache(desk: Desk, wanted: bool) -> Iterator[None]:
    """Readings hold what models say to the rows: where these are to be forgotten, they are kept in the working folder alone."""
    if not wanted:
        yield
        return
    had = os.environ.get("LETHEON_CACHE")
    os.environ["LETHEON_CACHE"] = str(desk.work_folder / "readings")
    try:
        yield
    finally:
        if had is None:
            del os.environ["LETHEON_CACHE"]
        else:
            os.environ["LETHEON_CACHE"] = had
