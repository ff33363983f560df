"""Multiple-choice files as they stand in benchmarks: WMDP, MMLU, and the instruction form of ARC and its kin.

A row becomes an example whose answer is the right option and whose wrong answers are the others, in their order. Its form says where the
right one stood, `choice-C`, so that an audit can ask with the letters of the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from letheon.core.data import Example
from letheon.core.errors import DataError

from ._bench import in_turn, place_of, records, text_of, texts_of
from ._fields import LETTERS
from ._tables import Record

_QUESTION = re.compile(
    r"\APlease choose the correct .*?: (?P<question>.*?)\s*\n\s*(?P<options>(?:Answer|Solution|Option)1: .*)\Z", re.DOTALL
)
_MARK = re.compile(r"\s*(?:Answer|Solution|Option)([1-9]): ")
_ENDING = re.compile(r"\s*Answer format: [\w/]+\s*\Z")


def choice(id: str, question: str, options: Sequence[str], place: int, group: str | None = None) -> Example:
    """One multiple-choice question."""
    wrong = tuple(option for k, option in enumerate(options) if k != place)
    return Example(id, options[place], question, wrong, group=group, form=f"choice-{LETTERS[place]}")


def choices_of(path: Path, name: str) -> list[Example]:
    """All questions of a file; those of several tasks in turn, so that the first rows are of many tasks.

    Raises:
        DataError: names file, row and what is wrong.
    """
    found = [_row(record, f"{name}-{record.row:05d}") for record in records(path)]
    return in_turn(found, lambda row: row.group)


def _row(record: Record, id: str) -> Example:
    if "choices" not in record.value and "instruction" in record.value:
        return _instruction(record, id)
    options = texts_of(record, record.value.get("choices"), "choices", 2)
    task = next((record.value[key] for key in ("task", "subject") if isinstance(record.value.get(key), str)), None)
    return choice(id, text_of(record, "question"), options, place_of(record, options), task)


def _instruction(record: Record, id: str) -> Example:
    text = _ENDING.sub("", text_of(record, "instruction"))
    found = _QUESTION.match(text)
    parts = _MARK.split(found["options"]) if found else []
    options, numbers = [part.strip() for part in parts[2::2]], [int(number) for number in parts[1::2]]
    if found is None or numbers != list(range(1, len(options) + 1)) or len(options) < 2 or not all(options):
        raise DataError(f"{record.where}: `instruction` does not list its options as Answer1: ... Answer2: ...")
    said = re.fullmatch(r"(?:answer|solution|option)([1-9])", text_of(record, "answer").strip())
    if said is None or int(said[1]) > len(options):
        raise DataError(f"{record.where}: `answer` is {record.value['answer']!r}, which is none of the {len(options)} options")
    return choice(id, found["question"], options, int(said[1]) - 1)
