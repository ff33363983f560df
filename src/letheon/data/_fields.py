"""Names of fields: which key of a row is its prompt, its answer, its choices.

Names are found without regard to case. Where a row has several names for an answer, the usual partner of its prompt comes first:
`output` with `instruction`, `response` or `completion` with `prompt`, `target` with `input`, else `answer`. `input` belongs to the
prompt only beside `instruction`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from letheon.core.errors import DataError

Fields = Mapping[str, str | None]
_KINDS = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object", str: "text", bytes: "bytes"}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ALIASES = {
    "id": ("id",),
    "prompt": ("prompt", "question", "instruction", "query", "input"),
    "input": ("input",),
    "answer": ("answer", "output", "response", "completion", "target", "answerkey"),
    "text": ("text",),
    "messages": ("messages", "conversations"),
    "choices": ("choices", "options"),
    "wrong": ("wrong", "perturbed_answer"),
    "paraphrase": ("paraphrase", "paraphrased_answer"),
    "group": ("group", "entity", "author"),
    "form": ("form",),
}
_PARTNERS = {"instruction": ("output", "response"), "prompt": ("response", "completion"), "input": ("target", "output")}
MAIN = ("prompt", "answer", "text", "messages", "choices")


def row_names(fields: Fields) -> frozenset[str]:
    """Names, in lower case, that a row has and a table does not."""
    named = (name for role, name in fields.items() if name is not None and role in MAIN)
    return frozenset(name.casefold() for name in (*(name for role in MAIN for name in ALIASES[role]), *named))


def check_named(fields: Fields, seen: Mapping[str, Iterable[str]]) -> None:
    """Check that each field that is mapped exists somewhere.

    Args:
        fields: what the reader calls a field -> what the file calls it, or None.
        seen: file -> the fields of its rows.

    Raises:
        DataError: no file has such a field.
    """
    for role, name in fields.items():
        if name is not None and not any(name in names for names in seen.values()):
            have = "; ".join(f"{file} has {shown(names)}" for file, names in seen.items())
            raise DataError(f"No file has the field `{name}` that was named for `{role}`: {have}")


def present(fields: Fields, names: Iterable[str]) -> dict[str, str | None]:
    """The part of a mapping that concerns a file with these field names."""
    known = set(names)
    return {role: name for role, name in fields.items() if name is None or name in known}


@functools.lru_cache(maxsize=512)
def places(keys: tuple[str, ...], fields: tuple[tuple[str, str | None], ...]) -> dict[str, str]:
    """Which key of a row is what. Rows of a file mostly have the same keys, so this is worked out once."""
    given = dict(fields)
    folded: dict[str, str] = {}
    for key in keys:
        folded.setdefault(key.strip().casefold(), key)
    folded.update((key, key) for key in keys)
    found = {role: key for role, key in given.items() if key is not None and key in keys}
    taken = set(found.values())
    for role, names in ALIASES.items():
        if role in given:
            continue
        if role == "answer" and "prompt" in found:
            names = (*_PARTNERS.get(found["prompt"].strip().casefold(), ()), *names)
        hit = next((folded[name] for name in names if name in folded and folded[name] not in taken), None)
        if hit is not None and not (role == "input" and found.get("prompt", "").strip().casefold() != "instruction"):
            found[role] = hit
            taken.add(hit)
    return found


@functools.lru_cache(maxsize=512)
def option_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The columns `option1`, `option2` ... (or choice1, A, B ...) in order; empty where there are none."""
    for pattern in ("option[ _]?([0-9]{1,3})", "choice[ _]?([0-9]{1,3})"):
        numbered = {int(hit[1]): key for key in keys if (hit := re.fullmatch(pattern, key.strip(), re.IGNORECASE))}
        if len(numbered) > 1:
            return tuple(numbered[number] for number in sorted(numbered))
    run = next((k for k, letter in enumerate(LETTERS) if letter not in keys), len(LETTERS))
    return tuple(LETTERS[:run]) if run > 1 else ()


def kind(value: Any) -> str:
    """What a value of a JSON or Parquet file is, in words."""
    return "null" if value is None else _KINDS.get(type(value), f"of type {type(value).__name__}")


def shown(names: Iterable[Any], most: int = 12) -> str:
    """Field names for a message, the first of them if there are many; safe to print whatever a file holds."""
    names = [str(name)[:60].encode("utf-8", "backslashreplace").decode() for name in names]
    return (", ".join(f"`{name}`" for name in names[:most]) + (", ..." if len(names) > most else "")) or "no fields"
