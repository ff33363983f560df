"""Contracts of every plug-in: its file, its docstring, its settings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

import letheon
from letheon.core.errors import LetheonError, SettingsError
from letheon.core.registry import ROLES, role_folder
from letheon.core.settings import Choice, Settings, parse_settings

from ._cases import Broken, Case, need

_CARDED = ("shield", "select", "erase", "keep", "adapt", "compress", "guard")


def repository() -> Path | None:
    """The checkout that letheon is run from, or None where it is installed as a package."""
    root = Path(letheon.__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() and (root / "cards").is_dir() else None


def has_a_summary(case: Case) -> None:
    """The first docstring line is a sentence of at most 100 characters."""
    text = _docstring(case)
    need(bool(text), "the file has no docstring")
    first = text.splitlines()[0]
    need(len(first) <= 100, f"the first docstring line has {len(first)} characters, at most 100 fit a listing")
    need(first.endswith((".", "?")), f"the first docstring line must be a sentence, got {first!r}")


def _docstring(case: Case) -> str:
    if case.path is None:
        return case.cls.docstring()
    return ast.get_docstring(ast.parse(case.path.read_text(encoding="utf-8"))) or ""


def is_named_like_its_file(case: Case) -> None:
    """The name in lineage and messages is the name that finds it."""
    need(case.cls.name() == case.name, f"it is found as `{case.name}` but calls itself `{case.cls.name()}`")
    need(case.path is None or case.path.stem.replace("_", "-") == case.name, f"its file is called {case.path and case.path.name}")
    need(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", case.name) is not None, f"`{case.name}` is not lower-case words joined by dashes")


def is_one_short_file(case: Case) -> None:
    """The file has at most 300 lines of at most 140 characters and imports no other plug-in."""
    if case.path is None:
        return
    lines = case.path.read_text(encoding="utf-8").splitlines()
    need(len(lines) <= 300, f"the file has {len(lines)} lines, at most 300")
    long = [k for k, line in enumerate(lines, 1) if len(line) > 140]
    need(not long, f"line {long[0] if long else 0} is longer than 140 characters")
    for node in ast.walk(ast.parse("\n".join(lines))):
        need(not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"), "it prints: raise an error or use logging")
        need(not (isinstance(node, ast.ExceptHandler) and node.type is None), "it has a bare `except`")
        if isinstance(node, ast.ImportFrom):
            other = _imported_plugin(node, case.role)
            need(other is None, f"it imports the plug-in `{other}`: name it in a setting, or move what both need into a shared file")


def _imported_plugin(node: ast.ImportFrom, role: str) -> str | None:
    """The plug-in that `from ... import` takes something from, or None."""
    here = ["letheon", *role.split("/")]
    parts = [*here[: len(here) + 1 - node.level], *(node.module or "").split(".")] if node.level else (node.module or "").split(".")
    for known in ROLES:
        folder = ["letheon", *known.split("/")]
        if parts[: len(folder)] == folder:
            stems = parts[len(folder) : len(folder) + 1] or [alias.name for alias in node.names]
            stem = next((stem for stem in stems if stem in {path.stem for path in role_folder(known).glob("[!_]*.py")}), None)
            if stem is not None:
                return stem
    return None


def names_a_card(case: Case) -> None:
    """In a checkout, a method's docstring names a card that exists."""
    root = repository()
    if root is None or case.role not in _CARDED or case.path is None or root not in case.path.parents:
        return
    named = re.search(r"\bCards?: ([a-z0-9-]+)", _docstring(case))
    need(named is not None, "the docstring names no card (`Card: my-method.`)")
    card = root / "cards" / f"{named[1]}.md"  # type: ignore[index]
    need(card.is_file(), f"there is no card cards/{card.name}")


def settings_are_frozen_and_closed(case: Case) -> None:
    """`Settings` is a frozen model that refuses unknown keys."""
    need(issubclass(case.cls.Settings, Settings), "`Settings` must derive from letheon's `Settings`")
    config = case.cls.Settings.model_config
    need(config.get("frozen") is True, "`Settings` is not frozen")
    need(config.get("extra") == "forbid", "`Settings` lets unknown keys through")


def settings_are_described(case: Case) -> None:
    """Every setting has a description and, unless the tiny settings must give it, a default."""
    for name, field in case.cls.Settings.model_fields.items():
        need(bool(field.description), f"the setting `{name}` has no description")
        need(not field.is_required() or name in case.tiny, f"the setting `{name}` has neither a default nor a value in `tiny`")


def tiny_settings_are_valid(case: Case) -> None:
    """`tiny` makes a plug-in."""
    case.make()


def settings_survive_json(case: Case) -> None:
    """Settings written as JSON and read again are the same."""
    settings = case.make().settings
    again = case.cls.Settings.model_validate_json(settings.model_dump_json())
    need(again == settings, f"{settings!r} comes back as {again!r}")
    need(case.cls(**settings.model_dump(mode="json")).settings == settings, "settings dumped as a dictionary do not make the same plug-in")


def settings_cannot_be_changed(case: Case) -> None:
    """A value cannot be assigned after construction."""
    settings = case.make().settings
    for name in case.cls.Settings.model_fields:
        try:
            setattr(settings, name, getattr(settings, name))
        except Exception:  # noqa: S112 - pydantic raises its own ValidationError; any refusal will do
            continue
        raise Broken(f"the setting `{name}` can be assigned")


