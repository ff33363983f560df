"""Rows that two splits share: equal texts, and texts that differ in a word or two.

Two rows are equal if prompt and answer are, after Unicode NFKC, without case and with single spaces. They are nearly equal if

    J(a, b) = |a & b| / |a | b| >= near        a, b: the sets of words and of pairs of neighbouring words of a row

One word changed in a row of n different words leaves J = (2n - 4) / (2n + 2): 0.73 at n = 10, 0.86 at n = 20. Pairs are found by
MinHash (BANDS x ROWS minima; of pairs with J = 0.7 about 99.9% are found, of those with J = 0.8 more than 99.999%) and then measured
exactly, so no pair is reported that is not one. The hashes are constants: equal data gives equal warnings.

With more than `_TRIED` partners in one band a row is compared with the first of them only, so a row may be missed where many rows are
almost equal to one another: a count can be too low there, never too high.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError

NEAR = 0.7
BANDS, ROWS = 26, 4
_PAIRS = (("forget", "retain"), ("forget", "holdout"), ("retain", "holdout"))
_TRIED = 4  # partners of a row in one band
_VERIFIED = 8  # partners of a row that are measured exactly, the most promising first
_SLACK = 0.2  # an estimate from BANDS x ROWS minima is off by less than this in all but 1 of 100,000 pairs
_CHUNK = 8_000_000  # characters at a time, to bound memory
# Scripts that are written without spaces count each sign as a word.
_WORD = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")


def normal(example: Example) -> str:
    """Prompt and answer in the form in which rows are compared."""
    text = f"{example.prompt_text}\n{example.answer}"
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """The words of a normal text, in order."""
    return _WORD.findall(text)


def jaccard(one: str, two: str) -> float:
    """J of two normal texts; 0 where neither has a word."""
    a, b = _features(one), _features(two)
    return len(a & b) / len(a | b) if a or b else 0.0


def _features(text: str) -> set[object]:
    found = words(text)
    return {*found, *zip(found, found[1:], strict=False)}


def overlap_warnings(data: Data, near: float = NEAR) -> tuple[str, ...]:
    """What a person should know about rows that `forget`, `retain` and `holdout` share: one sentence a pair of splits and kind.

    Raises:
        DataError: the forget split holds the same rows as the retain or the holdout split.
    """
    pairs = [pair for pair in _PAIRS if all(name in data for name in pair)]
    texts = {name: [normal(row) for row in data[name]] for name in dict.fromkeys(name for pair in pairs for name in pair)}
    found: list[str] = []
    signed: dict[str, np.ndarray] = {}
    vocabulary: dict[str, int] = {}
    for one, two in pairs:
        if set(texts[one]) == set(texts[two]) and texts[one] and one == "forget":
            rows = len(set(texts[one]))
            hint = "No row can be both erased and kept" if two == "retain" else "Rows of the holdout must be unseen ones"
            raise DataError(f"`{one}` and `{two}` hold the same {rows} row{'s' if rows > 1 else ''}", hint)
        for name in (one, two):
            if name not in signed and near < 1:
                signed[name] = signatures(texts[name], vocabulary)
        equal = equal_rows(texts[one], texts[two])
        found += _sentences(data[one], data[two], equal, "equal to")
        if near < 1:
            rest = np.setdiff1d(np.arange(len(texts[one])), list(equal))
            close = near_rows(texts[one], texts[two], signed[one], signed[two], rest, near)
            found += _sentences(data[one], data[two], close, "nearly equal to")
    return tuple(found)


def equal_rows(one: Sequence[str], two: Sequence[str]) -> dict[int, int]:
    """Rows of `one` that are also in `two`: row -> first row of `two` with the same text."""
    first: dict[str, int] = {}
    for k, text in enumerate(two):
        first.setdefault(text, k)
    return {k: first[text] for k, text in enumerate(one) if text in first}


def near_rows(
    one: Sequence[str], two: Sequence[str], signed_one: np.ndarray, signed_two: np.ndarray, rows: np.ndarray, near: float
) -> dict[int, int]:
    """Those of `rows` of `one` with J >= near to a row of `two`: row -> the nearest row of `two` that was found."""
    left, right = _candidates(signed_one, signed_two, rows)
    guess = np.empty(len(left), dtype=np.float32)
    for start in range(0, len(left), 1 << 16):
        part = slice(start, start + (1 << 16))
        guess[part] = (signed_one[left[part]] == signed_two[right[part]]).mean(1)
    likely = guess >= near - _SLACK
    left, right, guess = left[likely], right[likely], guess[likely]
    order = np.lexsort((right, -guess, left))
    best: dict[int, tuple[float, int]] = {}
    tried: dict[int, int] = {}
    for i, j in zip(left[order].tolist(), right[order].tolist(), strict=True):
        tried[i] = tried.get(i, 0) + 1
        if tried[i] > _VERIFIED:
            continue
        share = jaccard(one[i], two[j])
        if share >= near and share > best.get(i, (0.0, 0))[0]:
            best[i] = (share, j)
    return {i: j for i, (_, j) in best.items()}


def _candidates(one: np.ndarray, two: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that agree in a whole band: rows of `one` and of `two`, without repeats."""
    if not len(rows) or not len(two):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    codes = []
    for band in range(BANDS):
        mine, other = (_mixed(_folded(part[:, band * ROWS : (band + 1) * ROWS])) for part in (one[rows], two))
        order = np.argsort(other, kind="stable")
        ordered = other[order]
        low, high = np.searchsorted(ordered, mine, "left"), np.searchsorted(ordered, mine, "right")
        for step in range(_TRIED):
            hit = low + step < high
            codes.append(rows[hit] * len(two) + order[low[hit] + step])
    pairs = np.unique(np.concatenate(codes))
    left, right = np.divmod(pairs, len(two))
    wordless = np.uint32(0xFFFFFFFF)
    keep = (one[left, 0] != wordless) | (two[right, 0] != wordless)
    return left[keep], right[keep]


