"""Records to examples: which fields of a row are its prompt and answer, in the shapes that people have.

    chat               messages: a list of {role, content}; the last assistant turn is the answer, the turns before it the prompt
    multiple choice    question, choices (a list, option1, option2 ... or A, B ...) and answer (number from 0, letter or text)
    prompt, answer     also question/answer, query/answer, instruction(+ input)/output, prompt/response, prompt/completion, input/target
    plain text         text, or a bare string

Names are found without regard to case. A field that holds null is not there. Optional: id, wrong, paraphrase, group, form.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from letheon.core.data import Example, Message, Split
from letheon.core.errors import DataError

from ._fields import LETTERS, MAIN, Fields, kind, option_keys, places, present, row_names, shown
from ._tables import Limits, Record, read_records

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "developer": "system"}
Choices = Literal["hidden", "listed"]


def load_records(path: Path, fields: Fields, limits: Limits, limit: int | None = None) -> list[Record]:
    """The rows of a file as they stand, the first `limit` of them if that is given."""
    return list(itertools.islice(read_records(path, limits, row_names(fields)), limit))


def field_names(records: Iterable[Record]) -> list[str]:
    """All field names of some rows, in the order in which they turn up."""
    keys = dict.fromkeys(tuple(record.value) for record in records if isinstance(record.value, dict))
    return list(dict.fromkeys(name for names in keys for name in names))


def to_split(
    records: Sequence[Record], name: str, fields: Fields, limits: Limits, choices: Choices = "hidden", empty: list[Record] | None = None
) -> Split:
    """Make a split of the rows of one file.

    Args:
        records: the rows.
        name: name of the split; rows without id are called `<name>-<row number>`.
        fields: what this reader calls a field -> what the file calls it; None: not read. Names that the file lacks do not count.
        limits: what is too large.
        choices: whether the prompt of a multiple choice lists the choices.
        empty: rows whose answer is empty are put here and left out; None: they are errors.

    Raises:
        DataError: names file, row and what is wrong.
    """
    fields = present(fields, field_names(records))
    found: list[Example] = []
    rows: dict[str, int] = {}
    for record in records:
        example = _Row(record, fields, limits).example(f"{name}-{record.row}", choices)
        if not example.answer.strip():
            if empty is None:
                raise DataError(f"{record.where} has an empty answer or text", "Remove the row, or leave out such rows with `skip_empty`")
            empty.append(record)
            continue
        if example.id in rows:
            hint = 'Ids must differ; give fields={"id": null} to number the rows instead'
            raise DataError(f"{record.where} has the id `{example.id}`, and so has row {rows[example.id]}", hint)
        rows[example.id] = record.row
        found.append(example)
    return Split(found, name)


class _Row:
    """One record on its way to an example."""

    def __init__(self, record: Record, fields: Fields, limits: Limits):
        self.where, self.limits, self.fields = record.where, limits, fields
        value = {"text": record.value} if isinstance(record.value, str) else record.value
        if not isinstance(value, dict):
            hint = 'A row looks like {"prompt": "...", "answer": "..."}'
            raise DataError(f"{self.where} is {kind(value)}, not an object with fields", hint)
        self.value = {key: part for key, part in value.items() if part is not None}
        # a bare string has no names that a mapping could point to
        self.places = {"text": "text"} if isinstance(record.value, str) else places(tuple(self.value), tuple(sorted(fields.items())))

    def example(self, name: str, choices: Choices) -> Example:
        """The example; `name` is its id where the row has none."""
        wrong = self.texts("wrong") if "wrong" in self.places else ()
        form = self.optional("form")
        prompt: str | tuple[Message, ...]
        shape = self.shape()
        if shape == "text":
            prompt, answer = "", self.text("text")
        elif shape == "messages":
            prompt, answer = self.chat()
        elif shape == "choices":
            prompt, answer, others = self.choice(choices)
            wrong, form = (*others, *wrong), form or "choice"
        else:
            prompt, answer = self.prompt(), self.text("answer")
        return Example(self.identity() or name, answer, prompt, wrong, self.optional("paraphrase"), self.optional("group"), form)

    def shape(self) -> str:
        """Which of the shapes this row has."""
        mapped = {role for role in MAIN if self.fields.get(role) in self.value}
        pair = "prompt" in self.places and "answer" in self.places
        if "text" in mapped and not mapped & {"prompt", "answer"}:
            return "text"
        if "messages" in self.places and ("messages" in mapped or not mapped):
            return "messages"
        if pair:
            options = "choices" in self.places or ("choices" not in self.fields and option_keys(tuple(self.value)))
            return "choices" if options else "pair"
        half = next((role for role in ("prompt", "answer") if role in self.places), None)
        if half is None and "text" in self.places:
            return "text"
        has = f"it has {shown(self.value)}"
        missing = {"prompt": "answer", "answer": "prompt", None: "prompt and no answer"}[half]
        named = {"prompt": '"answer": "NAME"', "answer": '"prompt": "NAME"', None: '"prompt": "NAME", "answer": "NAME"'}[half]
        hint = f"Say which field it is: fields={{{named}}}, as in --data 'files:forget=FILE,fields={{{named}}}'"
        if half is not None and "text" in self.places:
            hint += f'; or give fields={{"{half}": null}} to read `{self.places["text"]}` as plain text'
        raise DataError(f"{self.where} has no {missing}: {has}", hint)

    def checked(self, value: Any, what: str) -> str:
        """`value` if it is text that can be written as UTF-8 and is not too long."""
        if not isinstance(value, str):
            number = f" ({value})" if isinstance(value, int | float) and abs(value) < 1e9 else ""
            hint = "Write it in quotes, or name another field with `fields`"
            raise DataError(f"{self.where}: `{what}` is {kind(value)}{number}, not text", hint)
        if len(value) > self.limits.characters:
            hint = "Split it, or raise `max_characters`"
            raise DataError(f"{self.where}: `{what}` has {len(value)} characters, more than {self.limits.characters}", hint)
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"U+{ord(value[error.start]):04X}"
            raise DataError(f"{self.where}: `{what}` holds half of a character pair ({half})", "Repair the text") from error
        return value

    def text(self, role: str) -> str:
        """The text of a field that is there."""
        key = self.places[role]
        return self.checked(self.value[key], key)

    def optional(self, role: str) -> str | None:
        """The text of a field, or None where it is absent or empty."""
        if role not in self.places:
            return None
        value = self.value[self.places[role]]
        if role == "group" and isinstance(value, int) and not isinstance(value, bool):
            return _digits(value)
        text = self.text(role)
        return text if text.strip() else None

    def identity(self) -> str | None:
        """The id as text, or None where there is none."""
        value = self.value[self.places["id"]] if "id" in self.places else None
        return _digits(value) if isinstance(value, int) and not isinstance(value, bool) else self.optional("id")

    def listed(self, role: str) -> Any:
        """The value of a field; a list written as JSON text (as in CSV) is read."""
        value = self.value[self.places[role]]
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                return value
        return value

    def texts(self, role: str) -> tuple[str, ...]:
        """The texts of a field that holds one or several."""
        value, key = self.listed(role), self.places[role]
        parts = value if isinstance(value, list) else [value] if value != "" else []
        if not all(self.checked(part, key).strip() for part in parts):
            raise DataError(f"{self.where}: `{key}` holds an empty text", "Leave it out")
        return tuple(parts)

    def prompt(self) -> str:
        """The prompt, with the `input` of an instruction below it."""
        more = self.text("input") if "input" in self.places else ""
        return f"{self.text('prompt')}\n\n{more}" if more.strip() else self.text("prompt")

    def chat(self) -> tuple[str | tuple[Message, ...], str]:
        """The turns before the last assistant turn, and that turn. Turns after it are not part of the row."""
        turns, key = self.listed("messages"), self.places["messages"]
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise DataError(f"{self.where}: `{key}` is not a list of messages", 'A message looks like {"role": "user", "content": "..."}')
        said = [self.message(turn, f"{key}[{k}]") for k, turn in enumerate(turns)]
        last = max((k for k, message in enumerate(said) if message.role == "assistant"), default=None)
        if last is None:
            raise DataError(f"{self.where}: `{key}` has no assistant turn", "The last assistant turn is the answer")
        return tuple(said[:last]) or "", said[last].content

    def message(self, turn: dict[str, Any], what: str) -> Message:
        """One turn of a chat."""
        role = turn.get("role", turn.get("from"))
        role = _ROLES.get(role, role) if isinstance(role, str) else role
        if role not in ("system", "user", "assistant"):
            raise DataError(f"{self.where}: `{what}` has the role {str(role)[:40]!r}", "Roles are system, user and assistant")
        content = turn.get("content", turn.get("value"))
        if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            content = "".join(self.checked(part.get("text"), what) for part in content)
        return Message(role, self.checked(content, f"{what}.content"))

    def choice(self, choices: Choices) -> tuple[str, str, tuple[str, ...]]:
        """Prompt, right choice and the other choices."""
        options = self.options()
        right = self.right(options)
        prompt = self.prompt()
        if choices == "listed":
            marks = LETTERS if len(options) <= len(LETTERS) else [str(k) for k in range(len(options))]
            options = tuple(f"{mark}) {option}" for mark, option in zip(marks, options, strict=False))
            prompt = "\n".join([prompt, *options])
        return prompt, options[right], tuple(option for k, option in enumerate(options) if k != right)

    def options(self) -> tuple[str, ...]:
        """All choices, in order."""
        if "choices" in self.places:
            value, key = self.listed("choices"), self.places["choices"]
            if isinstance(value, dict):
                value = value.get("text")
            if not isinstance(value, list):
                raise DataError(f"{self.where}: `{key}` is {kind(value)}, not a list", 'Give fields={"choices": null} if it is no choice')
            options = tuple(self.checked(part, key) for part in value)
        else:
            keys = option_keys(tuple(self.value))
            key = keys[0]
            options = tuple(self.checked(self.value[name], name) for name in keys if self.value[name] != "")
        if len(options) < 2 or not all(option.strip() for option in options):
            raise DataError(f"{self.where}: `{key}` must hold two or more choices, none of them empty, got {len(options)}")
        return options

    def right(self, options: tuple[str, ...]) -> int:
        """Place of the right choice: its text, else its letter, else its number counted from 0."""
        key = self.places["answer"]
        given = self.value[key]
        if isinstance(given, int) and not isinstance(given, bool):
            place = given
        else:
            said = self.checked(given, key).strip()
            same = [k for k, option in enumerate(options) if option.strip() == said]
            place = same[0] if same else self.place_of(said, options)
        if not 0 <= place < len(options):
            named = repr(str(given)[:40]) if isinstance(given, str) else str(given) if abs(given) < 1e9 else "a large number"
            hint = "It may be the text of a choice, its letter, or its number counted from 0"
            raise DataError(f"{self.where}: `{key}` is {named}, which is none of the {len(options)} choices", hint)
        return place

    def place_of(self, said: str, options: tuple[str, ...]) -> int:
        """Place of a choice named by label, letter or digits; -1 where it is none of them."""
        value = self.value.get(self.places.get("choices", ""))
        labels: Sequence[Any] = value.get("label") or () if isinstance(value, dict) else ()
        if isinstance(labels, list) and said in labels:
            return labels.index(said)
        if len(said) == 1 and said.upper() in LETTERS:
            return LETTERS.index(said.upper())
        return int(said) if re.fullmatch(r"[0-9]{1,4}", said) else -1


def _digits(number: int) -> str:
    """A whole number as text; Python refuses to write more than some thousand digits, hexadecimal always works."""
    return str(number) if abs(number) < 10**100 else hex(number)

