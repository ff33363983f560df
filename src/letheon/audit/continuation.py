"""Does the model go on with a text word for word?

The model is given the beginning of a text, without any template, and goes on greedily for `max_new_tokens` = 128 tokens. The true
continuation is cut to as many tokens BEFORE it is compared, or a short look at a long truth would count as forgetting.

    continuation-rouge-l        ROUGE-L F = 2 P R / (P + R), P = LCS / words said, R = LCS / words of the truth
    continuation-rouge-1        ROUGE-1 F: the same with shared words in any order
    continuation-lcs            LCS, the longest common subsequence, in words
    continuation-levenshtein    edits of characters between what was said and the truth: a distance, lower is closer

Words are in lower case, without stems. MUSE's VerbMem is 100 times the mean of the first.
F falls when a model runs on, recall does not (`extra` holds the mean recall). DUSK's fifth score, the cosine of sentence embeddings, needs
an embedding model and is left out. Rows of plain text without a prompt are cut after `given` of their words. A prompt longer than the
context loses its beginning; the note says how often. One value that must hold: a model that copies the truth gives 1, 1, its words, 0.
arXiv:2407.06460, arXiv:2505.15209 (reconstruction where the card says so). Cards: muse, dusk.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Data, Example, Split
from letheon.core.findings import Direction, Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.maths.recall import common_subsequence, rouge_l, rouge_words
from letheon.maths.strings import edit_distance, rouge_1

from ._parts import ProbeSettings, over_splits, row_finding, toward
from ._texts import TextReadings, ending, fitted

if TYPE_CHECKING:
    from letheon.core.readings import Readings

NAMES = ("continuation-rouge-l", "continuation-rouge-1", "continuation-lcs", "continuation-levenshtein")


class ContinuationSettings(ProbeSettings):
    splits: tuple[str, ...] = Field((), description="splits to measure; empty: those whose name ends in -verbatim, else the usual ones")
    max_new_tokens: int = Field(128, ge=1, description="tokens that are generated, and to which the truth is cut")
    given: float = Field(0.5, gt=0, lt=1, description="share of the words of a plain text that the model is given")


class Continuation(Audit):
    """Greedy continuations against the true ones, per split."""

    Settings, tiny = ContinuationSettings, {"limit": 4, "max_new_tokens": 8}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Four findings per split; `extra` of the first holds the mean recall."""
        plain = TextReadings.of(readings)
        splits = self.settings.splits or ending(data, "-verbatim")
        chosen = type(self)(**{**self.settings.model_dump(), "splits": splits})

        def one(where: str, split: Split) -> list[Finding]:
            rows = Split([begun(row, self.settings.given) for row in split], split.name)
            good = [i for i, row in enumerate(rows) if row.prompt]
            asked, shortened, longest = fitted(plain, Split([rows[i] for i in good], split.name), self.settings.max_new_tokens)
            table = np.full((len(split), 5), np.nan)
            if good:
                said = plain.generations(asked, max_new_tokens=longest)
                table[good] = [scores(row.answer, text) for row, text in zip(asked, said, strict=True)]
            notes = [f"{shortened} of {len(asked)} prompts lost their beginning to fit the context" if shortened else ""]
            notes += [f"{longest} tokens at most: the context is short"] * (longest < self.settings.max_new_tokens)
            note, why = "; ".join(filter(None, notes)), "nothing to continue, or no word in the truth"
            recall = table[:, 4][np.isfinite(table[:, 4])]
            more = {"rouge_l_recall": float(recall.mean()) if len(recall) else None, "tokens": longest}
            return [
                row_finding(
                    self, name, where, table[:, k], run, direction=_toward(where, name), note=note, why=why, **(more if not k else {})
                )
                for k, name in enumerate(NAMES)
            ]

        return over_splits(chosen, data, NAMES, one)


def _toward(where: str, name: str) -> Direction:
    return toward(where, "lower" if name == NAMES[3] else "higher")


def begun(row: Example, share: float) -> Example:
    """A row of plain text as prompt and answer: the first `share` of its words are given. A row with a prompt stays."""
    if row.prompt:
        return row
    starts = [hit.start() for hit in re.finditer(r"\S+", row.answer)]
    if len(starts) < 2:
        return row
    at = starts[min(max(1, int(share * len(starts))), len(starts) - 1)]
    return replace(row, prompt=row.answer[:at], answer=row.answer[at:])


def scores(true: str, said: str) -> Sequence[float]:
    """ROUGE-L F, ROUGE-1 F, LCS in words, Levenshtein distance and ROUGE-L recall, without stems; NaN where the truth has no word."""
    long, single = rouge_l(true, said, stem=False), rouge_1(true, said, stem=False)
    if long is None or single is None:
        return (np.nan,) * 5
    common = common_subsequence(rouge_words(true, False), rouge_words(said, False))
    return long[2], single[2], float(common), float(edit_distance(true.strip(), said.strip())), long[1]
