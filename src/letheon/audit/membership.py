"""Membership attacks: can an attacker tell rows of the forget split from rows that nobody trained on?

Each attack gives a row a score that is HIGHER for members; AUC = P(forget > holdout) + P(tie) / 2. 1: exposed, 0.5: a coin toss, below
the retrained model's: inverted, so that the hole itself shows what was erased (over-unlearning).

    loss       -nll                            nll: mean over answer tokens, end token included
    zlib       -nll / bytes of the compressed answer
    min-k      mean of the max(1, floor(share T)) lowest log p(token)          of T tokens, end token left out
    min-k++    the same of (log p - mu) / sqrt(max(variance, 1e-6)), moments of log p under the model's own distribution
    reference  -(nll - nll of the retrained model)
    gradnorm   -mean over weight tensors of ||gradient of the mean nll||_2, one row at a time, evaluation mode

share = 1 makes min-k rank rows as loss does on the same tokens. A retrained model need not sit at 0.5: forget and holdout rows may differ
in kind, so read every AUC against the retrained model's, which `extra` holds. Other toolkits turn signs around: MUSE's AUC is 1 - this.
OpenUnlearning's gradnorm leaves dropout on; here it is off. arXiv:2310.16789, arXiv:2402.17012. Card: mia.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.maths.stats import auc, auc_interval, balanced_accuracy, finite, true_positive_rate

from . import _attacks
from ._parts import cut, finding, generator, missing, nothing, plain

if TYPE_CHECKING:
    from letheon.core.readings import Readings

Attack = Literal["loss", "zlib", "min-k", "min-k++", "reference", "gradnorm"]
FALSE_POSITIVE_RATES = (0.001, 0.01, 0.05, 0.1)


class MembershipSettings(Settings):
    split: str = Field("forget", description="presumed members: the rows that were to be forgotten")
    holdout: str = Field("holdout", description="rows of the same kind that no model was trained on")
    attacks: tuple[Attack, ...] = Field(("loss", "zlib", "min-k", "min-k++", "reference", "gradnorm"), description="attacks to run")
    share: float = Field(0.4, gt=0, le=1, description="share of tokens that min-k and min-k++ look at (0.4 in MUSE, 0.2 in the papers)")
    limit: int | None = Field(None, ge=1, description="rows per split, the first ones in their order; None: all")


class Membership(Audit):
    """AUC of membership attacks on forget against holdout rows."""

    Settings, tiny = MembershipSettings, {"limit": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """One finding `membership-<attack>` per attack; None without a holdout split, and `reference` without a retrained model."""
        where, other = self.settings.split, self.settings.holdout
        note = missing(data, where) or missing(data, other)
        if note:
            return [self._nothing(attack, note) for attack in self.settings.attacks]
        sides = (cut(data[where], self.settings.limit), cut(data[other], self.settings.limit))
        if "min-k++" in self.settings.attacks:
            for model in (readings, *([] if reference is None else [reference])):
                for side in sides:
                    model.answers(side, moments=True)  # first: a reading with moments serves the attacks that need none
        found = []
        for attack in self.settings.attacks:
            if attack == "reference" and reference is None:
                found.append(self._nothing(attack, "there is no reference model to compare with"))
                continue
            score = self._score(attack, reference)
            found.append(self._finding(attack, [score(readings, side) for side in sides], run, self._of(attack, reference, sides)))
        return found

    def _score(self, attack: Attack, reference: Readings | None) -> Callable[[Readings, Split], np.ndarray]:
        if attack in ("min-k", "min-k++"):
            return partial(_attacks.min_k if attack == "min-k" else _attacks.min_k_plus, share=self.settings.share)
        if attack == "reference":
            return partial(_attacks.against, reference=reference)
        return {"loss": _attacks.loss, "zlib": _attacks.zlib, "gradnorm": _attacks.gradnorm}[attack]

    def _of(self, attack: Attack, reference: Readings | None, sides: tuple[Split, Split]) -> float | None:
        """The same attack on the retrained model."""
        return None if reference is None else auc(*(self._score(attack, reference)(reference, side) for side in sides))

    def _nothing(self, attack: Attack, note: str) -> Finding:
        return nothing(self, f"membership-{attack}", note, self.settings.split, "reference")

    def _finding(self, attack: Attack, scores: list[np.ndarray], run: Run, retrained: float | None) -> Finding:
        where = self.settings.split
        members, others = (finite(side) for side in scores)
        if not len(members) or not len(others):
            return self._nothing(attack, "no row of one side could be scored")
        lost = sum(map(len, scores)) - len(members) - len(others)
        area = auc(members, others)
        spread = auc_interval(members, others, generator(run, where, self.settings.holdout))
        notes = [inverted(area, spread, retrained), f"{lost} rows could not be scored" if lost else ""]
        extra = {
            "convention": "scores are higher for members; an AUC of 1 is full exposure",
            "retrained": retrained,
            "delta": None if retrained is None or area is None else area - retrained,
            "balanced_accuracy": balanced_accuracy(members, others),
            "true_positive_rate_at": {str(rate): true_positive_rate(members, others, rate) for rate in FALSE_POSITIVE_RATES},
            "least_false_positive_rate": 1 / len(others),
            "holdout_n": len(others),
            "holdout_rows": plain(scores[1]),
        }
        known = {"n": len(members), "interval": spread, "direction": "reference", "rows": plain(scores[0]), "extra": extra}
        return finding(self, f"membership-{attack}", where, area, note="; ".join(part for part in notes if part), **known)


def inverted(area: float | None, interval: tuple[float, float] | None, retrained: float | None) -> str:
    """A warning where forget rows look less familiar than they do to a model that never saw them, beyond the interval."""
    never = 0.5 if retrained is None else min(retrained, 0.5)
    if area is None or interval is None or not interval[1] < never:
        return ""
    than = "than to the retrained model" if retrained is not None else "than rows nobody trained on"
    return f"inverted: forget rows look less familiar {than}, which points to over-unlearning"
