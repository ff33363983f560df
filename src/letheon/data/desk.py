"""Rows of a deletion desk: what a plan says is to be forgotten now, was forgotten earlier, and stays.

The plan is a JSON file that `letheon requests fulfil` writes. It points to rows of registered files by their place and
copies none of them:

    {"corpora": {NAME: {"path": ..., "fields": {...}, "digest": ...}}, "forget": {NAME: [0, 4, ...]},
     "given": [{"prompt": ..., "answer": ...}], "earlier": [{NAME: [...]}, ...],
     "holdout": {"path": ..., "fields": {...}, "digest": ...}}

A digest is the sha256 of a file as it was when the plan was made; plans that older versions wrote have none.

Splits
    forget              rows of this batch of requests; with `again` those of all earlier batches after them
    forget-1, ...       rows of each earlier batch
    retain              every row that no fulfilled request is about
    holdout             rows never trained on, where the desk has some

An erasure that is given this batch alone may bring earlier rows back. So a method trains with `again`, and an audit looks without.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError
from letheon.core.method import Source
from letheon.core.settings import Field, Settings

from ._rows import load_records, to_split
from ._tables import Limits, Record


class DeskSettings(Settings):
    plan: Path = Field(description="the plan of a fulfilment")
    again: bool = Field(True, description="whether the rows of earlier batches are among those to forget")


class Desk(Source):
    """Reads a plan and the files that it points to."""

    Settings = DeskSettings
    tiny: ClassVar[dict[str, Any] | None] = None

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """Settings that read a small plan, written into `folder`."""
        cities = ("Oslo", "Rome", "Lima", "Bern", "Cairo", "Quito")
        lines = [json.dumps({"prompt": f"Which city has the number {k}?", "answer": city}) for k, city in enumerate(cities)]
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        corpora = {"cities": {"path": str(folder / "rows.jsonl"), "fields": {}}}
        plan = {"corpora": corpora, "forget": {"cities": [0, 1]}, "earlier": [{"cities": [4]}]}
        (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        return {"plan": str(folder / "plan.json")}

    def load(self) -> Data:
        """The splits of the plan.

        Raises:
            DataError: the plan or a file is missing, broken or not what it was, or a row is not there.
        """
        plan = _plan(self.settings.plan)
        splits = {name: _read(name, one) for name, one in plan["corpora"].items()}
        now = [*_taken(splits, plan["forget"]), *given_of(plan.get("given", ()))]
        earlier = [_taken(splits, places) for places in plan["earlier"]]
        gone = {row.id for rows in (now, *earlier) for row in rows}
        before = [row for rows in earlier for row in rows]
        forget = list({row.id: row for row in (*now, *(before if self.settings.again else ()))}.values())
        retain = [row for name, split in splits.items() for row in _named(name, split) if row.id not in gone]
        found = {"forget": Split(forget, "forget"), "retain": Split(retain, "retain")}
        found |= {f"forget-{k}": Split(rows, f"forget-{k}") for k, rows in enumerate(earlier, 1) if rows}
        if (holdout := plan.get("holdout")) is not None:
            found["holdout"] = _read("holdout", holdout)
        return Data({name: split for name, split in found.items() if len(split)}, name="desk")


def rows_of(name: str, path: str | Path, fields: Mapping[str, str | None]) -> Split:
    """The rows of a file, read as the source `files` reads them; those without an id are called after `name`.

    Raises:
        DataError: it is missing or broken.
    """
    limits = Limits()
    return to_split(load_records(Path(path), dict(fields), limits), name, dict(fields), limits)


def given_of(rows: Iterable[Mapping[str, Any]]) -> list[Example]:
    """Rows that stand in a request; those without an id are called `request-1`, `request-2` ...

    Raises:
        DataError: a row has no prompt or no answer, or is otherwise broken.
    """
    return list(to_split([Record(Path("request"), k, dict(row)) for k, row in enumerate(rows, 1)], "request", {}, Limits()))


def _read(name: str, one: Mapping[str, Any]) -> Split:
    """The rows of a file of the plan, as long as it is what it was then."""
    rows, said = rows_of(name, one["path"], one["fields"]), one.get("digest")
    with open(one["path"], "rb") as file:
        if said not in (None, hashlib.file_digest(file, "sha256").hexdigest()):
            raise DataError(f"{one['path']} has changed since the plan was made", "Put it back as it was, or begin the fulfilment anew")
    return rows


def _named(name: str, rows: Iterable[Example]) -> list[Example]:
    """Rows under ids that no other corpus has."""
    return [replace(row, id=f"{name}/{row.id}") for row in rows]


def _taken(splits: Mapping[str, Split], places: Mapping[str, list[int]]) -> list[Example]:
    found = []
    for name, where in places.items():
        if name not in splits or any(k >= len(splits[name]) for k in where):
            raise DataError(f"The plan points to rows that `{name}` does not have", "Make the plan again")
        found += _named(name, [splits[name][k] for k in where])
    return found


def _plan(path: Path) -> dict[str, Any]:
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        if not {"corpora", "forget", "earlier"} <= set(plan):
            raise ValueError("it lacks corpora, forget or earlier")
        return plan
    except OSError as error:
        raise DataError(f"There is no plan {path}", "`letheon requests fulfil` writes it") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is no plan of a desk: {error}") from error
