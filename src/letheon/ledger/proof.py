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
from letheon.core.errors import RunError
from letheon.core.files import write_bytes

from . import corpora, digests, evidence, forget, keys, model_card
from .discretion import Private
from .records import Generation, Request

if TYPE_CHECKING:
    from .desk import Desk

log = logging.getLogger("letheon")


def possible() -> bool:
    """Whether bundles can be signed here."""
    return importlib.util.find_spec("cryptography") is not None


def check(desk: Desk, ids: Sequence[str], model: Path) -> None:
    """Check that evidence on some requests can be signed, before there is anything to sign.

    Args:
        model: the folder that it will be about; before the training the one that the change begins with.

    Raises:
        RunError: the private key is not there, or cannot be used.
        MethodError: the name of a file in that folder says what is to be forgotten.
    """
    if not possible():
        return
    signer(desk)
    names = evidence.chosen(*digests.names(model))
    if names:
        rows, retain = _parted(desk, ids)
        for id_, forgotten in rows.items():
            Private(forgotten, _named(desk.get(id_)), retain).refuse("model folder", *names)


def signer(desk: Desk) -> keys.Signer:
    """The desk's key. It is made where the desk never had one: cryptography was not installed then.

    Raises:
        RunError: it is not there any more, or cannot be used.
    """
    path = desk.keys_folder / keys.PRIVATE
    if not path.exists():
        if (desk.keys_folder / keys.PUBLIC).exists() or any(desk.evidence_folder.glob("*.intoto.jsonl")):
            hint = "Put it back. A key that is lost for good is replaced by hand, so that all who trust the old one hear of it"
            raise RunError(f"The private key is not there: {path}", hint)
        keys.new(desk.keys_folder)
    return keys.load(path)


def card(desk: Desk, job: Mapping[str, Any], generation: Generation) -> None:
    """Write the card into the model folder: this batch, and what is known of earlier ones. Raises as `check` does."""
    if not possible():
        return
    check(desk, generation.requests, desk.model_folder(generation))
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
    key, made = signer(desk), []
    after = digests.folder(desk.model_folder(generation), f"generation-{generation.number:04d}")
    for facts in _all(desk, generation, job):
        if facts.request in missing:
            content = evidence.bundle(facts, after, key, lambda: generation.made, _previous(desk, facts.request))
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
    """The facts of all requests of the newest generation."""
    found, retain = _parted(desk, generation.requests)
    return [_facts(desk, desk.get(id_), generation, job, forgotten, retain) for id_, forgotten in found.items()]


def _parted(desk: Desk, ids: Sequence[str]) -> tuple[dict[str, list[Example]], list[Example]]:
    """The rows of each request of the newest batch, and the rows that neither it nor an earlier one is about.

    Raises:
        DataError: a row that a request was located with is no longer to be had.
    """
    splits = {corpus.name: corpora.load(corpus) for corpus in desk.corpora()}
    done = [id_ for made in desk.generations() for id_ in made.requests]
    gone, _ = corpora.numbers(desk, splits, dict.fromkeys([*done, *ids]))
    away = {name: set(places) for name, places in gone.items()}
    retain = [row for name, split in splits.items() for k, row in enumerate(split) if k not in away[name]]
    corpora.need(desk, ids, splits)
    return {id_: corpora.rows_for(desk, splits, id_) for id_ in ids}, retain


def _named(request: Request) -> tuple[str, ...]:
    """Texts beside the rows that may not occur in a statement."""
    return (request.what.entity,) if request.what is not None and request.what.entity else ()


def _facts(
    desk: Desk, request: Request, generation: Generation, job: Mapping[str, Any], forgotten: Sequence[Example], retain: Sequence[Example]
) -> evidence.ErasureFacts:
    parent = next(one for one in desk.generations() if one.number == generation.parent)
    folder, method, secret = desk.run_folder(generation), dict(generation.recipe["method"]), bool(job.get("forget_texts"))
    holdout = desk.holdout()
    return evidence.ErasureFacts(
        request=request.id, basis=request.reason, received=request.received, due=request.due, executed=generation.made,
        forget=forgotten, retain=retain, holdout=() if holdout is None else list(corpora.load(holdout)), salt=desk.salts()[request.id],
        record=request.model_dump(mode="json", exclude={"state"}), names=_named(request),
        before=digests.folder(desk.model_folder(parent), f"generation-{parent.number:04d}"), method=method.pop("name"),
        settings=method, seed=generation.recipe.get("seed", 0), findings=None if folder is None else folder / "findings.json",
        report=None if folder is None else folder / "report.html", residual=forget.residual(secret),
        started=datetime.fromisoformat(job["began"]) if "began" in job else None,
    )  # fmt: skip
