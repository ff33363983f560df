"""Audit of anybody's own data: forget, retain and optional holdout rows; no retrain needed.

    every split                probability, ROUGE-L recall (rows with a prompt), perplexity, extraction strength, exact memorisation
    forget, retain             refusal rate; truth ratio where rows have wrong answers
    retain (and known facts)   model utility: the harmonic mean of the parts that exist
    forget-FORM                probability: the same facts in other forms, where there are any
    holdout-FORM               probability, without a retrained model; prompts and inner layers are then tried on the holdout too
    forget against holdout     membership attacks, privleak
    attacks on copies          what comes back after rounding, relearning, ... (`attacks`)
    with a retrained model     forget quality, reference attack

What cannot be measured has no value and says why. Without a retrained model the rows of the holdout show what never having known looks
like. Cards: tofu, mia, relearning-and-extraction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from letheon.core.data import Data
from letheon.core.findings import Finding
from letheon.core.run import Run
from letheon.core.settings import Field

from ._parts import UTILITY
from ._suite import MembershipSuiteSettings, Suite, membership_attacks, other_forms, returned, run_probes, tasks

if TYPE_CHECKING:
    from letheon.core.readings import Readings


class GeneralSettings(MembershipSuiteSettings):
    """Settings that suites share, with fewer rows by default."""

    limit: int | None = Field(400, ge=1, description="rows per split, the first ones in their order; None: all")


class GeneralSuite(Suite):
    """All that can be measured on any data."""

    Settings, tiny = GeneralSettings, {"limit": 4, "max_new_tokens": 8, "attacks": ["quantised"]}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Findings of all probes; what cannot be measured has no value and says why."""
        retain = "retain-check" if "retain-check" in data else "retain"
        known = tuple(name for name in UTILITY[1:] if name in data)
        asked = ("forget", retain, *known)
        seen = (*asked, "holdout") if "holdout" in data else asked
        forms, attacks = other_forms(data), returned(self, retain)
        if reference is None and "holdout" in data:  # rows never seen stand in for what a retrained model would say
            forms += tuple(name for form in forms if (name := form.replace("forget", "holdout", 1)) in data)
            attacks |= {
                name: {**attacks[name], "splits": (*attacks[name]["splits"], "holdout")}
                for name in ("quantised", "logit-lens") if attacks.get(name)
            }
        plan = {
            "membership": {"attacks": membership_attacks(self)},
            "privleak": {},
            "probability": {"splits": (*seen, *forms)},
            "rouge": {"splits": seen},
            "perplexity": {"splits": seen},
            "memorisation": {"splits": seen},
            "truth-ratio": {"splits": asked},
            "forget-quality": {},
            "model-utility": {"splits": (retain, *known)},
            "refusal-rate": {"splits": ("forget", retain)},
            **tasks(self),
            **attacks,
        }
        return run_probes(self, plan, readings, data, run, reference, original)
