"""Where a method stands in a comparison: its rows in the `results.json` of a sweep, as a few numbers.

    way         (before - x) / (before - retrained) of the forget probability x, mean over seeds
    forgotten   way, or 1 / way beyond 1: past the retrained model counts as much as short of it; 0 below 0
    kept        what should stay, as a share of the original, at most 1: model utility, else the probability of rows to keep
    score       harmonic mean of forgotten and kept
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from letheon.core.errors import DataError
from letheon.core.registry import plugins
from letheon.report.sweep import FORGOTTEN, KEPT, compared
from letheon.report.text import finite

from .tested import AXES

TABLE = Path(__file__).with_name("atlas.json")
CHANGES = ("erase", "guard", "adapt", "shield", "keep", "compress")  # roles of what a sweep calls its method


class Standing(BaseModel):
    """One row of one comparison; `cost` is relative to the exact retrain, `place` counts from the best score."""

    model_config = ConfigDict(frozen=True)
    comparison: str
    row: str
    uses: tuple[str, ...]
    seeds: int
    forgotten: float
    kept: float
    score: float
    cost: float | None
    front: bool
    place: int
    of: int


class Comparison(BaseModel):
    """All rows of one comparison, and the digest of the file that they come from."""

    model_config = ConfigDict(frozen=True)
    name: str
    sha256: str
    rows: tuple[Standing, ...]


def read(path: Path) -> Comparison:
    """The rows of a `results.json`.

    Raises:
        DataError: there is no such file, or it is not the results of a sweep.
    """
    path = path / "results.json" if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"There is no file {path}", "A sweep writes it: `letheon sweep`")
    content = path.read_bytes()
    try:
        results = json.loads(content)
        rows = _rows(path.resolve().parent.name, results)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} does not hold the results of a sweep: {type(error).__name__}: {error}") from error
    return Comparison(name=path.resolve().parent.name, sha256=hashlib.sha256(content).hexdigest(), rows=rows)


def _rows(name: str, results: Mapping[str, Any]) -> tuple[Standing, ...]:
    front = {line.label for line in compared(results).lines if line.front}
    anchors = results.get("anchors", {})
    before, never = anchors.get("before", {}), anchors.get("retrained", {})
    cells: dict[str, list[Mapping[str, Any]]] = {}
    for cell in results["cells"]:
        if "values" in cell:
            cells.setdefault(cell["row"], []).append(cell)
    retrain = _mean([_seconds(cell) for cell in cells.get("retrain", ())])
    key = next((key for key in KEPT if finite(before.get(key))), None)
    start, goal = finite(before.get(FORGOTTEN)), finite(never.get(FORGOTTEN))
    if key is None or start is None or goal is None or start == goal:
        return ()
    found = []
    for row, ours in cells.items():
        now, stays = (_mean([finite(cell["values"].get(each)) for cell in ours]) for each in (FORGOTTEN, key))
        if now is None or stays is None:
            continue
        way = (start - now) / (start - goal)
        forgotten, kept = max(0.0, 1 / way if way > 1 else way), min(1.0, max(0.0, stays / before[key]))
        score = 0.0 if min(forgotten, kept) <= 0 else 2 / (1 / forgotten + 1 / kept)
        seconds = _mean([_seconds(cell) for cell in ours])
        cost = seconds / retrain if seconds is not None and retrain else None
        found.append((score, row, ours, forgotten, kept, cost))
    order = sorted((score for score, row, *_ in found if row != "retrain"), reverse=True)
    return tuple(
        Standing(
            comparison=name, row=row, uses=uses(ours[0]["method"]), seeds=len(ours), forgotten=round(forgotten, 4), kept=round(kept, 4),
            score=round(score, 4), cost=None if cost is None else round(cost, 4), front=row in front,
            place=0 if row == "retrain" else order.index(score) + 1, of=len(order),
        )
        for score, row, ours, forgotten, kept, cost in sorted(found, key=lambda one: -one[0])
    )  # fmt: skip


def uses(method: Mapping[str, Any]) -> tuple[str, ...]:
    """The plug-ins that a method and its settings name, as `role/name`."""
    found = [f"{role}/{method['name']}" for role in CHANGES if method["name"] in plugins(role)]
    for key, role in AXES.items():
        value = method.get(key)
        name = value.get("name") if isinstance(value, dict) else str(value).partition(":")[0]
        if name in plugins(role):
            found.append(f"{role}/{name}")
    return tuple(found)


def _seconds(cell: Mapping[str, Any]) -> float | None:
    return finite(cell.get("cost", {}).get("processor_seconds"))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@functools.cache
def table() -> dict[str, Any]:
    """What `letheon pages --table` wrote into the package: comparisons, tests and dates. Empty where it has not been made."""
    return json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else {}


def shipped() -> list[Comparison]:
    """The comparisons that come with the package."""
    try:
        return [Comparison.model_validate(one) for one in table().get("comparisons", [])]
    except ValidationError as error:
        raise DataError(f"{TABLE.name} is not what `letheon pages --table` writes: {error.errors()[0]['msg']}") from error


def comparisons(results: Sequence[Path]) -> list[Comparison]:
    """The shipped comparisons and those of `results`; a newer one of the same name takes the place of the older."""
    found = {one.name: one for one in shipped()}
    for path in results:
        one = read(Path(path))
        found[one.name] = one
    return list(found.values())
