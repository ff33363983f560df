"""Near duplicates of some texts in a corpus of any size: MinHash finds candidates, the true share of common shingles decides.

    J(a, b) = |a & b| / |a | b|                 a, b: the sets of shingles of two texts in the form of `data/_overlap.py`
    shingles = "words"    words and pairs of neighbouring words
    shingles = "letters"  all pieces of five characters, which a typing error harms less

The texts that are looked for (few) are indexed, the corpus (large) streams by: memory does not depend on it. Before a row is hashed it must
share enough shingles with all looked-for texts together, |a & union| >= near |a|, and be of a fitting size; no J >= near is lost by that.

Locality-sensitive hashing with `bands` x `rows` minima misses a pair of share J with the probability (the S-curve)

    miss(J) = (1 - J^rows)^bands                below MISS = 0.001 at J = near; 0.00015 at near = 0.7 (32 bands of 4), 1e-7 at J = 0.8

and what it finds wrongly is thrown out by the true J. `data/_overlap.py` measures the same J, and its form of a text, its words and its
threshold are used here; its search is not, because it tries only the first few partners of a row (enough to warn, too few to erase).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Any, Literal

from letheon.core.errors import MethodError
from letheon.data._overlap import words

Shingles = Literal["words", "letters"]
PERMUTATIONS = 128
MISS = 0.001
_ASCII = re.compile(r"\w+", re.ASCII)  # the words of an ASCII text in a third of the time
_PIECE = 5  # characters
_AT_ONCE = 10_000  # shingles that are hashed at a time, to bound memory


def shingles_of(text: str, kind: Shingles = "words") -> frozenset[str]:
    """The shingles of a normal text; none where it has no word."""
    found = _ASCII.findall(text) if text.isascii() else words(text)
    if kind == "words" or not found:
        return frozenset(found).union(map(" ".join, zip(found, found[1:], strict=False)))
    return frozenset(text[k : k + _PIECE] for k in range(max(1, len(text) - _PIECE + 1)))


def share(one: frozenset[str], two: frozenset[str]) -> float:
    """J of two sets of shingles; 0 where both are empty."""
    common = len(one & two)
    return common / (len(one) + len(two) - common) if common else 0.0


def bands_for(near: float, permutations: int = PERMUTATIONS) -> tuple[int, int]:
    """Bands and rows of a band: the longest bands with a miss below MISS at J = near."""
    for rows in range(permutations, 1, -1):
        if miss(near, permutations // rows, rows) <= MISS:
            return permutations // rows, rows
    return permutations, 1


def miss(share: float, bands: int, rows: int) -> float:
    """The probability that a pair with this J has no band in common."""
    return (1 - share**rows) ** bands


class Near:
    """Texts whose near duplicates are looked for.

    Args:
        texts: in the form of `normal`; equal ones count once.
        near: J from which a text is a near duplicate.
        shingles: what J is taken over.
        layout: bands and rows of a band; None: as `bands_for` says.

    Raises:
        MethodError: datasketch is not installed.
    """

    def __init__(self, texts: Iterable[str], near: float, shingles: Shingles = "words", layout: tuple[int, int] | None = None):
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError as error:
            hint = "pip install 'letheon[desk]', or set `near` to 1 to do without"
            raise MethodError("The search for near duplicates needs datasketch, which is not installed", hint) from error
        bands, rows = layout or bands_for(near)
        self.near, self.kind = near, shingles
        self._blank = MinHash(num_perm=bands * rows, seed=1, hashfunc=_number)
        self._index = MinHashLSH(num_perm=bands * rows, params=(bands, rows))
        distinct = {found: text for text in sorted(set(texts), reverse=True) if (found := shingles_of(text, shingles))}
        self.texts = list(distinct.values())
        self._sets = list(distinct)
        self._union = frozenset().union(*self._sets)
        sizes = [len(found) for found in self._sets]
        self._least, self._most = (near * min(sizes), max(sizes) / near) if sizes else (1, 0)
        for k, found in enumerate(self._sets):
            self._index.insert(k, self._signature(found))

    def matches(self, text: str) -> list[tuple[float, str]]:
        """(J, looked-for text) of all that have J >= near with this text and were found, the nearest first."""
        mine = shingles_of(text, self.kind)
        if not self._least <= len(mine) <= self._most or len(mine & self._union) < self.near * len(mine):
            return []
        shares = ((share(mine, self._sets[k]), self.texts[k]) for k in self._index.query(self._signature(mine)))
        return sorted((pair for pair in shares if pair[0] >= self.near), key=lambda pair: (-pair[0], pair[1]))

    def _signature(self, found: frozenset[str]) -> Any:
        made, listed = self._blank.copy(), list(found)
        for start in range(0, len(listed), _AT_ONCE):
            made.update_batch(listed[start : start + _AT_ONCE])
        return made


def _number(shingle: str) -> int:
    """A shingle as 32 bits, the same in every process; `datasketch` scrambles them further."""
    return zlib.crc32(shingle.encode("utf-8", "surrogatepass"))
