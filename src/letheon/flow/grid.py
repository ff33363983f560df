"""A sweep as one frozen object, read from a TOML file: methods, their values, seeds, and the cells that follow from them.

    out = "runs/sweep"
    seeds = [0, 1, 2]
    trials = 12                                  # tuning trials of each method; 0: every combination of values is a cell

    [base]                                       # a recipe without method, out and seed
    subject = "hf:path=models/original"
    retrained = "hf:path=models/retrained"
    data = "tofu:path=TOFU"
    audit = "tofu"

    [common]                                     # for every method that has such a setting
    epochs = 5

    [methods.npo]                                # the label of a row; `name` says the method where it differs
    learning_rate = { low = 1e-4, high = 2e-3, log = true }       # a range, only with trials; of whole numbers where the setting is one
    beta = [0.02, 0.05, 0.1]                                      # a choice of values
    retain = "nll"                                                # fixed

    [audits]                                     # models that are there already: each is audited as it is, and is a row of the table
    theirs = "hf:path=models/theirs"
"""

from __future__ import annotations

import itertools
import json
import re
import tomllib
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from letheon.core import registry
from letheon.core.errors import DataError, SettingsError
from letheon.core.settings import Choice, Field, Settings, parse_settings

from .recipe import Recipe, merged

ANEW = "Give `--force` to start anew, or another `out`"  # where what is there was made otherwise


class Sweep(Settings):
    """Methods x settings x seeds over one recipe."""

    base: dict[str, Any] = Field(description="a recipe without `method`, `out` and `seed`")
    methods: dict[str, dict[str, Any]] = Field({}, description="label -> settings: a value, a list of values, or a range")
    audits: dict[str, Choice] = Field({}, description="label -> a model that is audited as it is: `hf:path=FOLDER`, or a maker")
    common: dict[str, Any] = Field({}, description="settings for every method that has them")
    out: str = Field(min_length=1, description="folder for the cells, the table and the page")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="seeds of each cell")
    trials: int = Field(0, ge=0, description="tuning trials of each method on rows that stay; 0 makes every combination a cell")
    workers: int = Field(1, ge=1, description="cells at once, each in a process of its own")
    cpus: int | None = Field(None, ge=1, le=1024, description="threads of a cell, and what Ray sets aside for it; none: all here, 1 there")
    gpus: float = Field(0.0, ge=0, le=64, description="GPUs that Ray sets aside for a cell; 0.5 lets two share one")
    retries: int = Field(3, ge=0, le=100, description="how often Ray begins a cell again whose process was killed")
    models: bool = Field(True, description="keep the changed model of every cell")
    columns: tuple[str, ...] = Field((), description="columns of the table, such as `forget/probability`; empty: the usual ones")


class Span(Settings):
    """A range of values."""

    low: float
    high: float
    log: bool = Field(False, description="draw evenly over powers of ten")


Values = tuple[Any, ...] | Span


