"""Multiple-choice questions as an audit asks them: options in their order, letters, solved examples, scores per option."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Example, Split
from letheon.maths.recall import without_last

from ._asked import Words, as_written, asked

if TYPE_CHECKING:
    from letheon.core.readings import Readings

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LISTED = re.compile(r"([A-Z])\) (.*)", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """One question: `options` in the order of the source, `right` the place of the true one, `mark` what follows a letter."""

    id: str
    text: str
    options: tuple[str, ...]
    right: int
    mark: str = "."
    topic: str | None = None

    def listed(self, shift: int = 0) -> str:
        """The question and its options, one a line, moved up by `shift` places in a circle."""
        k = len(self.options)
        lines = [f"{LETTERS[i]}{self.mark} {self.options[(i + shift) % k]}" for i in range(k)]
        return "\n".join([self.text, *lines])


def question_of(row: Example, seed: Callable[[str], int]) -> Question | None:
    """The question of a row, or None where it has no wrong answers.

    A source says where the right option stood by the form `choice-C`; a prompt that lists its options as `A) ...` is taken apart; else the
    place is drawn by `seed(id)`.
    """
    if not row.wrong or not isinstance(row.prompt, str) or not row.prompt or len(row.wrong) >= len(LETTERS):
        return None
    mine = [_LISTED.fullmatch(text) for text in (row.answer, *row.wrong)]
    if all(mine) and all(f"\n{text}" in row.prompt for text in (row.answer, *row.wrong)):
        options = {hit[1]: hit[2] for hit in mine if hit}
        text = row.prompt[: row.prompt.index("\n" + min((row.answer, *row.wrong)))]
        letters = sorted(options)
        if letters == list(LETTERS[: len(letters)]):
            return Question(row.id, text, tuple(options[letter] for letter in letters), letters.index(row.answer[0]), ")", row.group)
    said = re.fullmatch(r"choice-([A-Z])", row.form or "")
    place = LETTERS.index(said[1]) if said else seed(row.id) % (len(row.wrong) + 1)
    place = min(place, len(row.wrong))
    return Question(row.id, row.prompt, (*row.wrong[:place], row.answer, *row.wrong[place:]), place, topic=row.group)


def introduced(question: Question, topic: str | None, shots: Sequence[Question] = ()) -> str:
    """The sentence that opens a list of questions, and solved questions in the same form."""
    about = (topic or question.topic or "").replace("_", " ")
    head = f"The following are multiple choice questions (with answers){f' about {about}' if about else ''}.\n\n"
    return head + "".join(f"{shot.listed()}\nAnswer: {LETTERS[shot.right]}\n\n" for shot in shots)


@dataclass(frozen=True)
class Scores:
    """Summed log-probabilities of the options of n questions.

    Attributes:
        options: n arrays (k_i,), by place among the options of the source; None where a row could not be asked.
        length: n arrays (k_i,) of tokens, end token left out.
        note: what was cut.
        elsewhere: rows whose first choice of the model is one of the letters, in a token that is not scored.
        mass: mean probability of the options together, where they are letters.
    """

    options: list[np.ndarray | None]
    length: list[np.ndarray | None]
    note: str = ""
    elsewhere: int = 0
    mass: float | None = None


def scores(
    readings: Readings, questions: Sequence[Question | None], words: Callable[[Question], Words], said: Callable[[Question], Sequence[str]],
    *, template: bool, name: str, letters: bool = False,
) -> Scores:  # fmt: skip
    """Log-probabilities of what stands for each option.

    Args:
        questions: None where a row is no question.
        words: how a question is asked.
        said: the text for each option, in the order of `options`.
        template: whether the model's template is used.
        name: of the split that is read.
        letters: what is said are letters: look out for letters in other tokens.
    """
    have = [i for i, question in enumerate(questions) if question is not None]
    by_id = {questions[i].id: questions[i] for i in have}
    rows = []
    for i in have:
        texts = list(said(questions[i]))
        right = questions[i].right
        rows.append(Example(questions[i].id, texts[right], questions[i].text, tuple(texts[:right] + texts[right + 1 :])))
    put = asked(readings, Split(rows, name), lambda row: words(by_id[row.id]), template=template, name=name)
    plain, n = as_written(readings), len(questions)
    options: list[np.ndarray | None] = [None] * n
    length: list[np.ndarray | None] = [None] * n
    if not len(put.split):
        return Scores(options, length, put.note)
    true, wrong = plain.answers(put.split), plain.answers(put.split, which="wrong")
    parts = [_sums(one) for one in (true, wrong)]
    others = [wrong.per_row(column) for column in parts[1]]
    elsewhere, mass = 0, []
    for k, i in enumerate(put.kept):
        question = questions[have[int(i)]]
        for out, mine, rest in ((options, parts[0][0], others[0]), (length, parts[0][1], others[1])):
            out[have[int(i)]] = np.insert(rest[k], question.right, mine[k])
        mass.append(float(np.exp(options[have[int(i)]]).sum()))
    if letters:
        elsewhere = _elsewhere(plain, true, wrong, put.split)
    return Scores(options, length, put.note, elsewhere, float(np.mean(mass)) if letters else None)


def _sums(answers) -> tuple[np.ndarray, np.ndarray]:
    """Summed log-probability and number of tokens of each answer, end token left out."""
    keep, offsets = without_last(answers.offsets)
    total = np.concatenate([[0.0], np.cumsum(answers.log_probability[keep], dtype=np.float64)])
    return total[offsets[1:]] - total[offsets[:-1]], np.diff(offsets)


def _elsewhere(plain: Readings, true, wrong, split: Split) -> int:
    """Rows whose most likely next token reads as one of the letters without being one of the tokens that are scored."""
    decode = plain.subject.encoder.decode
    top, first = true.top[true.offsets[:-1]], true.target[true.offsets[:-1]]
    starts = wrong.per_row(wrong.target[wrong.offsets[:-1]])
    spelled = {int(token): decode([int(token)]).strip() for token in np.unique(top)}
    marks = [{text.strip() for text in (row.answer, *row.wrong)} for row in split]
    return sum(
        spelled[int(token)] in {mark.rstrip(".)") for mark in mine} and int(token) not in {int(own), *map(int, rest)}
        for token, own, rest, mine in zip(top, first, starts, marks, strict=True)
    )
