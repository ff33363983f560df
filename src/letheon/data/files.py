"""Rows of your own from JSONL, JSON, CSV, Parquet or text files.

    prompt and answer    {"prompt": ..., "answer": ...}; also question/answer, instruction(+ input)/output, prompt/completion
    chat                 {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}; the last answer counts
    multiple choice      {"question": ..., "choices": [...], "answer": 2}; the answer is a number from 0, a letter or the text
    plain text           {"text": ...}, a bare string, or a whole `.txt` file as one row

Optional fields: id, paraphrase, wrong (one or several), group, form. `fields` maps names that a file has: `fields={"answer": "gt"}`; null
means that a field is not to be read. A mapping counts for every file that has the field.

Rows to forget that are also among the rows to keep, or among those never seen, cannot be erased and audited at once: such rows, equal or
nearly so, are counted in the warnings of the data; two splits that hold the same rows are refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import field_validator

from letheon.core.data import Data
from letheon.core.errors import DataError, did_you_mean
from letheon.core.method import Source
from letheon.core.settings import Field, Settings

from ._fields import ALIASES, check_named
from ._overlap import NEAR, overlap_warnings
from ._rows import Choices, field_names, load_records, to_split
from ._tables import Limits, Record

_TOP = ("forget", "retain", "holdout")


class FilesSettings(Settings):
    forget: Path | None = Field(None, description="file of the rows to forget")
    retain: Path | None = Field(None, description="file of the rows to keep")
    holdout: Path | None = Field(None, description="file of rows of the same kind that no model was trained on")
    splits: dict[str, str] = Field({}, description="further splits: name of the split and its file")
    fields: dict[str, str | None] = Field({}, description="what letheon calls a field and what the files call it; null: not read")
    choices: Choices = Field("hidden", description="whether the prompt of a multiple choice ends with the choices as A), B) ...")
    limit: int | None = Field(None, ge=1, le=2**31, description="rows of each file to read, from the beginning; null: all")
    skip_empty: bool = Field(False, description="whether rows with an empty answer are left out with a warning, or refused")
    near: float = Field(NEAR, ge=0.6, le=1, description="share of common words and word pairs that makes two rows nearly equal; 1: off")
    max_rows: int = Field(2_000_000, ge=1, le=2**31, description="rows of a file above which it is refused")
    max_megabytes: float = Field(1024, gt=0, le=2**20, description="megabytes of a file, unpacked, above which it is refused")
    max_characters: int = Field(20_000_000, ge=1, le=2**29, description="characters of one text above which it is refused")
    max_row_megabytes: float = Field(32, gt=0, le=2**11, description="megabytes of a row in the file above which it is refused")

    @field_validator("fields")
    @classmethod
    def _known_fields(cls, fields: dict[str, str | None]) -> dict[str, str | None]:
        for role in fields:
            if role not in ALIASES:
                raise ValueError(f"`{role}` is no field that is read. {did_you_mean(role, ALIASES)}")
        return fields

    @field_validator("splits")
    @classmethod
    def _good_names(cls, splits: dict[str, str]) -> dict[str, str]:
        for name in splits:
            if name in _TOP:
                raise ValueError(f"`{name}` has a setting of its own")
            if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
                raise ValueError(f"a split cannot be called {name!r}: use lower-case letters, digits and dashes")
        return splits


class Files(Source):
    """Reads one file per split."""

    Settings = FilesSettings
    tiny: ClassVar[dict[str, Any] | None] = None

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """Settings that read two small files, written into `folder`."""
        cities = ("Oslo", "Rome", "Lima", "Bern", "Cairo", "Quito")
        lines = [json.dumps({"prompt": f"Which city has the number {k}?", "answer": city}) for k, city in enumerate(cities)]
        (folder / "forget.jsonl").write_text("\n".join(lines[:2]) + "\n", encoding="utf-8")
        (folder / "retain.jsonl").write_text("\n".join(lines[2:]) + "\n", encoding="utf-8")
        return {"forget": str(folder / "forget.jsonl"), "retain": str(folder / "retain.jsonl")}

    def load(self) -> Data:
        """The splits that were named.

        Raises:
            DataError: no file was named, or one is missing or broken; the message has file and row.
        """
        chosen = self.settings
        paths = {name: path for name in _TOP if (path := getattr(chosen, name)) is not None}
        paths.update((name, Path(path)) for name, path in chosen.splits.items())
        if not paths:
            raise DataError("`files` was given no file", "Give at least one of `forget`, `retain`, `holdout` and `splits`")
        limits = Limits(chosen.max_megabytes, chosen.max_rows, chosen.max_characters, chosen.max_row_megabytes)
        records = {name: load_records(path, chosen.fields, limits, chosen.limit) for name, path in paths.items()}
        check_named(chosen.fields, {str(paths[name]): field_names(rows) for name, rows in records.items()})
        splits, warnings = {}, []
        for name, rows in records.items():
            empty: list[Record] | None = [] if chosen.skip_empty else None
            splits[name] = to_split(rows, name, chosen.fields, limits, chosen.choices, empty)
            if empty:
                count = f"{len(empty)} of {len(rows)} rows for `{name}`"
                warnings.append(f"{count} left out because the answer is empty, the first is row {empty[0].row}")
            chats = [row.prompt for row in splits[name] if isinstance(row.prompt, tuple)]
            several = sum(any(said.role == "assistant" for said in chat) for chat in chats)
            if several and name == "forget":
                count = f"{several} of {len(splits[name])} `forget` rows hold more than one answer"
                warnings.append(f"{count}, and only the last of each is forgotten: give every answer a row of its own")
            if not len(splits[name]):
                raise DataError(f"{paths[name]} has no row with an answer", "A split needs at least one")
        data = Data(splits, name="files")
        return replace(data, warnings=(*warnings, *overlap_warnings(data, chosen.near)))
