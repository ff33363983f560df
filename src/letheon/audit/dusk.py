"""The seven measures of DUSK: forget one document, keep what other documents also say.

    VM     verbatim: continuation-rouge-l on forget-verbatim (with ROUGE-1, LCS, Levenshtein); should fall
    UFK    facts of the forgotten document alone: knowledge-rouge-l on forget-knowledge; should fall
    SK     facts that kept documents also tell: the same on shared-knowledge; must stay
    URK    facts of kept documents alone: the same on retain-knowledge; must stay
    DC     downstream-capability: share of multiple choices of the splits `utility...` with the right option first; must stay
    PL     privleak: forget against holdout, blocks of 1,024 tokens, min-k++ of 40%, holdout positive; 0 is best
    RD     retain-deviation: retain against holdout, retain positive, without sign; 0 is best

and the gap vector gap-verbatim, gap-forget-knowledge, gap-shared-knowledge, gap-retain-knowledge, gap-downstream, gap-privacy,
gap-retain-deviation, each measure minus that of the retrained model, with gap-overall as one number. A negative gap-shared-knowledge is
the failure that DUSK is made to show. A method without a retain term cannot be expected to tell shared from unique facts: say what it saw.

The published tables take the cosine of sentence embeddings into VM, which is left out, and harness tasks into DC: name some in `tasks`,
and they are reported beside it. Reconstruction in part: the paper was not read for the two privacy numbers; their orientation and
statistic are those of its evaluation code. Fixed points: the retrained model has PL = RD = 0 and every gap 0. arXiv:2505.15209.
Card: dusk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.run import Run
from letheon.core.settings import Field

from ._gaps import Benchmark, Column, measured
from ._parts import cut, nothing, row_finding
from ._suite import BenchmarkSettings, Suite
from ._texts import as_text
from ._truth import log_true

if TYPE_CHECKING:
    from letheon.core.readings import Readings

CAPABILITY = "downstream-capability"


class DuskSettings(BenchmarkSettings):
    max_new_tokens: int = Field(128, ge=1, description="tokens that continue a prefix; answers to questions have 32")
    longest_answer: int = Field(32, ge=1, description="longest answer to a question, tokens")
    share: float = Field(0.4, gt=0, le=1, description="share of tokens that min-k++ looks at")
    block: int | None = Field(1024, ge=8, description="tokens of a block for the privacy measures; None: each row is one text")


class DuskSuite(Suite):
    """All of DUSK for one model."""

    Settings, tiny = DuskSettings, {"limit": 4, "max_new_tokens": 8, "longest_answer": 8, "block": 16}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Findings of all probes, the downstream capability and the gap vector."""
        chosen = self.settings
        verbatim, forget = as_text(data, "forget-verbatim", "forget"), as_text(data, "forget-knowledge", "forget")
        retain = as_text(data, "retain-knowledge", "retain")
        asked = [name for name in data if name.startswith("shared-") and name.endswith("-knowledge") and name != "shared-knowledge"]
        plan = {
            "continuation": {"splits": (verbatim,)},
            "knowledge": {"splits": (forget, "shared-knowledge", *asked, retain), "longest_answer": chosen.longest_answer},
            "text-privacy": {"forget": "forget", "retain": "retain", "statistic": "min-k++", "share": chosen.share, "block": chosen.block},
        }
        columns = {
            "gap-verbatim": Column("continuation-rouge-l", verbatim),
            "gap-forget-knowledge": Column("knowledge-rouge-l", forget),
            "gap-shared-knowledge": Column("knowledge-rouge-l", "shared-knowledge"),
            "gap-retain-knowledge": Column("knowledge-rouge-l", retain),
            "gap-downstream": Column(CAPABILITY, "utility"),
            "gap-privacy": Column("privleak", "forget", 100.0),
            "gap-retain-deviation": Column("retain-deviation", "retain", 100.0),
        }
        what = Benchmark(plan, columns, {}, lambda model: [self._capability(model, data, run)])
        return measured(self, what, readings, data, run, reference, original)

    def _capability(self, readings: Readings, data: Data, run: Run) -> Finding:
        """Share of right choices over all rows of the splits that begin with `utility`."""
        splits = [cut(split, self.settings.limit) for name, split in data.items() if name.startswith("utility")]
        right = [best_choices(readings, split) for split in splits]
        note, why = ", ".join(split.name for split in splits), "no row has options to choose from"
        if not splits:
            return nothing(self, CAPABILITY, "the data has no split that begins with `utility`", "utility", "higher")
        return row_finding(self, CAPABILITY, "utility", np.concatenate(right), run, direction="higher", note=note, why=why)


def best_choices(readings: Readings, split: Split) -> np.ndarray:
    """1 where the right option is more probable per token than every wrong one, else 0, (n,); NaN for a row without wrong options."""
    wrong = readings.answers(split, which="wrong")
    best = np.full(len(split), -np.inf)
    np.maximum.at(best, wrong.owner, -np.asarray(wrong.nll(), dtype=np.float64))
    return np.where(np.isfinite(best), (log_true(readings, split, "answer") > best).astype(np.float64), np.nan)
