"""What a fulfilment hands to those who sign: the facts of each request, its bundle, and the card of the model.

Both need the rows, so they are made before any text is forgotten. Without the package `cryptography` there is neither, and a warning
says so.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.core.data import Example
from letheon.core.files import write_bytes

from . import corpora, digests, evidence, forget, keys, model_card
from .records import Generation, Request

if TYPE_CHECKING:
    from .desk import Desk

log = logging.getLogger("letheon")


def possible() -> bool:
    """Whether bundles can be signed here."""
    return importlib.util.find_spec("cryptography") is not None


def card(desk: Desk, job: Mapping[str, Any], generation: Generation) -> None:
    """Write the card into the model folder: this batch, and what is known of earlier ones."""
    if not possible():
        return
    order = [id_ for made in reversed(desk.generations()) for id_ in made.requests]
    earlier = [evidence.predicate(path) for id_ in order if (path := desk.evidence(id_)) is not None]
    model_card.write(desk.model_folder(generation), [*_all(desk, generation, job), *earlier])


def write(desk: Desk, job: Mapping[str, Any], generation: Generation) -> list[Path]:
    """Sign one bundle for each request of a generation that has none yet; each is chained to the one before."""
    if not possible():
        log.warning("No evidence is written: it needs cryptography, `pip install 'letheon[desk]'`")
        return []
    missing = [id_ for id_ in generation.requests if desk.evidence(id_) is None]
    if not missing:
        return []
    if not (desk.keys_folder / keys.PRIVATE).exists():
        keys.new(desk.keys_folder)
    signer, made = keys.load(desk.keys_folder), []
    after = digests.folder(desk.model_folder(generation), f"generation-{generation.number:04d}")
    for facts in _all(desk, generation, job):
        if facts.request in missing:
            content = evidence.bundle(facts, after, signer, lambda: generation.made, _previous(desk, facts.request))
            made.append(write_bytes(desk.evidence_folder / f"{facts.request}.intoto.jsonl", content))
    return made


def rows(desk: Desk, id_: str) -> list[Example]:
    """The rows of a request, as far as they are still to be had."""
    return corpora.rows_for(desk, {corpus.name: corpora.load(corpus) for corpus in desk.corpora()}, id_)


def _previous(desk: Desk, id_: str) -> str | None:
    """The last envelope of the bundle that was made before that of a request."""
    order = [name for generation in desk.generations() for name in generation.requests]
    before = [path for name in order[: order.index(id_)] if (path := desk.evidence(name)) is not None]
    return evidence.last(before[-1]) if before else None


def _all(desk: Desk, generation: Generation, job: Mapping[str, Any]) -> list[evidence.ErasureFacts]:
    """The facts of all requests of a generation whose rows are still to be had."""
    splits = {corpus.name: corpora.load(corpus) for corpus in desk.corpora()}
    gone = {name: set[int]() for name in splits}
    for made in (*desk.generations()[1:], generation):
        if made.number <= generation.number:
            for name, places in corpora.numbers(desk, splits, made.requests)[0].items():
                gone[name].update(places)
    retain = [row for name, split in splits.items() for k, row in enumerate(split) if k not in gone[name]]
    found = []
    for id_ in generation.requests:
        forgotten = corpora.rows_for(desk, splits, id_)
        if forgotten:
            found.append(_facts(desk, desk.get(id_), generation, job, forgotten, retain))
    return found


def _facts(
    desk: Desk, request: Request, generation: Generation, job: Mapping[str, Any], forgotten: Sequence[Example], retain: Sequence[Example]
) -> evidence.ErasureFacts:
    parent = next(one for one in desk.generations() if one.number == generation.parent)
    folder, method, secret = desk.run_folder(generation), dict(generation.recipe["method"]), bool(job.get("forget_texts"))
    holdout = desk.holdout()
    what = request.what
    return evidence.ErasureFacts(
        request=request.id, basis=request.reason, received=request.received, due=request.due, executed=generation.made,
        scope=f"{len(forgotten)} rows of training data", forget=forgotten, retain=retain,
        holdout=() if holdout is None else list(corpora.load(holdout)), salt=desk.salts()[request.id],
        record=request.model_dump(mode="json", exclude={"state"}), names=(what.entity,) if what is not None and what.entity else (),
        before=digests.folder(desk.model_folder(parent), f"generation-{parent.number:04d}"), method=method.pop("name"),
        settings=method, seed=generation.recipe.get("seed", 0), findings=None if folder is None else folder / "findings.json",
        report=None if folder is None else folder / "report.html", residual=forget.residual(desk, secret),
        started=datetime.fromisoformat(job["began"]) if "began" in job else None,
    )  # fmt: skip
