"""The settings of a plug-in as plain values: name, type, default, bounds, what it means. For people and for `--json`."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from letheon.core.registry import ROLES, plugins
from letheon.core.settings import Choice


def fields(settings: type[Any]) -> list[dict[str, Any]]:
    """Every setting of a `Settings` class: first those that only this plug-in has, then the shared ones."""
    own = [key for key in settings.model_fields if key in settings.__annotations__]
    return [field(key, settings.model_fields[key]) for key in dict.fromkeys([*own, *settings.model_fields])]


def field(key: str, found: Any) -> dict[str, Any]:
    """One setting as plain values."""
    return {
        "name": key,
        "type": kind(key, found.annotation),
        "default": None if found.is_required() else plain(found.get_default(call_default_factory=True)),
        "required": found.is_required(),
        "bounds": bounds(found.metadata),
        "description": found.description or "",
    }


def plain(value: Any) -> Any:
    """A default as JSON knows it: a plug-in by its name, a path as text."""
    name = getattr(value, "name", None)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return name if isinstance(name, str) else value


def text(value: Any) -> str:
    """A default as it is written behind `--set KEY=`."""
    return value if isinstance(value, str) and value else json.dumps(value, default=str)


def kind(key: str, annotation: Any) -> str:
    """What may be given, in words."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, parts))
    if origin is Annotated:
        return kind(key, parts[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(kind(key, part) for part in parts if part is not type(None)) + (" or null" if type(None) in parts else "")
    if annotation is Choice:
        role = next((role for role in ROLES if role in (f"train/{key}", f"train/{key}s")), None)
        return "one of " + ", ".join(plugins(role)) if role else "a plug-in"
    if origin in (list, tuple, set, frozenset, dict):
        return "a table" if origin is dict else "a list"
    return {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}.get(annotation, "")


def bounds(metadata: Iterable[Any]) -> str:
    """The bounds of a number: `> 0 and <= 1`."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return " and ".join(f"{sign} {getattr(item, key)}" for item in metadata for key, sign in signs.items() if hasattr(item, key))
