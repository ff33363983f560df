"""Model utility: one number for what should still be known, zero as soon as one part is zero.

    U = 9 / sum of 1 / part      parts: {probability, rouge-l-recall, truth-ratio} x {retain-check, real-authors, world-facts}

Probability is the share among the options on real authors and world facts, truth ratio is mean_i max(0, 1 - R). One part at 0 makes U 0;
nine parts at c give c. Parts that cannot be measured are left out and named in the note: such a value is not comparable with one of all
nine. The interval is a bootstrap over rows, the same rows for the parts of one split. arXiv:2401.06121. Card: tofu.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Data
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.registry import load
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.maths.stats import harmonic_mean, percentiles, resampled_means

from ._parts import UTILITY, as_array, finding, generator, nothing, settings_of

if TYPE_CHECKING:
    from letheon.core.readings import Readings

PARTS = ("probability", "rouge", "truth-ratio")  # probes


class ModelUtilitySettings(Settings):
    splits: tuple[str, ...] = Field((), description="splits of rows to keep; empty: retain-check (or retain), real-authors and world-facts")
    limit: int | None = Field(None, ge=1, description="rows per split, the first ones in their order; None: all")
    max_new_tokens: int = Field(200, ge=1, description="longest generation, tokens")


class ModelUtility(Audit):
    """Harmonic mean of what is kept."""

    Settings, tiny = ModelUtilitySettings, {"limit": 4, "max_new_tokens": 8}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """One finding `model-utility`; `extra` holds its parts."""
        splits = self.settings.splits or usual(data)
        shared = {"splits": splits, "limit": self.settings.limit, "max_new_tokens": self.settings.max_new_tokens}
        parts: list[Finding] = []
        for name in PARTS:
            probe = load(name, "audit")
            parts += probe(**settings_of(probe, **shared)).measure(readings, data, run, reference, original)
        measured = [part for part in parts if part.value is not None]
        if not measured:
            reasons = sorted({part.note for part in parts if part.note})
            return [nothing(self, "model-utility", f"no part could be measured: {'; '.join(reasons)}", direction="higher")]
        missing = [f"{part.split} {part.name}" for part in parts if part.value is None]
        note = f"{len(measured)} of {len(parts)} parts, without {', '.join(missing)}" if missing else ""
        value = harmonic_mean([part.value for part in measured if part.value is not None])
        extra = {"parts": {f"{part.split}/{part.name}": part.value for part in measured}}
        n = sum(max(part.n for part in measured if part.split == where) for where in {part.split for part in measured})
        known = {"n": n, "interval": interval(measured, run), "direction": "higher", "note": note, "extra": extra}
        return [finding(self, "model-utility", "", value, **known)]


def usual(data: Data) -> tuple[str, ...]:
    """The splits that utility is made of, whether or not the data has them."""
    retain = "retain-check" if "retain-check" in data or "retain" not in data else "retain"
    return (retain, *UTILITY[1:])


def interval(parts: list[Finding], run: Run) -> tuple[float, float] | None:
    """Percentile interval of the harmonic mean; None where a split has fewer than two rows."""
    columns = []
    for where in sorted({part.split for part in parts}):
        table = np.stack([as_array(part.rows) for part in parts if part.split == where], 1)  # (n, parts of this split)
        table = table[np.isfinite(table).all(1)]
        if len(table) < 2:
            return None
        columns.append(resampled_means(table, generator(run, where)))
    means = np.concatenate(columns, 1)  # (B, parts)
    inverse = np.divide(1.0, means, out=np.full_like(means, np.inf), where=means > 0)
    return percentiles(means.shape[1] / inverse.sum(1))
