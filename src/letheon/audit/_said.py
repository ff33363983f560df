"""What a model says when it is asked, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from letheon.core.data import Split

if TYPE_CHECKING:
    from letheon.core.readings import Readings


def said(readings: Readings, split: Split, max_new_tokens: int) -> list[str | None]:
    """The greedy generation for each row, without spaces around it; None for plain text, which asks nothing."""
    asked = [i for i, row in enumerate(split) if row.prompt]
    if not asked:
        return [None] * len(split)
    part = split if len(asked) == len(split) else Split([split[i] for i in asked], split.name)
    texts: list[str | None] = [None] * len(split)
    for i, text in zip(asked, readings.generations(part, max_new_tokens=max_new_tokens), strict=True):
        texts[i] = text.strip()
    return texts