@dataclass(frozen=True)
class Axes:
    """What one method of a sweep is: settings that are fixed and settings that vary."""

    label: str
    fixed: dict[str, Any]
    free: dict[str, Values]

    def combinations(self) -> Iterable[dict[str, Any]]:
        """All values of the free settings."""
        for values in itertools.product(*self.free.values()):  # type: ignore[arg-type]
            yield dict(zip(self.free, values, strict=True))

    def whole(self, key: str) -> bool:
        """Whether a setting takes whole numbers only, as its type says; the values of a range do not tell."""
        fields = registry.load(self.fixed["name"]).Settings.model_fields
        kinds = _kinds(fields[key].annotation) if key in fields else []
        return int in kinds and float not in kinds


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: `row` is what the table calls all seeds of it together.

    Attributes:
        judged: the model that is audited as it is; None where the recipe makes one.
    """

    row: str
    seed: int
    recipe: Recipe
    judged: Choice | None = None

    @property
    def what(self) -> dict[str, Any]:
        """The method with its settings, or the model."""
        return (self.recipe.method if self.judged is None else self.judged).model_dump(mode="json")

    @property
    def folder(self) -> Path:
        """Where its run goes."""
        return Path(self.recipe.out)


def axes(sweep: Sweep) -> list[Axes]:
    """Every method of a sweep, checked.

    Raises:
        SettingsError: a range without trials, or one that is empty; an empty list.
        MethodError: there is no method of that name.
    """
    if not (sweep.methods or sweep.audits):
        raise SettingsError("A sweep needs `methods`, `audits` or both", "For example a table `[methods.npo]`")
    found = []
    for label, values in sweep.methods.items():
        fixed: dict[str, Any] = {"name": label}
        free: dict[str, Values] = {}
        for key, value in {**_shared(sweep, values.get("name", label)), **values}.items():
            where = f"`{key}` of `methods.{label}`"
            if isinstance(value, list):
                if not value:
                    raise SettingsError(f"{where} is an empty list", "Give at least one value")
                free[key] = tuple(value)
            elif isinstance(value, dict) and {"low", "high"} <= set(value):
                span = parse_settings(Span, value, f"methods.{label}.{key}")
                if not span.low < span.high or span.log and span.low <= 0:
                    raise SettingsError(f"{where} is no range: {value}", "Give `low` below `high`, above 0 where `log` is set")
                if not sweep.trials:
                    raise SettingsError(f"{where} is a range, and there are no trials", "Set `trials`, or list the values")
                free[key] = span
            else:
                fixed[key] = value
        found.append(Axes(label, fixed, free))
    return found


def _kinds(annotation: Any) -> list[Any]:
    """The types that a type is made of: `int` and `None` of `int | None`."""
    parts = typing.get_args(annotation)
    return [kind for part in parts for kind in _kinds(part)] if parts else [annotation]


def _shared(sweep: Sweep, name: str) -> dict[str, Any]:
    """The common settings that a method has."""
    if not sweep.common:
        return {}
    fields = registry.load(name).Settings.model_fields
    return {key: value for key, value in sweep.common.items() if key in fields}


def cells(sweep: Sweep, chosen: dict[str, list[dict[str, Any]]]) -> list[Cell]:
    """All runs: seed after seed, so that a sweep that is stopped has seen every row.

    Args:
        chosen: label -> values of its free settings, one dictionary for each row of the table.
    """
    rows = [
        (_row(one, values, len(chosen[one.label])), {**one.fixed, **values}) for one in axes(sweep) for values in chosen[one.label]
    ]
    rows += [(label, {"name": "none"}) for label in sweep.audits]
    names = [slug(row) for row, _ in rows]
    twice = next((row for (row, _), name in zip(rows, names, strict=True) if names.count(name) > 1), None)
    if twice is not None:
        raise SettingsError(f"Two rows of the sweep would lie in the folder `{slug(twice)}`", "Give the methods other labels")
    folder = Path(sweep.out) / "cells"
    return [
        Cell(row, seed, recipe(sweep, method, seed, folder / f"{slug(row)}-{seed}"), sweep.audits.get(row))
        for seed in sweep.seeds
        for row, method in rows
    ]


def recipe(sweep: Sweep, method: dict[str, Any], seed: int, out: Path) -> Recipe:
    """The recipe of one cell.

    Raises:
        SettingsError: the base is no recipe, or says what the sweep decides.
    """
    for key in ("method", "out", "seed"):
        if key in sweep.base:
            raise SettingsError(f"`base` of a sweep has no `{key}`", "The sweep sets it for every cell")
    return parse_settings(Recipe, {**sweep.base, "method": method, "seed": seed, "out": str(out)}, "the base of the sweep")


def _row(one: Axes, values: dict[str, Any], count: int) -> str:
    """The label, with what varies where a method has several rows."""
    if count == 1:
        return one.label
    return " ".join([one.label, *(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items())])


def slug(text: str) -> str:
    """A label as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9.=+-]+", "-", text).strip("-.") or "cell"


def read(path: str | Path, assignments: Iterable[str] = ()) -> Sweep:
    """Read a sweep from a TOML file; `--set` changes one of its keys, such as `trials=4` or `base.data.people=80`.

    Raises:
        DataError: the file is missing or is not TOML.
        SettingsError: a key is unknown or a value out of bounds.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no sweep {path}", "Sweeps are TOML files, see the folder `recipes`")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number of thousands of digits, or nested too deeply
        raise DataError(f"{path} is not a TOML file: {error}") from error
    return parse_settings(Sweep, merged(values, assignments), f"sweep {path.name}")