def unknown_settings_name_the_nearest(case: Case) -> None:
    """A misspelt setting is refused with the name of the nearest one."""
    for name in [*case.cls.Settings.model_fields, "no_such_setting"]:
        wrong = name[:1] + name[2:] + "x" if len(name) > 4 else f"{name}_x"
        message = _refused(case, {wrong: 1}, f"the unknown setting `{wrong}`")
        need(wrong in message, f"the message does not name `{wrong}`: {message}")
        near = "did you mean" in message or len(name) <= 4 or name == "no_such_setting"
        need(near, f"`{wrong}` is refused without the nearest name: {message}")


def _refused(case: Case, values: dict[str, Any], what: str) -> str:
    try:
        case.make(**values)
    except SettingsError as error:
        return str(error)
    except LetheonError as error:
        raise Broken(f"{what} raises {type(error).__name__}, not SettingsError") from error
    raise Broken(f"{what} is accepted")


def numbers_have_bounds(case: Case) -> None:
    """Every number in the settings has a bound, and a value beyond it is refused by name."""
    for name, field in case.cls.Settings.model_fields.items():
        for bounds in _bounds(field):
            need(bool(bounds), f"the number `{name}` has no bound")
        for value in _beyond(field):
            message = _refused(case, {name: value}, f"`{name}` = {value!r}")
            need(f"`{name}" in message, f"the message for `{name}` = {value!r} does not name it: {message}")


def _parts(annotation: Any) -> Iterator[tuple[Any, list[Any]]]:
    """The leaf types of an annotation, each with the constraints written on it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *marks = get_args(annotation)
        found = [mark for part in marks for mark in (part.metadata if isinstance(part, FieldInfo) else [part])]
        yield from ((leaf, [*found, *more]) for leaf, more in _parts(inner))
    elif origin in (Union, UnionType):
        yield from (leaf for part in get_args(annotation) if part is not NoneType for leaf in _parts(part))
    elif origin in (tuple, list):
        yield from (leaf for part in get_args(annotation) if part is not Ellipsis for leaf in _parts(part))
    elif origin is not Literal:
        yield annotation, []


_SIGNS = ((annotated_types.Gt, 0), (annotated_types.Ge, -1), (annotated_types.Lt, 0), (annotated_types.Le, 1))


def _sequence(field: FieldInfo) -> Any:
    """The tuple or list in the annotation of a field, or None."""
    return next((part for part in (field.annotation, *get_args(field.annotation)) if get_origin(part) in (tuple, list)), None)


def _bounds(field: FieldInfo) -> Iterator[list[float]]:
    """For each number that a field holds, the values just beyond its bounds."""
    for leaf, marks in _parts(field.annotation):
        if leaf in (int, float):
            marks = marks if _sequence(field) else [*marks, *field.metadata]
            yield [getattr(mark, kind.__name__.lower()) + sign for mark in marks for kind, sign in _SIGNS if isinstance(mark, kind)]


def _beyond(field: FieldInfo) -> Iterator[Any]:
    """Values just beyond the bounds of a field, shaped like the field."""
    sequence = _sequence(field)
    size = sum(part is not Ellipsis for part in get_args(sequence)) if get_origin(sequence) is tuple else 1
    for bounds in _bounds(field):
        yield from ([value] * size if sequence else value for value in bounds)


def all_faults_are_reported_at_once(case: Case) -> None:
    """Two faults give one error that names both."""
    values: dict[str, Any] = {"no_such_setting": 1}
    for name, field in case.cls.Settings.model_fields.items():
        beyond = next(_beyond(field), None)
        if beyond is not None:
            values[name] = beyond
            break
    else:
        values["nor_this_one"] = 1
    message = _refused(case, values, "a call with two faults")
    for name in values:
        need(f"`{name}" in message, f"of the faults {', '.join(values)} the message does not name `{name}`: {message}")


def unknown_parts_are_refused(case: Case) -> None:
    """A setting that names another plug-in refuses an unknown name when the plug-in is made, not hours later."""
    for name, field in case.cls.Settings.model_fields.items():
        if any(leaf is Choice for leaf, _ in _parts(field.annotation)):
            try:
                case.make(**{name: "no-such-part"})
            except LetheonError:
                continue
            raise Broken(f"`{name}` = 'no-such-part' is accepted")


def settings_have_a_schema(case: Case) -> None:
    """Help and documentation can be made from the class alone, without building anything."""
    schema = case.cls.Settings.model_json_schema()
    need(schema.get("additionalProperties") is False, "the JSON schema of `Settings` allows unknown keys")
    parse_settings(case.cls.Settings, case.tiny, case.name)


EVERY = (
    has_a_summary,
    is_named_like_its_file,
    is_one_short_file,
    names_a_card,
    settings_are_frozen_and_closed,
    settings_are_described,
    tiny_settings_are_valid,
    settings_survive_json,
    settings_cannot_be_changed,
    unknown_settings_name_the_nearest,
    numbers_have_bounds,
    all_faults_are_reported_at_once,
    unknown_parts_are_refused,
    settings_have_a_schema,
)
