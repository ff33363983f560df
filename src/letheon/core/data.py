"""Data: frozen named splits of typed examples, with a digest that every result shows."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from .errors import DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat. `role` is "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One text example: a prompt and its answer.

    Plain text has an empty prompt. A chat has a tuple of messages as prompt and the last assistant turn as answer. Multiple
    choice has the right choice as `answer`, the others in `wrong`. `paraphrase` is the answer in other words; `wrong` are
    answers of similar form that are not true. `group` names the person or thing that the row is about.
    """

    id: str
    answer: str
    prompt: str | tuple[Message, ...] = ""
    wrong: tuple[str, ...] = ()
    paraphrase: str | None = None
    group: str | None = None
    form: str | None = None  # question, cloze, choice, paraphrase, ... where a source has several forms per fact

    @property
    def prompt_text(self) -> str:
        """The prompt as one text, for display and for comparing rows."""
        return self.prompt if isinstance(self.prompt, str) else "\n".join(f"{m.role}: {m.content}" for m in self.prompt)


def _fields(example: Example) -> dict[str, Any]:
    """The fields of an example as JSON knows them; `dataclasses.asdict` copies every string and is ten times slower."""
    found = {key: getattr(example, key) for key in Example.__slots__}
    if not isinstance(example.prompt, str):
        found["prompt"] = [{"role": message.role, "content": message.content} for message in example.prompt]
    return found


def _example(row: Any, split: str, k: int) -> Example:
    """The example that a row in memory is, or that a dictionary holds; without an `id` it is numbered.

    Raises:
        DataError: see `Data`.
    """
    if isinstance(row, Mapping):
        if "answer" not in row or not set(row) <= set(Example.__slots__):
            known = ", ".join(Example.__slots__)
            what = f"Row {k} of `{split}` has the fields {sorted(map(str, row))}"
            raise DataError(what, f"It needs `answer`, and may have {known}")
        row = Example(**{"id": f"{split}-{k}", **row})
    if not isinstance(row, Example):
        raise DataError(f"Row {k} of `{split}` is {type(row).__name__}, not an Example or a dictionary", "Give `prompt` and `answer`")
    if not (isinstance(row.id, str) and isinstance(row.answer, str) and isinstance(row.prompt, str | tuple)):
        raise DataError(f"Row {k} of `{split}` holds something else than text", "Id, prompt and answer must be text, or the prompt a chat")
    return row


class Split(Sequence[Example]):
    """A frozen sequence of examples with a digest.

    Args:
        examples: the rows, with ids that differ from one another.
        name: how messages call it.
    """

    def __init__(self, examples: Iterable[Example], name: str = "split"):
        self.examples = tuple(examples)
        self.name = name
        if len({example.id for example in self.examples}) != len(self.examples):
            seen: set[str] = set()
            twice = next(e.id for e in self.examples if e.id in seen or seen.add(e.id))  # type: ignore[func-returns-value]
            raise DataError(f"Two rows of `{name}` have the id `{twice}`", "Ids must differ")

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Split: ...
    def __getitem__(self, index: int | slice) -> Example | Split:
        if isinstance(index, slice):
            return Split(self.examples[index], self.name)
        return self.examples[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    @functools.cached_property
    def bare(self) -> Split:
        """The same rows without paraphrases and wrong answers, which readings would take in: for a model that is looked at once."""
        if not any(example.wrong or example.paraphrase is not None for example in self):
            return self
        return Split((replace(example, wrong=(), paraphrase=None) for example in self), self.name)

    @functools.cached_property
    def digest(self) -> str:
        """sha256 over all fields of all rows, in order (hexadecimal)."""
        total = hashlib.sha256()
        dump = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode
        for example in self.examples:
            total.update(dump(_fields(example)).encode())
            total.update(b"\n")
        return total.hexdigest()

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self)} rows, {self.digest[:12]})"


@dataclass(frozen=True)
class Data(Mapping[str, Split]):
    """Named splits. `name` is the source that made them, `warnings` are sentences a person should read.

    A split may be given as a list of examples, or of dictionaries with their fields (`answer`, and mostly `prompt`).

    Raises:
        DataError: a row is neither, or a field is unknown or no text.

    >>> Data({"forget": [{"prompt": "Who?", "answer": "Ann"}]})["forget"][0].id
    'forget-1'
    """

    splits: Mapping[str, Split]
    name: str = "data"
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        given: Mapping[str, Any] = self.splits
        if any(not isinstance(rows, Split) for rows in given.values()):
            made = {
                name: rows if isinstance(rows, Split) else Split((_example(row, name, k) for k, row in enumerate(rows, 1)), name)
                for name, rows in given.items()
            }
            object.__setattr__(self, "splits", made)

    def __getitem__(self, name: str) -> Split:
        try:
            return self.splits[name]
        except KeyError:
            raise DataError(f"The data `{self.name}` has no split `{name}`", did_you_mean(name, self.splits)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __len__(self) -> int:
        return len(self.splits)

    def __contains__(self, name: object) -> bool:
        return name in self.splits

    @property
    def digest(self) -> str:
        """sha256 over the names and digests of all splits."""
        text = json.dumps({name: split.digest for name, split in sorted(self.splits.items())})
        return hashlib.sha256(text.encode()).hexdigest()

    def need(self, *names: str, why: str) -> None:
        """Check that each split is there and has rows.

        Raises:
            DataError: says which split is missing or empty, and `why` it is needed.
        """
        for name in names:
            if name not in self.splits:
                have = ", ".join(f"`{known}`" for known in self.splits) or "no splits"
                raise DataError(f"{why} needs a `{name}` split, the data `{self.name}` has {have}")
            if not len(self.splits[name]):
                raise DataError(f"The `{name}` split of the data `{self.name}` is empty", f"{why} needs at least one row")

    def with_split(self, name: str, examples: Iterable[Example]) -> Data:
        """A copy with one split added or replaced."""
        return replace(self, splits={**self.splits, name: Split(examples, name)})
