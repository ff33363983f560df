"""Are the rows of earlier requests still erased after the latest one?

The splits `forget-1`, `forget-2` ... hold the rows of earlier requests and `forget` those of the latest (the source `muse` makes them with
`request` = 2, 3, 4). On each, with p_i = exp(-mean nll of row i):

    text-probability   mean_i p_i                                                       also of texts longer than the context
    still-known        (p(now) - p(never)) / (p(before) - p(never))                     0: as one who never knew, 1: nothing is erased

p(never) is the retrained model's mean on the same rows, p(before) that of the model before any request. `curve` lays the findings of
several models side by side (after request 1, 2, 3 ...; or after forget sets of growing size, source `muse` with `folds` = 1, 2, 3, 4), with
the gap to the retrained model at each and whether it keeps. One value that must hold: the retrained model has still-known 0 on every
split, the model before has 1. arXiv:2407.06460, criteria 5 and 6. Card: muse.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Finding, Findings
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.maths.stats import bootstrap

from ._parts import ProbeSettings, finding, generator, nothing, over_splits, row_finding, toward
from ._texts import TextReadings

if TYPE_CHECKING:
    from letheon.core.readings import Readings

NAMES = ("text-probability", "still-known")
LEAST_GAP = 1e-3  # share of p(before) below which the two anchors cannot tell knowing from not knowing


class EarlierRequestsSettings(ProbeSettings):
    splits: tuple[str, ...] = Field((), description="splits to measure; empty: forget-1, forget-2 ... as far as they exist, and forget")


class EarlierRequests(Audit):
    """What is left of each request in a series."""

    Settings, tiny = EarlierRequestsSettings, {"limit": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Two findings per request."""
        now, never, before = (None if model is None else TextReadings.of(model) for model in (readings, reference, original))
        chosen = type(self)(**{**self.settings.model_dump(), "splits": self.settings.splits or requests_of(data)})

        def one(where: str, split: Split) -> list[Finding]:
            note = now.cut(split) if isinstance(now, TextReadings) else ""
            values = probabilities(now, split)
            why = "no token to score"
            told = row_finding(self, NAMES[0], where, values, run, direction=toward(where), note=note, why=why)
            return [told, self._share(where, split, values, never, before, run)]

        return over_splits(chosen, data, NAMES, one)

    def _share(
        self, where: str, split: Split, values: np.ndarray, never: Readings | None, before: Readings | None, run: Run
    ) -> Finding:
        lacking = [what for what, model in (("retrained model", never), ("model before the change", before)) if model is None]
        if never is None or before is None:
            return nothing(self, NAMES[1], f"there is no {' and no '.join(lacking)} to compare with", where)
        table = np.stack([values, probabilities(never, split), probabilities(before, split)], 1)
        table = table[np.isfinite(table).all(1)]
        if not len(table):
            return nothing(self, NAMES[1], "no row could be measured", where)
        means = table.mean(0)
        if means[2] - means[1] <= LEAST_GAP * means[2]:
            return nothing(self, NAMES[1], "the model before the change knows these rows no better than the retrained model", where)
        spread = bootstrap(table, generator(run, where), lambda m: (m[:, 0] - m[:, 1]) / np.maximum(m[:, 2] - m[:, 1], 1e-12))
        share = float((means[0] - means[1]) / (means[2] - means[1]))
        extra = {"now": float(means[0]), "never": float(means[1]), "before": float(means[2])}
        return finding(self, NAMES[1], where, share, n=len(table), interval=spread, direction="reference", extra=extra)


def requests_of(data: Data) -> tuple[str, ...]:
    """The splits of earlier requests in their order, then the latest."""
    numbers = sorted(int(hit[1]) for name in data if (hit := re.fullmatch(r"forget-(\d+)", name)))
    return (*(f"forget-{number}" for number in numbers), "forget")


def probabilities(readings: Readings, split: Split) -> np.ndarray:
    """exp(-mean nll) of each row, (n,); NaN where a row has no token."""
    answers = readings.answers(split)
    out = np.full(len(split), np.nan)
    out[answers.owner] = np.exp(-np.asarray(answers.nll(), dtype=np.float64))
    return out


def curve(series: Sequence[Findings], name: str, split: str, label: str = "after") -> list[dict[str, Any]]:
    """One measure along a series of requests or sizes.

    Args:
        series: what one audit found after request (or at size) 1, 2, 3 ...
        name: the measure.
        split: where it was measured.
        label: the model that is followed.

    Returns:
        For each step its value, that of the retrained model, the gap between them (None where either is missing) and the change of the
        gap since the first step that has one.
    """
    out: list[dict[str, Any]] = []
    for step, found in enumerate(series, 1):
        now, never = found.value(label, name, split), found.value("retrained", name, split)
        gap = None if now is None or never is None else now - never
        first = next((point["gap"] for point in out if point["gap"] is not None), gap)
        drift = None if gap is None or first is None else gap - first
        out.append({"step": step, "value": now, "retrained": never, "gap": gap, "drift": drift})
    return out
