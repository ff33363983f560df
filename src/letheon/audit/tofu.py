"""The TOFU protocol on all its splits, with memorisation, membership attacks and privleak.

    forget        probability, ROUGE-L recall, truth ratio, extraction strength, exact memorisation; forget quality against the retrain
    retain-check, real-authors, world-facts      probability, ROUGE-L recall, truth ratio; together: model utility
    forget-FORM, where there are any             probability: the same facts in other forms
    forget against holdout                       six membership attacks, privleak
    attacks on copies (`attacks`)                what comes back after rounding, relearning, ...

Takes any data with these splits, as the sources `tofu` and `authors` make them; an absent split is reported. All rows count (as in
OpenUnlearning); the first published tables used the first 300 of each split, `limit = 300`. p-values of different row counts are not
comparable. A retrain must come from the same base and recipe as the model it judges. arXiv:2401.06121. Card: tofu.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from letheon.core.data import Data
from letheon.core.findings import Finding
from letheon.core.run import Run

from ._parts import UTILITY
from ._suite import MembershipSuiteSettings, Suite, membership_attacks, other_forms, returned, run_probes, tasks

if TYPE_CHECKING:
    from letheon.core.readings import Readings


class TofuSettings(MembershipSuiteSettings):
    """Settings that suites share."""


class TofuSuite(Suite):
    """All of TOFU, with membership attacks and memorisation."""

    Settings, tiny = TofuSettings, {"limit": 4, "max_new_tokens": 8, "attacks": ["quantised"]}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Findings of all probes; what cannot be measured has no value and says why."""
        asked = ("forget", *UTILITY)
        seen = (*asked, "holdout") if "holdout" in data else asked  # measured for the attacks anyway
        plan = {
            "membership": {"attacks": membership_attacks(self)},
            "privleak": {},
            "probability": {"splits": (*seen, *other_forms(data))},
            "rouge": {"splits": asked},
            "truth-ratio": {"splits": asked},
            "forget-quality": {},
            "model-utility": {"splits": UTILITY},
            "memorisation": {"splits": ("forget", "retain-check", *seen[4:])},
            "refusal-rate": {"splits": ("forget", "retain-check")},
            **tasks(self),
            **returned(self, "retain-check"),
        }
        return run_probes(self, plan, readings, data, run, reference, original)
