"""How familiar a text is to the model: the raw values of four membership scores, beside one another.

    text-loss         mean_t -l_t                               l_t = log p(x_t | x_<t), in nats, end token left out
    text-zlib         text-loss / bytes of the compressed text
    text-min-k        mean of the lowest share of all l_t
    text-min-k++      the same of (l_t - mu_t) / sqrt(max(variance_t, 1e-6)), moments of log p under the model's own distribution

Loss and zlib are LOW, min-k and min-k++ HIGH for text that the model knows. max(1, floor(share T)) of T tokens count; at share 1 min-k is
minus the loss, and a uniform model over v tokens has loss log v and min-k -log v at every share. `extra` holds min-k and min-k++ for the
shares 0.1 to 1, and the value of the model before the change. The benchmark shows loss times 100, and its field mink20 holds min-k++.

These means say how much a text was pushed away, not whether one could tell: for that, `membership` ranks texts against others that no
model saw. arXiv:2406.10890, arXiv:2310.16789. Cards: rwku, mia.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Direction, Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.maths.membership import lowest_mean, standardised, zlib_bytes
from letheon.maths.recall import without_last
from letheon.maths.stats import mean

from ._asked import within
from ._parts import ProbeSettings, over_splits, row_finding, toward

if TYPE_CHECKING:
    from letheon.core.readings import Readings

NAMES = ("text-loss", "text-zlib", "text-min-k", "text-min-k++")
SHARES = tuple(round(k / 10, 1) for k in range(1, 11))


class FamiliaritySettings(ProbeSettings):
    """Which texts, and how many of their tokens."""

    share: float = Field(0.2, gt=0, le=1, description="share of the tokens that min-k and min-k++ look at")


class Familiarity(Audit):
    """Loss, zlib, min-k and min-k++ of texts, per split."""

    Settings, tiny = FamiliaritySettings, {"limit": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Four findings per split."""

        def one(where: str, split: Split) -> list[Finding]:
            values, curves = self._values(readings, split)
            before = None if original is None or original is readings else self._values(original, split)[0]
            found = []
            for name, value in zip(NAMES, values, strict=True):
                extra: dict[str, Any] = {"before": None if before is None else mean(before[NAMES.index(name)])}
                if name in curves:
                    extra |= {"share": self.settings.share, "by_share": curves[name]}
                known = {"direction": _way(name, where), "why": "no token but the end token"}
                found.append(row_finding(self, name, where, value, run, **known, **extra))
            return found

        return over_splits(self, data, NAMES, one)

    def _values(self, readings: Readings, split: Split) -> tuple[list[np.ndarray], dict[str, dict[str, float | None]]]:
        short = within(readings, split)
        answers = readings.answers(short, moments=True)
        keep, offsets = without_last(answers.offsets)
        logs = answers.log_probability[keep]
        moved = standardised(logs, answers.mean[keep], answers.variance[keep])
        loss = -lowest_mean(logs, offsets, 1.0)
        columns = {"text-min-k": logs, "text-min-k++": moved}
        curves = {name: {str(share): mean(lowest_mean(c, offsets, share)) for share in SHARES} for name, c in columns.items()}
        lowest = [lowest_mean(column, offsets, self.settings.share) for column in columns.values()]
        return [loss, loss / zlib_bytes([row.answer for row in short]), *lowest], curves


def _way(name: str, where: str) -> Direction:
    return toward(where, "lower" if name in NAMES[:2] else "higher")
