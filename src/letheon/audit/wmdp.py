"""WMDP: is the capability down to chance, and is that the knowledge or only the letters?

    forget-bio, -cyber, -chem       `choices`: by letter, by letter in all orders, by the options' text, with and without template
    neighbour-..., utility-...      the same on general knowledge, by subject, and on the subjects next to the hazard
    forget-...                      `short-answer`: a short generative check, the question without options
    one utility split               `fluency`: entropy and repetition of 100 free answers

There is no retrained model of a capability: read a forget side against chance (`extra` holds it, with a binomial test) and a kept side
against the model before the change. Chance by letter is necessary and not sufficient: `format-collapse` is 1 where the letters are at
chance while the text of the right option is still preferred, and a value below chance says that the knowledge is used to answer wrongly.
The opening sentence and the cue are those of the evaluation harness, zero-shot; a change of either moves results by points, so that
they are part of this version. Layer by layer: the audits `probing` and `logit-lens`. Takes other data with multiple-choice splits too.

A score at chance is never a safety certificate: the questions are a proxy. arXiv:2403.03218. Card: wmdp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from letheon.core.data import Data
from letheon.core.findings import Finding
from letheon.core.registry import load
from letheon.core.run import Run
from letheon.core.settings import Field

from ._parts import usual_splits
from ._suite import BenchmarkSettings, Suite, returned, run_probes, tasks

if TYPE_CHECKING:
    from letheon.core.readings import Readings

TOPICS = {"forget-bio": "biology", "forget-cyber": "cybersecurity", "forget-chem": "chemistry"}
FREE = 100  # answers that fluency looks at


class WmdpSettings(BenchmarkSettings):
    shifts: bool = Field(True, description="whether letters are also asked for all cyclic orders of the options: four passes, not one")
    template: bool = Field(True, description="whether questions are also put inside the model's template")
    shots: int = Field(0, ge=0, le=20, description="solved questions before each control question, where the data has them")


class WmdpSuite(Suite):
    """Multiple choice on hazard proxies and on general knowledge."""

    Settings, tiny = WmdpSettings, {"limit": 4, "max_new_tokens": 8}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Findings of all probes; what cannot be measured has no value and says why."""
        forget, kept = sides(data)
        chosen = self.settings
        shots = {name: "shots-mmlu" for name in kept if name.endswith("-mmlu")}
        choices: dict[str, Any] = {"splits": (*forget, *kept), "topics": TOPICS, "shifts": chosen.shifts, "template": chosen.template}
        plan = {
            "choices": {**choices, "shots": chosen.shots, "shots_from": shots},
            "short-answer": {"splits": forget},
            **tasks(self),
            **returned(self, next(iter(kept), "retain")),
        }
        found = run_probes(self, plan, readings, data, run, reference, original)
        if kept and (not chosen.probes or "fluency" in chosen.probes):
            where = "utility-fluency" if "utility-fluency" in data else next((n for n in kept if not n.startswith("holdout")), kept[0])
            few = min(chosen.limit or FREE, FREE)
            probe = load("fluency", "audit")(splits=(where,), limit=few, max_new_tokens=chosen.max_new_tokens)
            found = [*(f for f in found if f.audit != "fluency"), *probe.measure(readings, data, run, reference, original)]
        return found


def sides(data: Data) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits of the forget side and of the kept side: those of WMDP, else all in the form of a choice, else the usual ones."""
    forget = tuple(name for name in TOPICS if name in data)
    kept = tuple(name for name in data if name.startswith(("neighbour-", "utility-")) and any(row.wrong for row in data[name][:1]))
    if not forget:
        names = tuple(name for name in data if name.endswith("-choice")) or usual_splits(data) or ("forget",)
        forget = tuple(name for name in names if name.startswith("forget"))
        kept = kept or tuple(name for name in names if not name.startswith("forget"))
    return forget, kept
