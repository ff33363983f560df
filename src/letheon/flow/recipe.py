"""Recipes: a whole piece of work as one frozen object, read from a TOML file or from the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from letheon.core.errors import DataError, SettingsError, nearest
from letheon.core.settings import Choice, Field, Settings, parse_settings, parse_spec, parse_value


class Recipe(Settings):
    """What is done, to what, with what, and how it is looked at. Paths are relative to the folder the command runs in."""

    subject: Choice = Field(description="the model that knows: `hf:path=FOLDER`, or a maker such as `micro`")
    data: Choice = Field(description="data source with its settings")
    method: Choice = Field(description="the change to apply, with its settings")
    select: Choice | None = Field(None, description="coreset of the forget rows that the method is given: `grand:fraction=0.1`; none: all")
    audit: Choice | None = Field(None, description="the audit to run afterwards; none writes the model only")
    retrained: Choice | None = Field(None, description="the model that never saw the forget split: `hf:path=FOLDER`, or a maker")
    out: str = Field(min_length=1, description="folder for model, findings, report and metrics")
    seed: int = Field(0, ge=0, description="every random draw derives from it")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="number format of training")
    device: str = Field("auto", description="auto, cpu, cuda, ...")
    window: int | None = Field(None, ge=4, description="cut rows of plain text into pieces of this many tokens")
    checkpoint_every: int = Field(50, ge=0, description="optimiser steps between checkpoints")
    trackers: tuple[str, ...] = Field((), description="trackers that accelerate knows, such as tensorboard")


def merged(values: dict[str, Any], assignments: Iterable[str], inside: str | None = None) -> dict[str, Any]:
    """`values` with `key=value` or `part.key=value` assignments put in.

    Args:
        inside: part that takes the keys which are no field of a recipe.

    Raises:
        SettingsError: an assignment has no `=`.
    """
    found = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"`--set` takes key=value, got {assignment!r}", "For example `--set beta=0.2`")
        path = key.strip().split(".")
        if inside is not None and path[0] not in Recipe.model_fields:
            path.insert(0, inside)
        at = found
        for part in path[:-1]:
            at[part] = _table(at.get(part), assignment)
            at = at[part]
        at[path[-1]] = parse_value(text)
    return found


def _table(value: Any, assignment: str) -> dict[str, Any]:
    """A part of a recipe as a table, so that a key can be put into it."""
    if value is None or isinstance(value, dict):
        return dict(value or {})
    try:
        if isinstance(value, str):
            return parse_spec(value)
    except ValueError as error:
        raise SettingsError(f"`--set {assignment}`: {error}") from error
    raise SettingsError(f"`--set {assignment}` sets a part of something that has no parts: {value!r}")


def read(path: str | Path, assignments: Iterable[str] = ()) -> Recipe:
    """Read a recipe; a key that is no field of a recipe goes to the method.

    Raises:
        DataError: the file is missing or is not TOML.
        SettingsError: a key is unknown or a value out of bounds.
    """
    path = Path(path)
    if not path.is_file():
        near = nearest(path.stem, [file.stem for file in path.parent.glob("*.toml")])
        hint = f"Did you mean {path.with_name(near + '.toml')}?" if near else "Recipes are TOML files, see the folder `recipes`"
        raise DataError(f"There is no recipe {path}", hint)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number of thousands of digits, or nested too deeply
        raise DataError(f"{path} is not a TOML file: {error}") from error
    return parse_settings(Recipe, merged(values, assignments, inside="method"), f"recipe {path.name}")
