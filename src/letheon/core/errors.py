"""Errors that a person reads: one sentence that says what is wrong and what was given, then a hint."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


FEW = 20  # names that a sentence may list


class LetheonError(Exception):
    """Base of all errors that letheon raises on purpose. The command line prints it without a traceback.

    Args:
        message: what is wrong and what was given, one sentence without a full stop.
        hint: what the reader can do about it.
    """

    def __init__(self, message: str, hint: str | None = None):
        self.message, self.hint = message, hint
        stop = "" if message.endswith(("?", "!", ".")) else "."
        super().__init__(message if hint is None else f"{message}{stop} {hint}")


class SettingsError(LetheonError):
    """A setting is unknown, of the wrong type or out of bounds."""


class DataError(LetheonError):
    """A file, row, field or split is missing, broken or contradicts another one."""


class SubjectError(LetheonError):
    """A model or tokenizer cannot be loaded, is damaged, or does not fit the data."""


class MethodError(LetheonError):
    """A method does not exist, lacks what it needs, or failed while it ran."""


class RunError(LetheonError):
    """The output folder, disk, device or process of a run does not allow what was asked."""


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of `names`, or None if none is similar."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return found[0] if found else None


def did_you_mean(name: str, names: Iterable[str], listed: str | None = None) -> str:
    """A hint that names the nearest of `names`; if none is near, all of a few, or where many are listed.

    Args:
        name: what was given.
        names: what there is; each is named once.
        listed: a sentence that says where to find them; without it the most similar of many are named.
    """
    known = sorted(set(names))
    near = nearest(name, known)
    if near is not None:
        return f"Did you mean `{near}`?"
    if len(known) <= FEW:
        return f"Known: {', '.join(known)}" if known else "There are none"
    return listed or f"There are {len(known)}, among them {', '.join(difflib.get_close_matches(name, known, n=5, cutoff=0.0))}"
