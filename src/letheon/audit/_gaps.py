"""The gap vector of a benchmark: each of its measures against the retrained model, and one number for all.

    gap_k = s_k(model) - s_k(retrained)
    gap-overall = mean_k |gap_k| / max(|s_k(before) - s_k(retrained)|, least)

0 is the retrained model; gap-overall is 1 where every measure is as far from it as before. The mean is letheon's own; papers print columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from letheon.core.data import Data
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.maths.stats import bootstrap

from ._parts import as_array, finding, generator, nothing
from ._suite import returned, run_probes, tasks
from ._texts import within

if TYPE_CHECKING:
    from letheon.core.readings import Readings

LEAST = 0.05  # of a measure's scale: the smallest distance between the anchors that divides
OVERALL = "gap-overall"


@dataclass(frozen=True)
class Column:
    """A measure of the vector: where it comes from, and what 1 is on its scale."""

    name: str
    split: str
    scale: float = 1.0


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark measures of one model.

    `plan`: probe -> its settings. `columns`: name of a gap -> its measure. `alone`: probes without a gap. `more`: findings beside probes.
    """

    plan: Mapping[str, Mapping[str, Any]]
    columns: Mapping[str, Column]
    alone: Mapping[str, Mapping[str, Any]]
    more: Callable[[Readings], list[Finding]] = lambda readings: []


def measured(
    suite: Audit, what: Benchmark, readings: Readings, data: Data, run: Run, reference: Readings | None, original: Readings | None
) -> list[Finding]:
    """All findings of a benchmark, its gaps, and the attacks that the suite's settings ask for; only the named probes if some are named."""
    if suite.settings.probes:
        return run_probes(suite, {**what.plan, **what.alone}, readings, data, run, reference, original)

    def seen(model: Readings | None) -> list[Finding] | None:
        return None if model is None else [*run_probes(suite, what.plan, model, data, run, reference, original), *what.more(model)]

    found, alone = seen(readings) or [], {**what.alone, **tasks(suite)}
    out = [*found, *run_probes(suite, alone, readings, data, run, reference, original)] if alone else list(found)
    out += gaps(suite, what.columns, found, seen(reference), seen(original), run)
    attacks = returned(suite, "retain")
    return [*out, *run_probes(suite, attacks, readings, within(readings, data), run, reference, original)] if attacks else out


def gaps(
    audit: Audit,
    columns: Mapping[str, Column],
    found: Sequence[Finding],
    never: Sequence[Finding] | None,
    before: Sequence[Finding] | None,
    run: Run,
) -> list[Finding]:
    """One finding per column and the mean of all.

    Args:
        columns: name of the gap -> its measure.
        found: what was measured of the model.
        never: of the retrained model; None: there is none.
        before: of the model before the change; None: there is none.
    """
    out, shares, absent = [], [], []
    for name, column in columns.items():
        now, anchor, start = (_of(findings, column) for findings in (found, never, before))
        if now is None or now.value is None or anchor is None or anchor.value is None:
            out.append(nothing(audit, name, _why(column, now, anchor, never is None), column.split, "reference"))
            absent.append(name)
            continue
        known = {} if start is None or start.value is None else {"before": start.value}
        extra = {"value": now.value, "retrained": anchor.value, **known}
        known = {"n": now.n, "interval": _interval(now, anchor, run), "direction": "reference", "extra": extra}
        out.append(finding(audit, name, column.split, now.value - anchor.value, **known))
        if start is not None and start.value is not None:
            distance = max(abs(start.value - anchor.value), LEAST * column.scale)
            shares.append(abs(now.value - anchor.value) / distance)
    if never is None or before is None:
        lacking = "retrained model" if never is None else "model before the change"
        return [*out, nothing(audit, OVERALL, f"there is no {lacking} to compare with", "", "reference")]
    if not shares:
        return [*out, nothing(audit, OVERALL, "no measure of the vector could be compared", "", "reference")]
    note = f"without {', '.join(absent)}" if absent else ""
    return [*out, finding(audit, OVERALL, "", float(np.mean(shares)), n=len(shares), direction="reference", note=note)]


def _of(findings: Sequence[Finding] | None, column: Column) -> Finding | None:
    return next((f for f in findings or () if f.name == column.name and f.split == column.split), None)


def _why(column: Column, now: Finding | None, anchor: Finding | None, alone: bool) -> str:
    if now is None:
        return f"`{column.name}` was not measured on `{column.split}`"
    if now.value is None:
        return now.note
    return "there is no retrained model to compare with" if alone or anchor is None else anchor.note


def _interval(now: Finding, anchor: Finding, run: Run) -> tuple[float, float] | None:
    """Of the paired difference of rows; where there are no rows, that of the value, moved."""
    if now.rows and len(now.rows) == len(anchor.rows):
        difference = as_array(now.rows) - as_array(anchor.rows)
        return bootstrap(difference[np.isfinite(difference)], generator(run, now.split))
    if now.low is None or now.high is None or anchor.value is None:
        return None
    return now.low - anchor.value, now.high - anchor.value
