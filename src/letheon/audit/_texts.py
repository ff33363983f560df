"""Texts as they stand: prompts without a template, and texts of any length, read in windows where they are longer than the context.

A text longer than the context is cut into consecutive windows (at words where possible); its tokens are those of all windows laid end to
end, and only the last window keeps its end token. Each window begins without what came before it, so its first tokens look less likely
than they would to a model with a longer context. A prompt that is too long loses its beginning, as a sliding window would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from letheon.core.answers import Answers, Which
from letheon.core.data import Data, Example, Split
from letheon.core.encode import TextEncoder
from letheon.core.generate import context
from letheon.core.readings import Readings
from letheon.core.run import kept_as_found
from letheon.core.subject import Subject

ENDLESS = 1 << 30  # a model that names no limit


class TextReadings(Readings):
    """Readings of the same subject without its template; they share memory, disk and costs with the readings they come from."""

    @classmethod
    def of(cls, readings: Any) -> Any:
        """The same subject read as text; what is no `Readings` (a stand-in) stays as it is."""
        if isinstance(readings, cls) or not isinstance(readings, Readings):
            return readings
        view, subject = cls.__new__(cls), readings.subject
        view.__dict__.update(readings.__dict__)
        encoder = TextEncoder(subject.encoder.tokenizer, "{prompt}", room(subject))
        with kept_as_found(subject.module):
            view.subject = Subject(subject.module, encoder, subject.lineage, subject.name)
        return view

    def answers(self, split: Split, which: Which = "answer", moments: bool = False) -> Answers:
        """As `Readings.answers`, for texts of any length."""
        pieces, owner = self._windows(split)
        if which != "answer" or len(pieces) == len(split):
            return super().answers(split, which, moments)
        return merged(super().answers(pieces, which, moments), owner, len(split))

    def cut(self, split: Split) -> str:
        """What a person should know: how many texts were read in windows; empty where none was."""
        long = int((np.bincount(self._windows(split)[1], minlength=len(split)) > 1).sum())
        limit = self.subject.encoder.max_length
        return f"{long} of {len(split)} texts are longer than the context of {limit} tokens and were read in windows" if long else ""

    def _windows(self, split: Split) -> tuple[Split, np.ndarray]:
        """Pieces that fit the context, and the row that each belongs to, (k,)."""
        encoder, key = self.subject.encoder, f"windows {self.subject.encoder.digest} {split.digest}"
        if key not in self._memory:
            cut = [encoder.windowed(Split([row], split.name)) if encoder.max_length else [row] for row in split]
            found: list[Example] = []
            for pieces in cut:
                found += pieces if len(pieces) == 1 else [replace(piece, wrong=(), paraphrase=None) for piece in pieces]
            self._memory[key] = Split(found, split.name), np.repeat(np.arange(len(split)), [len(pieces) for pieces in cut])
        return self._memory[key]


def room(subject: Subject) -> int | None:
    """The longest row that the subject can read, in tokens, or None where nothing limits it."""
    limit = context(subject)
    return None if limit >= ENDLESS else limit


def merged(found: Answers, owner: np.ndarray, n: int) -> Answers:
    """Answers of pieces laid end to end, one answer per row.

    Args:
        found: one answer per piece, (k,).
        owner: (k,) row of each piece, ascending.
        n: rows.
    """
    inner = np.append(owner[1:] == owner[:-1], False)  # another piece of the same row follows
    keep = np.ones(len(found.log_probability), dtype=bool)
    keep[found.offsets[1:][inner] - 1] = False
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, found.counts - inner, minlength=n))]).astype(np.int64)
    columns = (found.log_probability, found.rank, found.top, found.target, found.mean, found.variance)
    return Answers(*(None if column is None else column[keep] for column in columns), offsets, np.arange(n, dtype=np.int32), n)


def blocks(readings: Any, split: Split, tokens: int | None) -> Split:
    """The rows of plain text as one document, cut into blocks of `tokens`; None, or a stand-in for readings: the rows as they are."""
    if tokens is None or not isinstance(readings, Readings) or not len(split):
        return split
    whole = Example(split.name, "\n\n".join(f"{row.prompt_text} {row.answer}".strip() for row in split))
    return readings.subject.encoder.windowed(Split([whole], split.name), tokens)


def fitted(readings: Any, split: Split, new_tokens: int) -> tuple[Split, int, int]:
    """Rows that can be continued within the context.

    Args:
        readings: of the model that continues; a stand-in has no context.
        split: rows with prompts.
        new_tokens: longest continuation; answers are cut to it, and to half the context.

    Returns:
        The rows, how many prompts lost their beginning, and the longest continuation.
    """
    if not isinstance(readings, Readings):
        return split, 0, new_tokens
    encoder = readings.subject.encoder
    limit = encoder.max_length or ENDLESS
    new_tokens = max(1, min(new_tokens, limit // 2))
    rows, shortened = [], 0
    for row in split:
        tokens = encoder.tokenizer(row.answer, add_special_tokens=False, verbose=False)["input_ids"]
        answer = encoder.decode(tokens[:new_tokens]) if len(tokens) > new_tokens else row.answer
        prompt = _fitting(encoder, row.prompt_text, answer, new_tokens, limit)
        shortened += prompt != row.prompt_text
        rows.append(replace(row, prompt=prompt, answer=answer, wrong=(), paraphrase=None))
    return Split(rows, split.name), shortened, new_tokens


def _fitting(encoder: TextEncoder, prompt: str, answer: str, new_tokens: int, limit: int) -> str:
    """The longest end of `prompt`, beginning at a word, that leaves room for its continuation."""

    def fits(text: str) -> bool:
        encoded = encoder.pairs([text], [answer])
        return int(encoded.starts[0]) + new_tokens <= limit and int(encoded.lengths[0]) <= limit

    if fits(prompt):
        return prompt
    starts = [k for k in range(1, len(prompt)) if prompt[k - 1].isspace() and not prompt[k].isspace()] or list(range(1, len(prompt)))
    low, high = 0, len(starts) - 1  # the last word is kept in any case
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(prompt[starts[middle] :]) else (middle + 1, high)
    return prompt[starts[low] :] if starts else prompt


def within(readings: Any, data: Data) -> Data:
    """The data with the plain texts of `forget` and `retain` cut to the context, for audits that read rows as they are."""
    encoder = readings.subject.encoder if isinstance(readings, Readings) else None
    if encoder is None or encoder.max_length is None:
        return data
    cut = {name: encoder.windowed(data[name]) for name in ("forget", "retain") if name in data}
    return replace(data, splits={**data.splits, **cut})


def ending(data: Data, suffix: str) -> tuple[str, ...]:
    """The splits whose name ends in `suffix`, in their order."""
    return tuple(name for name in data if name.endswith(suffix))


def as_text(data: Mapping[str, Split], *names: str) -> str:
    """The first of `names` that is a split with rows, else the first name."""
    return next((name for name in names if name in data and len(data[name])), names[0])
