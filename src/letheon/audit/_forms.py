"""The same fact in several surface forms: rows sorted by form, forms made of other forms, and scores of their answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from letheon.core.answers import Answers
from letheon.core.data import Data, Example, Split

if TYPE_CHECKING:
    from letheon.core.readings import Readings

QUESTION, CLOZE, CHOICE, CHARACTERS, PARAPHRASE = "question", "cloze", "choice", "characters", "paraphrase"
SPELL = "Write the answer one character per line."
LETTERS = "ABCD"
_LETTERED = re.compile(r"^([A-Z])\)\s")


def forms_of(data: Data, family: str) -> dict[str, Split]:
    """Form -> rows, from the split `family` and all splits `family-...`, by the `form` of the rows.

    A row without a form is a question. Characters are made of the questions, and choices of questions with three wrong answers where no
    choice is at hand. A row that stands in several splits counts once.
    """
    found: dict[str, dict[str, Example]] = {}
    for name in data:
        if name == family or name.startswith(f"{family}-"):
            for row in data[name]:
                if row.prompt and (row.form is not None or name == family):
                    found.setdefault(row.form or QUESTION, {}).setdefault(row.id, row)
    questions = list(found.get(QUESTION, found.get(CLOZE, {})).values())
    values = {_fact(row): row.answer for row in found.get(CLOZE, {}).values()}
    made = {
        CHARACTERS: [by_character(row, values.get(_fact(row))) for row in questions],
        CHOICE: [as_choice(row, k) for k, row in enumerate(questions) if len(row.wrong) >= 3],
    }
    rows = {form: list(known.values()) for form, known in found.items()}
    rows |= {form: some for form, some in made.items() if some and form not in rows}
    order = (QUESTION, CLOZE, CHOICE, CHARACTERS, PARAPHRASE)
    names = [*(form for form in order if form in rows), *(form for form in rows if form not in order)]
    return {form: Split(rows[form], f"{family}-{form}") for form in names}


def _fact(row: Example) -> str:
    """What all forms of one fact have in common: the id up to the form."""
    return row.id.rsplit("/", 1)[0]


def by_character(row: Example, value: str | None = None) -> Example:
    """The question with the request to spell the answer: its characters without spaces, each followed by a line break.

    Args:
        row: a question.
        value: what is asked for alone, where the answer is a whole sentence.
    """
    text = "".join((value or row.answer).split())
    return replace(row, id=f"{row.id}/{CHARACTERS}", prompt=f"{row.prompt_text}\n{SPELL}", answer="".join(f"{c}\n" for c in text), wrong=(),
                   paraphrase=None, form=CHARACTERS)  # fmt: skip


def as_choice(row: Example, k: int) -> Example:
    """The question with the true answer and three wrong ones below it; the true one stands at place k modulo 4."""
    options = list(row.wrong[:3])
    options.insert(k % 4, row.answer)
    lines = [f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=True)]
    wrong = tuple(line for place, line in enumerate(lines) if place != k % 4)
    return replace(row, id=f"{row.id}/{CHOICE}", prompt="\n".join([row.prompt_text, *lines]), answer=lines[k % 4], wrong=wrong,
                   paraphrase=None, form=CHOICE)  # fmt: skip


def by_letter(split: Split) -> Split | None:
    """A split of choices whose answers are letters alone; None where an answer has none."""
    rows = []
    for row in split:
        marks = [_LETTERED.match(text) for text in (row.answer, *row.wrong)]
        if not row.wrong or any(mark is None for mark in marks):
            return None
        right, *wrong = (mark[1] for mark in marks)  # type: ignore[index]
        rows.append(replace(row, answer=right, wrong=tuple(wrong), paraphrase=None))
    return Split(rows, split.name)


@dataclass(frozen=True)
class Scores:
    """Per row, (n,): probability of the answer (geometric mean over tokens), share of tokens that greedy decoding says, and for choices
    the share of the right letter among the letters (else the probability once more). NaN where nothing can be scored."""

    probability: np.ndarray
    accuracy: np.ndarray
    known: np.ndarray
    chance: float


def scores(readings: Readings, split: Split) -> Scores:
    """Scores of the answers of one form, end tokens left out."""
    letters = by_letter(split) if split.name.endswith(f"-{CHOICE}") else None
    right = readings.answers(split if letters is None else letters)
    probability, accuracy = np.exp(token_mean(right, right.log_probability)), token_mean(right, right.rank == 0)
    if letters is None:
        return Scores(probability, accuracy, probability, 0.0)
    wrong = readings.answers(letters, "wrong")
    others = np.array([part.sum() for part in wrong.per_row(np.exp(token_mean(wrong, wrong.log_probability)))])
    options = 1 + float(np.mean([len(row.wrong) for row in letters]))
    return Scores(probability, accuracy, probability / (probability + others), 1 / options)


def token_mean(answers: Answers, values: np.ndarray) -> np.ndarray:
    """The mean over the tokens of each answer without its end token, (k,); NaN where that is all there is."""
    ends = answers.offsets[1:] - 1
    total = np.add.reduceat(values.astype(np.float64), answers.offsets[:-1]) - values[ends]
    counts = answers.counts - 1
    return np.divide(total, counts, out=np.full(len(answers), np.nan), where=counts > 0)


@dataclass(frozen=True)
class Fall:
    """What the original gives and what is given now on the rows that it knew, (n,) each; `floor` is what never having known gives."""

    before: np.ndarray
    after: np.ndarray
    floor: float

    @classmethod
    def of(cls, rows: np.ndarray, before: Scores, after: Scores, never: Scores | None) -> Fall:
        """From scores of all rows; without a retrained model the floor is chance."""
        floor = float(never.known[rows].mean()) if never is not None and rows.any() else float(before.chance)
        return cls(before.known[rows], after.known[rows], floor)

    @property
    def tells(self) -> bool:
        """Whether the original is above the floor, so that there is anything to fall."""
        return len(self.before) > 0 and float(self.before.mean()) - self.floor > 0.05

    def drop(self, floor: float | None = None) -> float:
        """(before - after) / (before - floor) of the means, clipped to 0..1."""
        room = self.before.mean() - (self.floor if floor is None else floor)
        return float(np.clip((self.before.mean() - self.after.mean()) / room, 0, 1))


def dependence(drops: Mapping[str, float]) -> float:
    """1 - min / max of the drops of all forms: 0 where all forms fall alike, 1 where one stays as it was."""
    return 1 - min(drops.values()) / max(drops.values())
