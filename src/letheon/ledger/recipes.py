"""What a fulfilment is made of: the plan that points to rows, and the recipe on the newest model of the lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.core.errors import DataError, SettingsError
from letheon.core.settings import Choice, parse_settings
from letheon.flow.recipe import Recipe, merged, read

from . import corpora
from .records import Corpus

if TYPE_CHECKING:
    from .desk import Desk

AUDIT = "general"


def plan(desk: Desk, ids: Sequence[str]) -> tuple[dict[str, Any], int]:
    """Where the rows of this batch and of all earlier ones stand, and how many of the earlier ones stand nowhere.

    Raises:
        DataError: a row of this batch stands nowhere, or a file is not what was registered.
    """
    registered = desk.corpora()
    splits = {corpus.name: corpora.load(corpus) for corpus in registered}
    corpora.need(desk, ids, splits)
    now, _ = corpora.numbers(desk, splits, ids)
    given = [corpora.as_json(row) for id_ in ids for row in corpora.outside(desk, splits, id_)]
    earlier = [corpora.numbers(desk, splits, generation.requests) for generation in desk.generations()[1:]]
    found: dict[str, Any] = {
        "corpora": {corpus.name: _file(corpus) for corpus in registered},
        "forget": now,
        "given": given,
        "earlier": [places for places, _ in earlier],
    }
    holdout = desk.holdout()
    if holdout is not None:
        corpora.load(holdout)
        found["holdout"] = _file(holdout)
    return found, sum(missing for _, missing in earlier)


def _file(corpus: Corpus) -> dict[str, Any]:
    return corpus.model_dump(include={"path", "fields", "digest"})


def held(desk: Desk, number: int, ids: Sequence[str]) -> None:
    """Check that the rows of a batch are still those that its plan told the method to forget.

    Raises:
        DataError: they are not, or a row stands nowhere any more.
    """
    now, then = plan(desk, ids)[0], json.loads(plan_file(desk, number).read_text(encoding="utf-8"))
    if any(now[part] != then[part] for part in ("forget", "given")):
        raise DataError(f"The rows of generation {number} have changed since it was begun", "Give the command again: it begins anew")


def plan_file(desk: Desk, number: int) -> Path:
    """Where the plan of a generation lies while it is made."""
    return desk.work_folder / f"{number:04d}.json"


def recipe_of(desk: Desk, number: int, values: Mapping[str, Any]) -> Recipe:
    """The recipe on the newest model and the plan's data."""
    parent = next(one for one in desk.generations() if one.number == number - 1)
    fixed = {
        "subject": {**(values.get("subject") or {}), "name": "hf", "path": str(desk.model_folder(parent))},
        "data": {"name": "desk", "plan": str(plan_file(desk, number))},
        "out": str(desk.work_folder / f"{number:04d}"),
    }
    return parse_settings(Recipe, merged({**values, **fixed}, ()), "letheon requests fulfil")


def audit_of(recipe: Recipe) -> Choice:
    """The audit of a recipe, or the desk's own."""
    return recipe.audit or Choice(name=AUDIT)


def shown(recipe: Recipe) -> dict[str, Any]:
    """The recipe as findings show it: without the plan, which is gone by then."""
    return recipe.model_dump(mode="json", exclude={"data", "out"})


def values_of(path: Path | None, given: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any] | None:
    """A recipe for a desk from a file and options, without subject, data and out; None where nothing was given.

    Raises:
        SettingsError: there is no method, or a key or value is wrong.
        DataError: the file is missing or is no TOML.
    """
    if path is None and not given and not assignments:
        return None
    fixed = {"subject": {"name": "hf", "path": "."}, "data": {"name": "desk", "plan": "plan.json"}, "out": "out"}
    if path is not None:
        more = [f"{key}={json.dumps(value)}" for key, value in {**fixed, **given}.items()]
        recipe = read(path, [*more, *assignments])
    else:
        if "method" not in given:
            raise SettingsError("No method was given", "Give `--method npo`, or `--recipe FILE`")
        recipe = parse_settings(Recipe, merged({**fixed, **given}, assignments, inside="method"), "letheon requests fulfil")
    values = recipe.model_dump(mode="json", exclude={"data", "out"})
    return {**values, "subject": {key: value for key, value in recipe.subject.settings.items() if key != "path"}}
