"""The six criteria of MUSE: verbatim, knowledge, privacy, utility, scalability, sustainability.

    1 verbatim         continuation-rouge-l on forget-verbatim        128 tokens after a prefix, ROUGE-L F
    2 knowledge        knowledge-rouge-l on forget-knowledge          few-shot questions, 32 tokens, ROUGE-L F
    3 privacy          privleak on forget-texts against holdout       min-k of 40%, holdout as the positive side, in percent
    4 utility          knowledge-rouge-l on retain-knowledge
    5 scalability      the same on models that forgot 1, 2, 3, 4 folds       source `muse`, setting `folds`
    6 sustainability   earlier-requests on forget-1, forget-2 ... forget     source `muse`, setting `request`

and the gap of 1 to 4 to the retrained model: gap-verbatim, gap-forget-knowledge, gap-privacy, gap-retain-knowledge, gap-overall.
MUSE prints 1, 2 and 4 times 100. A curve for 5 or 6 is one audit per model: `letheon compare` shows them side by side, and
`letheon.audit.earlier_requests.curve` lays them out.

All is read against the retrained model: a target of 0 for verbatim and knowledge would reward destruction. MUSE chooses the epoch of each
method by the questions to keep and by the retrained model; two papers compare only if both say so. The retrained model gives gaps of
exactly 0. arXiv:2407.06460. Card: muse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from letheon.core.data import Data
from letheon.core.findings import Finding
from letheon.core.run import Run
from letheon.core.settings import Field

from ._gaps import Benchmark, Column, measured
from ._suite import BenchmarkSettings, Suite
from ._texts import as_text

if TYPE_CHECKING:
    from letheon.core.readings import Readings


class MuseSettings(BenchmarkSettings):
    max_new_tokens: int = Field(128, ge=1, description="tokens that continue a prefix; answers to questions have 32")
    longest_answer: int = Field(32, ge=1, description="longest answer to a question, tokens")
    share: float = Field(0.4, gt=0, le=1, description="share of tokens that min-k looks at")


class MuseSuite(Suite):
    """All of MUSE for one model."""

    Settings, tiny = MuseSettings, {"limit": 4, "max_new_tokens": 8, "longest_answer": 8}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Findings of all probes and the gaps to the retrained model."""
        chosen = self.settings
        verbatim, texts = as_text(data, "forget-verbatim", "forget"), as_text(data, "forget-texts", "forget")
        forget, retain = as_text(data, "forget-knowledge", "forget"), as_text(data, "retain-knowledge", "retain")
        plan = {
            "continuation": {"splits": (verbatim,)},
            "knowledge": {"splits": (forget, retain), "longest_answer": chosen.longest_answer},
            "text-privacy": {"forget": texts, "share": chosen.share},
        }
        columns = {
            "gap-verbatim": Column("continuation-rouge-l", verbatim),
            "gap-forget-knowledge": Column("knowledge-rouge-l", forget),
            "gap-privacy": Column("privleak", texts, 100.0),
            "gap-retain-knowledge": Column("knowledge-rouge-l", retain),
        }
        what = Benchmark(plan, columns, {"earlier-requests": {}})
        return measured(self, what, readings, data, run, reference, original)
