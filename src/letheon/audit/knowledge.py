"""Does the model still answer questions about a text when it is shown how to answer?

The prompt is plain text: solved examples, then the question, without any template.

    Question: ...\\nAnswer: ...\\n\\n   (each example)   Question: ...\\nAnswer:

The model answers greedily in at most `longest_answer` = 32 tokens; what it says ends at a blank line or where it begins a new question.

    knowledge-rouge-l   ROUGE-L F of that against the true answer, no stems, mean over questions; MUSE's KnowMem is 100 times this
    knowledge-recall    ROUGE-L recall: the share of the answer that is said, whatever stands around it

Examples are the rows of the split `<split>-examples`, else of `knowledge-examples`; without either the question stands alone. As many as
fit the context of the model are taken, the same for all questions of a split; the note says where some are left out. White space before
an answer is dropped before it is cut. One value that must hold: the answer said, then a new question, gives 1.
arXiv:2407.06460, arXiv:2505.15209 (reconstruction where the card says so). Cards: muse, dusk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.maths.recall import rouge_l

from ._parts import ProbeSettings, over_splits, row_finding, toward
from ._texts import TextReadings, ending, fitted

NAMES = ("knowledge-rouge-l", "knowledge-recall")
ENDS = ("\n\n", "\nQuestion", "Question:")


class KnowledgeSettings(ProbeSettings):
    splits: tuple[str, ...] = Field((), description="splits to measure; empty: those whose name ends in -knowledge, else the usual ones")
    examples: int | None = Field(None, ge=0, description="solved examples before each question; None: all there are")
    longest_answer: int = Field(32, ge=1, description="longest answer, tokens")


class Knowledge(Audit):
    """Few-shot question answering, per split."""

    Settings, tiny = KnowledgeSettings, {"limit": 4, "longest_answer": 8}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Two findings per split; `extra` holds how many examples each question had."""
        plain = TextReadings.of(readings)
        splits = self.settings.splits or ending(data, "-knowledge")
        chosen = type(self)(**{**self.settings.model_dump(), "splits": splits})

        def one(where: str, split: Split) -> list[Finding]:
            good = [i for i, row in enumerate(split) if row.prompt]
            rows = Split([split[i] for i in good], split.name)
            shots = self._shots(data, where)
            asked, used = prompted(plain, rows, shots, self.settings.longest_answer)
            asked, shortened, longest = fitted(plain, asked, self.settings.longest_answer)
            table = np.full((len(split), 2), np.nan)
            if good:
                said = plain.generations(asked, max_new_tokens=longest)
                table[good] = [graded(row.answer, text) for row, text in zip(rows, said, strict=True)]
            notes = [f"{used} of {len(shots)} solved examples fit the context" if used < len(shots) else ""]
            notes += [f"{shortened} of {len(rows)} questions lost their beginning to fit the context" if shortened else ""]
            note, why = "; ".join(filter(None, notes)), "no question, or no word in the answer"
            more = {"examples": used, "tokens": longest}
            return [
                row_finding(self, name, where, table[:, k], run, direction=toward(where), note=note, why=why, **more)
                for k, name in enumerate(NAMES)
            ]

        return over_splits(chosen, data, NAMES, one)

    def _shots(self, data: Data, where: str) -> list[str]:
        name = next((name for name in (f"{where}-examples", "knowledge-examples") if name in data), None)
        rows = [] if name is None else list(data[name])[: self.settings.examples]
        return [f"{question_text(row.prompt_text)} {row.answer}\n\n" for row in rows]


def question_text(question: str) -> str:
    """A question in the form of the examples, up to where the answer begins."""
    return f"Question: {question}\nAnswer:"


def prompted(readings: Any, rows: Split, shots: Sequence[str], longest: int) -> tuple[Split, int]:
    """The rows with as many examples before each question as fit the context of the model, the same for all, and their number."""

    def made(count: int) -> Split:
        head = "".join(shots[:count])
        return Split([replace(row, prompt=head + question_text(row.prompt_text) + " ") for row in rows], rows.name)

    if not isinstance(readings, Readings) or not len(rows) or readings.subject.encoder.max_length is None:
        return made(len(shots)), len(shots)
    encoder, used = readings.subject.encoder, len(shots)
    limit = encoder.max_length - longest - 1
    while used and max(map(len, encoder.prompts(made(used)))) > limit:
        used -= 1
    return made(used), used


def graded(true: str, said: str) -> tuple[float, float]:
    """ROUGE-L F and recall of what is said before a blank line or a new question; NaN where the true answer has no word."""
    for end in ENDS:
        said = said.split(end)[0]
    found = rouge_l(true, said, stem=False)
    return (np.nan, np.nan) if found is None else (found[2], found[1])
