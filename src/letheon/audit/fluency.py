"""Fluency: does the model still write text, or does it say the same again and again?

    H_n        = -sum_g f_g log2 f_g            f_g: share of the n-gram g among the n-grams of one generated text, n = 2, 3
    fluency    = mean over texts of (2/3 H_2 + 4/3 H_3) / 2, in bits
    repetition = mean over texts of 1 - distinct trigrams / trigrams

Words are runs of letters and digits, and single other signs. A text of one word repeated gives fluency 0 and repetition near 1; m distinct
words give H_n = log2(m - n + 1). A text of fewer than n words has H_n = 0, and no trigram repeats. Longer texts have more entropy: compare
models at the same `max_new_tokens` only. The paper's tables show 100 times this, with another word splitter. arXiv:2406.10890. Card: rwku.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Data, Example, Split
from letheon.core.findings import Direction, Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.maths.choices import ngram_entropy

from ._asked import Words, as_written, asked
from ._parts import ProbeSettings, over_splits, row_finding, toward

if TYPE_CHECKING:
    from letheon.core.readings import Readings

_WORD = re.compile(r"[^\W_]+|[^\w\s]")
NAMES = ("fluency", "repetition")
WHY = "no prompt to ask with, or longer than the context"


class FluencySettings(ProbeSettings):
    """What is asked, and how much may be said."""

    before: str = Field("Instruction: ", description="text before each prompt of a split whose rows are instructions")
    max_new_tokens: int = Field(256, ge=1, description="longest generation, tokens")


class Fluency(Audit):
    """Entropy and repetition of greedy generations, per split."""

    Settings, tiny = FluencySettings, {"limit": 4, "max_new_tokens": 8}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Findings `fluency` and `repetition` per split."""

        def one(where: str, split: Split) -> list[Finding]:
            places = [i for i, row in enumerate(split) if isinstance(row.prompt, str) and row.prompt]
            values = np.full((2, len(split)), np.nan)
            note = ""
            if places:
                posed = Split([replace(split[i], wrong=()) for i in places], where)
                put = asked(readings, posed, self._words, template=True, name=f"{where}, fluency", room=self.settings.max_new_tokens)
                texts = as_written(readings).generations(put.split, self.settings.max_new_tokens)
                for k, text in zip(put.kept, texts, strict=True):
                    values[:, places[int(k)]] = scores(text)
                note = put.note
            return [
                row_finding(self, name, where, value, run, direction=_way(name, where), note=note, why=WHY)
                for name, value in zip(NAMES, values, strict=True)
            ]

        return over_splits(self, data, NAMES, one)

    def _words(self, row: Example) -> Words:
        return Words(f"{self.settings.before}{row.prompt}\n" if row.form == "instruction" else str(row.prompt))


def _way(name: str, where: str) -> Direction:
    """How a forgotten thing is told of says nothing about whether it is gone."""
    return "none" if where.startswith("forget") else toward(where, "higher" if name == "fluency" else "lower")


def scores(text: str) -> tuple[float, float]:
    """Fluency in bits, and the share of trigrams that repeat an earlier one."""
    words = _WORD.findall(text)
    grams = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    repeated = 1 - len(set(grams)) / len(grams) if grams else 0.0
    return (2 / 3 * ngram_entropy(words, 2) + 4 / 3 * ngram_entropy(words, 3)) / 2, repeated
