"""Questions put in words of the audit's own: the whole text that a model reads, up to where its answer begins.

A prompt of a split is read inside the model's template. A benchmark has a text of its own, with or without that template, and a cue such as
"Answer:" behind it. Such texts are read through `as_written`: the same model, whose template adds nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Example, Split
from letheon.core.encode import TextEncoder
from letheon.core.generate import context
from letheon.core.run import kept_as_found
from letheon.core.subject import Subject

if TYPE_CHECKING:
    from letheon.core.readings import Readings

_WRITTEN: weakref.WeakKeyDictionary[Readings, Readings] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Words:
    """What is asked: `content` may stand in the model's template, `cue` stands behind it, at the head of the answer."""

    content: str
    cue: str = ""


@dataclass(frozen=True)
class Asked:
    """Rows as they are asked.

    Attributes:
        split: the rows; their answers begin with a space where one belongs there.
        kept: (m,) which of the n rows they are; a row whose answer alone fills the context is left out.
        shortened: rows that lost text at their beginning.
    """

    split: Split
    kept: np.ndarray
    shortened: int

    def scattered(self, values: Sequence[float] | np.ndarray, n: int) -> np.ndarray:
        """Values (m,) at their places among n rows; NaN elsewhere."""
        out = np.full(n, np.nan)
        out[self.kept] = values
        return out

    @property
    def note(self) -> str:
        """How many rows lost text, for a finding."""
        return f"{self.shortened} of the rows lost text at their beginning to fit the context" if self.shortened else ""


def as_written(readings: Readings) -> Readings:
    """Readings of the same model that take prompts as they are; they share costs and counts with `readings`."""
    if readings not in _WRITTEN:
        encoder, subject = readings.subject.encoder, readings.subject
        with kept_as_found(subject.module):
            bare = TextEncoder(encoder.tokenizer, "{prompt}", encoder.max_length)
            plain = Subject(subject.module, bare, subject.lineage, subject.name)
        other = type(readings)(plain, readings.run, tokens_per_batch=readings.tokens_per_batch)
        other.costs, other.hits = readings.costs, readings.hits
        _WRITTEN[readings] = other
    return _WRITTEN[readings]


def spelled(encoder: TextEncoder, words: Words, template: bool) -> str:
    """The text that the model reads.

    With `template` the content stands in it, and the cue follows unless the template ends with one itself.
    """
    if not template:
        return f"{words.content}\n{words.cue}" if words.cue else words.content
    head = encoder.prompt_text(words.content)
    if not words.cue or (not encoder.chat and head.rstrip().endswith(":")):
        return head
    return f"{head}{'' if encoder.chat or head[-1].isspace() else chr(10)}{words.cue}"


def asked(
    readings: Readings, split: Split, words: Callable[[Example], Words], *, template: bool, name: str, room: int = 0
) -> Asked:
    """The rows of a split in other words, cut to fit.

    Args:
        readings: of the model that will be asked with `as_written`.
        words: what is asked instead of a row's prompt.
        template: whether it stands in the model's template.
        name: of the new split.
        room: tokens of the context to keep free for a generation, half of the context at most.

    Returns:
        The rows. One that is longer than the context loses text of its content from the left.
    """
    encoder, limit = readings.subject.encoder, context(readings.subject)
    plain = as_written(readings).subject.encoder
    room = min(room, limit // 2)
    found, kept, shortened = [], [], 0
    for i, row in enumerate(split):
        said = words(row)
        texts = (row.answer, *row.wrong)
        content = said.content
        while True:
            text = spelled(encoder, replace(said, content=content), template)
            lead = " " if said.cue and text.endswith(said.cue) else ""
            over = _over(plain, text, [lead + part for part in texts], limit, room)
            if over <= 0 or not content:
                break
            content = _shorter(content, over, len(encoder.tokenizer(content, add_special_tokens=False)["input_ids"]))
        if over > 0:
            continue
        shortened += content != said.content
        kept.append(i)
        found.append(replace(row, prompt=text, answer=lead + row.answer, wrong=tuple(lead + part for part in row.wrong), paraphrase=None))
    return Asked(Split(found, name), np.array(kept, dtype=np.int64), shortened)


def _over(encoder: TextEncoder, text: str, answers: Sequence[str], limit: int, room: int) -> int:
    """Tokens beyond the context. A token holds a byte or more, so that short texts need no count."""
    longest = max(len(answer.encode()) for answer in answers)
    if len(text.encode()) + max(longest, room) + 4 <= limit:
        return 0
    encoded = encoder.pairs([text] * len(answers), list(answers))
    return max(int(encoded.lengths.max()), int(encoded.starts.max()) + room) - limit


def _shorter(content: str, over: int, tokens: int) -> str:
    """The content without its first `over` tokens or a little more, from the next space on."""
    at = min(len(content), max(1, -(-len(content) * over // max(tokens, 1))))
    space = content.find(" ", at)
    return content[space + 1 :] if at <= space < at + 40 else content[at:]


def within(readings: Readings, split: Split) -> Split:
    """Rows of plain text, those beyond the context cut to their first window."""
    encoder, limit = readings.subject.encoder, context(readings.subject)
    rows = [
        replace(encoder.windowed(Split([row]), limit)[0], id=row.id) if not row.prompt and len(row.answer.encode()) + 2 > limit else row
        for row in split
    ]
    return split if all(a is b for a, b in zip(rows, split, strict=True)) else Split(rows, split.name)
