"""What a model reproduces word for word: exact memorisation, extraction strength and ROUGE-L.

Notation: k answers whose m tokens lie end to end, answer i from `offsets[i]` to `offsets[i + 1]`. An answer without tokens gives NaN,
which audits show as None.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np

_WORDS = re.compile(r"[a-z0-9]+")


def without_last(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop the last token (the end token) of every answer.

    Args:
        offsets: (k + 1,), ascending.

    Returns:
        Which of the m tokens stay, (m,) bool, and their new offsets, (k + 1,).
    """
    counts = np.diff(offsets)
    keep = np.ones(int(offsets[-1]), dtype=bool)
    keep[offsets[1:][counts > 0] - 1] = False
    return keep, np.concatenate([[0], np.cumsum(np.maximum(counts - 1, 0))])


def segment_means(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The mean of each answer's values, float64 (k,); NaN for an answer without tokens."""
    counts = np.diff(offsets)
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    sums = total[offsets[1:]] - total[offsets[:-1]]
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def exact_memorisation(hits: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The share of tokens that are the model's first choice given the true tokens before them, (k,).

    Args:
        hits: (m,) bool.
        offsets: (k + 1,).
    """
    return segment_means(hits.astype(np.int64), offsets)


def extraction_strength(hits: np.ndarray, offsets: np.ndarray, *, floor: bool = False) -> np.ndarray:
    """1 - k* / T, where k* is the least number of given tokens after which the model says all the rest, (k,).

    A wrong last token gives exactly 0. With `floor` k* ends at T - 1, as in the OpenUnlearning toolkit, so that the least value is 1 / T.
    """
    counts = np.diff(offsets)
    answer = np.repeat(np.arange(len(counts)), counts)
    missed = np.where(hits, 0, np.arange(len(hits)) - offsets[:-1][answer] + 1)  # position after each miss, counted from 1
    needed = np.zeros(len(counts), dtype=np.int64)
    np.maximum.at(needed, answer, missed)
    if floor:
        needed = np.minimum(needed, counts - 1)
    return np.divide(counts - needed, counts, out=np.full(len(counts), np.nan), where=counts > 0)


@functools.cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


@functools.lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    return _stemmer().stem(word) if len(word) > 3 else word


def rouge_words(text: str, stem: bool = True) -> list[str]:
    """Words as ROUGE sees them: lower case, runs of a-z and 0-9, Porter stems of words longer than three letters."""
    words = _WORDS.findall(text.lower())
    return [_stem(word) for word in words] if stem else words


def common_subsequence(left: list[str], right: list[str]) -> int:
    """Length of the longest common subsequence, with one machine word per 64 words of `left` (Hyyrö's bit-parallel recurrence)."""
    where: dict[str, int] = {}
    for i, word in enumerate(left):
        where[word] = where.get(word, 0) | 1 << i
    full = (1 << len(left)) - 1
    row = full
    for word in right:
        match = row & where.get(word, 0)
        row = ((row + match) | (row - match)) & full
    return len(left) - row.bit_count()


@functools.lru_cache(maxsize=1 << 15)
def rouge_l(true: str, said: str, stem: bool = True) -> tuple[float, float, float] | None:
    """ROUGE-L precision, recall and F of `said` against `true`; None where `true` has no word that ROUGE knows."""
    wanted, given = rouge_words(true, stem), rouge_words(said, stem)
    if not wanted:
        return None
    if not given:
        return 0.0, 0.0, 0.0
    common = common_subsequence(wanted, given)
    precision, recall = common / len(given), common / len(wanted)
    return precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0
