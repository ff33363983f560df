"""Shared by all probes: which splits they look at, and how per-row values become a finding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Direction, Finding, unmeasured
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.maths.stats import bootstrap, finite

UTILITY = ("retain-check", "real-authors", "world-facts")  # what a model should still know


class ProbeSettings(Settings):
    """Settings that all probes share."""

    splits: tuple[str, ...] = Field(
        (), description="splits to measure; empty: forget, retain-check (or retain), real-authors and world-facts, as far as they exist"
    )
    limit: int | None = Field(None, ge=1, description="rows per split, the first ones in their order; None: all")


def cut(split: Split, limit: int | None) -> Split:
    """The first `limit` rows."""
    return split if limit is None or len(split) <= limit else split[:limit]


def halves(split: Split) -> tuple[Split, Split]:
    """Rows the attacker has, and rows that are asked, with their answers alone.

    Whole groups where there are several, else every second row.
    """
    groups = list(dict.fromkeys(row.group for row in split if row.group is not None))
    mine = set(groups[::2])
    known = [row for i, row in enumerate(split) if (row.group in mine if len(groups) > 1 else i % 2 == 0)]
    taken = {row.id for row in known}
    return Split(known, "known").bare, Split([row for row in split if row.id not in taken], f"{split.name}, asked").bare


def usual_splits(data: Data) -> tuple[str, ...]:
    """The splits that are measured where none is named."""
    retain = "retain-check" if "retain-check" in data else "retain"
    return tuple(name for name in ("forget", retain, *UTILITY[1:]) if name in data)


def over_splits(
    audit: Audit, data: Data, names: Sequence[str], one: Callable[[str, Split], Sequence[Finding]], kept: Direction = "higher"
) -> list[Finding]:
    """Call `one(split name, split)` for every split that was asked for; one that is absent or empty is reported under all `names`.

    `kept` is the better direction on rows to keep.
    """
    wanted = audit.settings.splits or usual_splits(data) or ("forget",)
    found: list[Finding] = []
    for where in wanted:
        note = missing(data, where)
        if note:
            found += [nothing(audit, name, note, where, toward(where, kept)) for name in names]
        else:
            found += one(where, cut(data[where], audit.settings.limit))
    return found


def missing(data: Data, where: str) -> str:
    """Why nothing can be measured on the split `where`, or an empty text."""
    if where not in data:
        return f"the data has no split `{where}`"
    return "" if len(data[where]) else f"the split `{where}` has no rows"


def toward(where: str, kept: Direction = "higher") -> Direction:
    """The better direction on a split: nearer to the retrained model on what is forgotten, `kept` on what is kept, none on a holdout."""
    if where.startswith("forget"):
        return "reference"
    return "none" if where.startswith("holdout") else kept


def nothing(audit: Audit, name: str, note: str, where: str = "", direction: Direction | None = None) -> Finding:
    """A finding without a value and the reason for it."""
    known = {"split": where, "audit": audit.name(), "version": audit.version}
    return unmeasured(name, note, direction=toward(where) if direction is None else direction, **known)


def generator(run: Run, *purpose: str) -> np.random.Generator:
    """Draws the bootstrap rows of a split: the same for every model, so that intervals of two models can be compared."""
    return np.random.default_rng(run.derived_seed("bootstrap", *purpose))


def row_finding(
    audit: Audit, name: str, where: str, values: np.ndarray, run: Run, *, direction: Direction, note: str = "", why: str = "", **extra: Any
) -> Finding:
    """The mean of per-row values with its bootstrap interval.

    Args:
        values: (n,) with NaN where a row could not be measured.
        why: says for such rows why.
        extra: more facts; None leaves one out.
    """
    good = finite(values)
    lost = len(values) - len(good)
    if not len(good):
        return nothing(audit, name, why or note or "no row could be measured", where, direction)
    notes = [note, f"{lost} of {len(values)} rows could not be measured{': ' + why if why else ''}" if lost else ""]
    return finding(
        audit,
        name,
        where,
        float(good.mean()),
        n=len(good),
        interval=bootstrap(good, generator(run, where)),
        direction=direction,
        note="; ".join(part for part in notes if part),
        rows=plain(values),
        extra=extra,
    )


def finding(
    audit: Audit, name: str, where: str, value: float | None, *, n: int, interval: tuple[float, float] | None = None, **known: Any
) -> Finding:
    """A finding of `audit`, with its name and version."""
    low, high = interval or (None, None)
    extra = {key: part for key, part in known.pop("extra", {}).items() if part is not None}
    return Finding(
        name=name, value=value, n=n, low=low, high=high, split=where, audit=audit.name(), version=audit.version, extra=extra, **known
    )


def plain(values: np.ndarray) -> tuple[float | None, ...]:
    """Per-row values for a finding: None where they are NaN or infinite."""
    return tuple(float(value) if np.isfinite(value) else None for value in np.asarray(values, dtype=np.float64))


def as_array(rows: Sequence[float | None]) -> np.ndarray:
    """The inverse of `plain`, (n,) with NaN for None."""
    return np.array([np.nan if row is None else row for row in rows], dtype=np.float64)


def settings_of(method: type, **values: Any) -> Mapping[str, Any]:
    """Those of `values` that are settings of `method`; None means its default."""
    return {key: value for key, value in values.items() if key in method.Settings.model_fields and value is not None}