def signatures(texts: Sequence[str], vocabulary: dict[str, int]) -> np.ndarray:
    """MinHash signatures, (n, BANDS * ROWS) as uint32; all ones for a text without words.

    Args:
        texts: normal texts.
        vocabulary: word -> number, from 1; it grows. Signatures compare only if they were made with one vocabulary.
    """
    made = np.full((len(texts), BANDS * ROWS), 0xFFFFFFFF, dtype=np.uint32)
    salts = _mixed(np.arange(1, BANDS * ROWS + 1, dtype=np.uint64))
    for start, stop in _chunks(texts):
        flat, offsets, filled = _codes(texts[start:stop], vocabulary)
        if len(filled):
            for place, salt in enumerate(salts):
                hashed = _mixed(flat ^ salt) >> np.uint64(32)
                made[start + filled, place] = np.minimum.reduceat(hashed, offsets)
    return made


def _chunks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Bounds of runs of texts of about `_CHUNK` characters."""
    start = size = 0
    for k, text in enumerate(texts, 1):
        size += len(text)
        if size >= _CHUNK or k == len(texts):
            yield start, k
            start, size = k, 0


def _codes(texts: Sequence[str], vocabulary: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words and word pairs as numbers (all rows one after another), where each row begins, and which rows have any."""
    numbers: list[int] = []
    lengths: list[int] = []
    for text in texts:
        found = words(text)
        numbers += [vocabulary.setdefault(word, len(vocabulary) + 1) for word in found]
        lengths.append(len(found))
    counts = np.asarray(lengths, dtype=np.int64)
    single = np.asarray(numbers, dtype=np.uint64)
    last = np.zeros(len(single), dtype=bool)
    last[np.cumsum(counts)[counts > 0] - 1] = True
    # a pair that would reach into the next row becomes the last word once more, which changes no set
    pair = np.where(last, single, (single << np.uint64(32)) | np.append(single[1:], np.uint64(0))[: len(single)])
    both = _mixed(np.stack([single, pair], axis=1).reshape(-1))
    filled = np.flatnonzero(counts)
    offsets = 2 * (np.cumsum(counts) - counts)[filled]
    return both, offsets, filled


def _mixed(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit numbers one to one (multiply and shift, twice), so that near numbers are far apart."""
    values = values * np.uint64(0x9E3779B97F4A7C15)
    values ^= values >> np.uint64(32)
    values *= np.uint64(0xD6E8FEB86659FD93)
    values ^= values >> np.uint64(32)
    return values


def _folded(columns: np.ndarray) -> np.ndarray:
    """ROWS minima of a band as one 64-bit number, (n,)."""
    total = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T:
        total = _mixed(total ^ column.astype(np.uint64)) + np.uint64(0x632BE59BD9B4E019)
    return total


def _sentences(one: Split, two: Split, pairs: dict[int, int], how: str) -> list[str]:
    """The warning about some pairs, with up to three examples; nothing where there are none."""
    if not pairs:
        return []
    shown = [f'{one[i].id} and {two[j].id} ("{_short(one[i])}")' for i, j in sorted(pairs.items())[:3]]
    rest = ", ..." if len(pairs) > 3 else ""
    verb = "is" if len(pairs) == 1 else "are"
    return [f"{len(pairs)} of {len(one)} `{one.name}` rows {verb} {how} a `{two.name}` row: {', '.join(shown)}{rest}"]


def _short(example: Example, most: int = 60) -> str:
    text = " ".join(f"{example.prompt_text} {example.answer}".split())
    return text if len(text) <= most else text[: most - 3].rstrip() + "..."
