"""Settings: frozen pydantic models. Defaults, bounds and help texts live here and nowhere else."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import SettingsError, nearest

__all__ = ["Choice", "Field", "Settings", "parse_settings", "parse_spec", "parse_value"]


class Settings(BaseModel):
    """Base of all settings. Unknown keys are refused, values cannot change after construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def parse_value(text: str) -> Any:
    """A value written as text: JSON where it is JSON (numbers, true, null, lists), else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, or nested too deeply
        return {"True": True, "False": False, "None": None}.get(text, text)


def parse_spec(text: str) -> dict[str, Any]:
    """A plug-in and its settings written as text: `lora` or `lora:rank=8,alpha=4` -> `{"name": "lora", "rank": 8, "alpha": 4}`.

    Raises:
        ValueError: a part has no `=`.
    """
    name, _, rest = text.partition(":")
    found: dict[str, Any] = {"name": name}
    for part in re.split(r",(?=\w+=)", rest) if rest else []:
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise ValueError(f"`{part}` is not of the form key=value in {text!r}")
        found[key] = parse_value(value)
    return found


class Choice(BaseModel):
    """A plug-in named in a setting, with settings of its own: `"lora"`, `"lora:rank=8"` or `{"name": "lora", "rank": 8}`."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return parse_spec(value) if isinstance(value, str) else value

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


S = TypeVar("S", bound=BaseModel)

_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _shown(given: Any) -> str:
    """What was given, as Python writes it, cut where it is long."""
    try:
        text = repr(given)
    except (ValueError, RecursionError):  # a number of thousands of digits, or nested too deeply
        return f"a value of type {type(given).__name__}"
    return text if len(text) <= 200 else f"{text[:160]}... ({len(text)} characters)"


def _sentence(error: dict[str, Any], fields: list[str], owner: str) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "settings"
    kind, context, given = error["type"], error.get("ctx", {}), error.get("input")
    if kind == "extra_forbidden":
        near = nearest(key, fields)
        known = f"did you mean `{near}`?" if near else f"it has {', '.join(sorted(fields)) or 'no settings'}"
        return f"`{owner}` has no setting `{key}`: {known}"
    if kind == "missing":
        return f"`{key}` of `{owner}` must be given"
    if kind in _BOUNDS:
        word, bound = _BOUNDS[kind]
        limit = context[bound]
        return f"`{key}` of `{owner}` must be {word} {f'{limit:g}' if isinstance(limit, float) else limit}, got {_shown(given)}"
    if kind == "literal_error":
        return f"`{key}` of `{owner}` must be {context['expected']}, got {_shown(given)}"
    if kind == "finite_number":
        return f"`{key}` of `{owner}` must be a finite number, got {_shown(given)}"
    if kind == "value_error":
        return f"`{key}` of `{owner}`: {context['error']}"
    return f"`{key}` of `{owner}`: {error['msg'][:1].lower()}{error['msg'][1:]}, got {_shown(given)}"


def parse_settings(cls: type[S], values: dict[str, Any], owner: str) -> S:
    """Build `cls` from `values`.

    Raises:
        SettingsError: names every fault at once; an unknown key names the nearest known one.
    """
    try:
        return cls(**values)
    except ValidationError as error:
        faults = [_sentence(dict(fault), list(cls.model_fields), owner) for fault in error.errors()]
    except UnicodeEncodeError as error:
        faults = [f"a setting of `{owner}` holds half of a character pair (U+{ord(error.object[error.start]):04X})"]
    raise SettingsError("; ".join(faults), f"See `letheon show {owner}`" if " " not in owner else None)
