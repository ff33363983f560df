"""A keyword coreset: of every forget answer only its telling words.

Keywords alone carry much of what unlearning a whole text does. All rows stay; their answers become shorter.

    weight(word, row) = times it occurs in the row * ln((1 + n) / (1 + rows with it))          n rows of `retain`

Kept are the max(1, floor(fraction k)) words of largest weight of the k distinct words of a row, wherever they occur and as they are
written there, joined by spaces; of equal weights the one that comes first. A word that every retain row has weighs 0. Case and punctuation
around a word do not count. Without retain rows the forget rows themselves are counted. fraction = 1 leaves every row as it is. Prompts
stay. arXiv:2504.10185. A reconstruction: the authors' extractor is unknown, this is TF-IDF. Card: mu-coreset.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from letheon.core.data import Data, Split
from letheon.core.method import Curator
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject

from ._coreset import WHOLE, size_of


class KeywordSettings(Settings):
    """How many words are kept."""

    fraction: float = Field(0.3, gt=0, le=1, description="share of the distinct words of each answer that is kept, at least one word")


class Keyword(Curator):
    """Answers cut down to their keywords."""

    Settings, tiny = KeywordSettings, {"fraction": 0.5}

    def curate(self, data: Data, run: Run, subject: Subject | None = None) -> Data:
        """The data with shortened answers in `forget`, and the rows as they were in `forget-all`.

        Raises:
            DataError: there are no rows to forget.
        """
        data.need("forget", why="`keyword`")
        whole = data["forget"]
        known = data["retain"] if "retain" in data and len(data["retain"]) else whole
        rows_with = Counter(word for row in known for word in {_plain(word) for word in row.answer.split()})
        out = [replace(row, answer=self._shortened(row.answer, rows_with, len(known))) for row in whole]
        return data.with_split("forget", out).with_split(WHOLE, Split(whole, WHOLE))

    def _shortened(self, text: str, rows_with: Counter[str], n: int) -> str:
        words = text.split()
        times = Counter(map(_plain, words))  # in order of first appearance
        ranked = sorted(times, key=lambda word: -times[word] * math.log((1 + n) / (1 + rows_with[word])))
        kept = set(ranked[: size_of(self.settings.fraction, len(ranked))])
        return text if len(kept) == len(times) else " ".join(word for word in words if _plain(word) in kept)


def _plain(word: str) -> str:
    """The word in small letters, without what is neither letter nor digit at its ends; a word of such signs alone stays as it is."""
    inside = [k for k, sign in enumerate(word) if sign.isalnum()]
    return word[inside[0] : inside[-1] + 1].casefold() if inside else word
