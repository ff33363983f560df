"""What in a row is worth hiding: the words of the answer that the question does not give away."""

from __future__ import annotations

import functools

from letheon.core.data import Example
from letheon.maths.recall import rouge_words


@functools.cache
def _plain_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(word for stop in ENGLISH_STOP_WORDS for word in rouge_words(stop))


def telling(row: Example, text: str | None = None) -> tuple[str, ...]:
    """Stems of the words of a text (of the answer) that the prompt of `row` does not hold, without ordinary words, in their order."""
    given = set(rouge_words(row.prompt_text)) | _plain_words()
    return tuple(word for word in rouge_words(row.answer if text is None else text) if word not in given)


def holds(row: Example, text: str) -> bool | None:
    """Whether a text holds every telling word of a row's answer (all its words where none is telling); None where it has no words."""
    wanted = set(telling(row)) or set(rouge_words(row.answer))
    return wanted <= set(rouge_words(text)) if wanted else None
