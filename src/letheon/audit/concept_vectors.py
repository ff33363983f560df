"""The ConceptVectors benchmark: is the concept gone from the weights, and from the answers?

    inside the weights     concept-traces: the vectors that say the words of the concept, before and after
    in behaviour           concept-answers: answers to questions and completions against the original's, plain and coaxed
    in likelihood          probability of relations and second halves of sentences, where the data has them

Made for the source `concept-vectors`, whose published vectors belong to Llama-2-7B-chat and OLMo-7B. On any other model, and on any other
data with forget and retain rows, a finder looks for the vectors itself. Behaviour without a change inside is the finding the benchmark was
made for: answers differ, vectors do not. Rows count in their order, `limit` of each split. Reconstruction in part: see concept-traces.
arXiv:2406.11614. Card: conceptvectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from letheon.core.data import Data
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field, Settings

from ._parts import usual_splits
from ._suite import run_probes

if TYPE_CHECKING:
    from letheon.core.readings import Readings

SCORED = ("forget-completion", "forget-cloze", "retain-completion", "retain-cloze")


class ConceptVectorsSettings(Settings):
    """Which probes, and how many rows."""

    probes: tuple[str, ...] = Field((), description="probes to run, by name; empty: all of the suite")
    limit: int | None = Field(40, ge=1, description="rows per split, the first ones in their order; None: all")
    max_new_tokens: int = Field(100, ge=1, description="longest generation, tokens")


class ConceptVectorsSuite(Audit):
    """Concept vectors, answers and likelihoods."""

    Settings, tiny = ConceptVectorsSettings, {"limit": 3, "max_new_tokens": 6}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Findings of all probes; what cannot be measured has no value and says why."""
        scored = (*usual_splits(data), *(name for name in SCORED if name in data))
        plan = {"concept-traces": {}, "concept-answers": {}, "probability": {"splits": scored or ("forget",)}}
        return run_probes(self, plan, readings, data, run, reference, original)
