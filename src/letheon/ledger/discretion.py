"""What a statement may not say: texts, ids and names of rows that are to be forgotten.

A statement is made of numbers, digests and names that letheon itself gives, and of a few free strings: settings, notes, what a person
writes. Free strings are looked through:

- a whole text of a row (id, group, prompt, answer, other forms) may stand in none of them; texts of less than four characters (`yes`, `12`)
  count only where they are the whole string;
- a word of the rows that neither the other rows nor letheon's own measures use may not stand in settings and notes: they are withheld;
- such a word that is written as a name may not stand in what a person wrote: that is an error, which does not repeat it.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from letheon.core import registry
from letheon.core.data import Example
from letheon.core.errors import MethodError
from letheon.report.known import KNOWN

WITHHELD = "(withheld: it may name what was forgotten)"
SHORT = 4  # characters
_WORD = re.compile(r"[^\W_]+")
_NAMED = re.compile(r"(?<=[\w,;:'\u2019\u201c(] )[^\W\d_]\w{3,}")  # a word within a sentence


class Private:
    """The private texts of one request.

    Args:
        rows: rows to be forgotten.
        names: further texts.
        others: rows whose words are no secret.
    """

    def __init__(self, rows: Sequence[Example], names: Iterable[str] = (), others: Iterable[Example] = ()):
        said = [*names, *(text for row in rows for text in texts(row))]
        found = {folded(text) for text in said} - {""}
        self._short = frozenset(text for text in found if len(text) < SHORT)
        self._long: dict[str, list[str]] = {}  # by their first word, so that few are compared with a text
        for text in found - self._short:
            self._long.setdefault(next(iter(_words(text)), ""), []).append(text)
        words = {word for text in found for word in _words(text) if len(word) >= SHORT} - _own()
        self._words = frozenset(words.difference(*(_words(folded(text)) for row in others for text in texts(row))) if words else words)
        named = {folded(word) for text in said for word in _NAMED.findall(text) if word[0].isupper()}
        self._names = self._words & named

    def told(self, text: str) -> bool:
        """Whether `text` holds a private text, as words of their own."""
        seen = folded(text)
        near = (private for word in {"", *_words(seen)} for private in self._long.get(word, ()))
        return seen in self._short or any(_apart(private, seen) for private in near)

    def withheld(self, value: Any) -> Any:
        """A value of JSON without private texts and words: strings are replaced, entries whose key holds some are dropped."""
        if isinstance(value, str):
            return WITHHELD if self._hints(value) else value
        if isinstance(value, dict):
            return {str(key): self.withheld(part) for key, part in value.items() if not self._hints(str(key))}
        if isinstance(value, list | tuple):
            return [self.withheld(part) for part in value]
        return value

    def _hints(self, text: str) -> bool:
        return self.told(text) or not self._words.isdisjoint(_words(folded(text)))

    def refuse(self, what: str, *words: str) -> None:
        """Check what a person wrote.

        Raises:
            MethodError: it tells what is to be forgotten. The message does not.
        """
        if any(self.told(text) or not self._names.isdisjoint(_words(folded(text))) for text in words):
            raise MethodError(f"The {what} of the evidence says what is to be forgotten", "Say it without names, ids and texts of the rows")


@functools.cache
def _own() -> frozenset[str]:
    """Words that letheon uses itself: names of plug-ins, and what is known of its measures."""
    said = [plugin.name for plugin in registry.all_plugins()]
    said += [text for name, about in KNOWN.items() for text in (name, about.title, about.tests, about.read)]
    return frozenset(word for text in said for word in _words(folded(text)))


def texts(row: Example) -> list[str]:
    """Every text of a row that could give it away."""
    turns = [row.prompt] if isinstance(row.prompt, str) else [message.content for message in row.prompt]
    return [row.id, row.answer, row.group or "", row.paraphrase or "", *row.wrong, *turns]


def folded(text: str) -> str:
    """A text for comparing: composed, without case, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _apart(private: str, seen: str) -> bool:
    at = seen.find(private)
    while at >= 0:
        end = at + len(private)
        before, after = seen[at - 1 : at] if at else "", seen[end : end + 1]
        if not (before.isalnum() and private[0].isalnum()) and not (after.isalnum() and private[-1].isalnum()):
            return True
        at = seen.find(private, at + 1)
    return False
