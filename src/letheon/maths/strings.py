"""How far one text is from another: edit distance and word overlap.

Words are those of ROUGE (`recall.rouge_words`).
"""

from __future__ import annotations

import functools
from collections import Counter

from .recall import rouge_words


def edit_distance(left: str, right: str) -> int:
    """Levenshtein distance in characters, one machine word per 64 characters of `left` (Hyyrö's form of Myers' recurrence)."""
    if not left:
        return len(right)
    where: dict[str, int] = {}
    for i, letter in enumerate(left):
        where[letter] = where.get(letter, 0) | 1 << i
    full, last = (1 << len(left)) - 1, 1 << (len(left) - 1)
    up, down, distance = full, 0, len(left)  # steps of +1 and -1 between neighbours of a column
    for letter in right:
        match = where.get(letter, 0)
        flat = (((match & up) + up) ^ up) | match | down
        rise, fall = down | (full & ~(flat | up)), up & flat
        distance += bool(rise & last) - bool(fall & last)
        rise, fall = (rise << 1 | 1) & full, fall << 1 & full
        up, down = fall | (full & ~(flat | rise)), rise & flat
    return distance


@functools.lru_cache(maxsize=1 << 15)
def rouge_1(true: str, said: str, stem: bool = True) -> tuple[float, float, float] | None:
    """ROUGE-1 precision, recall and F of `said` against `true`: shared words, each as often as both have it; None without words."""
    wanted, given = Counter(rouge_words(true, stem)), Counter(rouge_words(said, stem))
    if not wanted:
        return None
    common = (wanted & given).total()
    if not common:
        return 0.0, 0.0, 0.0
    precision, recall = common / given.total(), common / wanted.total()
    return precision, recall, 2 * precision * recall / (precision + recall)
