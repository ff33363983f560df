"""Perplexity of a split: the exponential of the mean negative log-likelihood per token.

    nll = sum over all answer tokens of the split of -log p(token) / number of these tokens, perplexity = exp(nll)

End tokens count, prompts do not; plain text is all answer. Long rows weigh more, as in any corpus perplexity. `rows` are the mean nll of
each row, in nats. One value that must hold: a uniform model over v tokens gives v.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.maths.stats import bootstrap

from ._parts import ProbeSettings, finding, generator, nothing, over_splits, plain, toward

if TYPE_CHECKING:
    from letheon.core.readings import Readings

LARGEST = 700.0  # nats: exp of more is no number


class PerplexitySettings(ProbeSettings):
    """Settings that probes share."""


class Perplexity(Audit):
    """Perplexity per token, per split."""

    Settings, tiny = PerplexitySettings, {"limit": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """One finding `perplexity` per split; `extra` holds the mean nll."""

        def one(where: str, split: Split) -> list[Finding]:
            direction = toward(where, "lower")
            answers = readings.answers(split, which="answer")
            sums, counts = np.asarray(answers.sum_nll(), dtype=np.float64), np.asarray(answers.counts, dtype=np.float64)
            good = np.isfinite(sums) & (counts > 0)
            if not good.any():
                return [nothing(self, "perplexity", "no row could be measured", where, direction)]
            table = np.stack([sums[good], counts[good]], 1)  # (n, 2)
            nll = float(table[:, 0].sum() / table[:, 1].sum())
            if nll > LARGEST:
                note = f"the mean nll of {nll:.1f} nats is too large to take its exponential"
                return [nothing(self, "perplexity", note, where, direction)]
            spread = bootstrap(table, generator(run, where), lambda means: np.exp(np.minimum(means[:, 0] / means[:, 1], LARGEST)))
            lost = len(good) - int(good.sum())
            note = f"{lost} of {len(good)} rows could not be measured" if lost else ""
            rows = plain(np.where(good, sums / np.maximum(counts, 1), np.nan))
            extra = {"nll": nll, "tokens": int(table[:, 1].sum())}
            known = {"n": len(table), "interval": spread, "direction": direction, "note": note, "rows": rows, "extra": extra}
            return [finding(self, "perplexity", where, float(np.exp(nll)), **known)]

        return over_splits(self, data, ["perplexity"], one, "lower")
