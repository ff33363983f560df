"""Membership by comparison: is the model surer of forgotten rows than models that never saw them?

A row can be easy for any model. Reference models that never saw a row say how easy it is; what the audited model is surer of than they are,
it has seen. Offline likelihood ratio attack (LiRA), with p = exp(-nll), nll the mean over answer tokens, end token included:

    phi = log(p / (1 - p))
    score = (phi - mean of phi over the reference models) / spread          higher for members

The retrained model is the first reference model; `shadows` names folders of more of them: models of the same recipe, trained without any
forgotten or held-out row. One reference model has spread 1; with several it is the root of their mean variance (one number for all rows: a
variance of few models per row is noise), or each row's own with `pooled = false`. Where `knowing` names models that were trained on both
splits as well, the score is log N(phi; knowing) - log N(phi; shadows), the online attack; with one spread for both kinds it rises with phi.

    membership-shadow       AUC of forget against holdout

`extra` holds the true positive rate at low false positive rates, the reference models, and the share of forgotten rows whose score no
held-out row reaches. A model is never its own reference: the retrained model is judged by the other ones, and where there is none its
scores are all 0 and its AUC 0.5. arXiv:2112.03570. Card: mia.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.registry import load
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.maths.shadows import confidence, likelihood_ratio
from letheon.maths.stats import auc, auc_interval, balanced_accuracy, true_positive_rate

from ._parts import cut, finding, generator, missing, nothing, plain

if TYPE_CHECKING:
    from letheon.core.readings import Readings

FALSE_POSITIVE_RATES = (0.001, 0.01, 0.05, 0.1)
NAME = "membership-shadow"


class ShadowSettings(Settings):
    split: str = Field("forget", description="presumed members: the rows that were to be forgotten")
    holdout: str = Field("holdout", description="rows of the same kind that no model was trained on")
    shadows: tuple[str, ...] = Field((), description="folders of models that saw neither of the two splits")
    knowing: tuple[str, ...] = Field((), description="folders of models that were trained on both splits")
    pooled: bool = Field(True, description="one spread for all rows and models, not one for each row")
    limit: int | None = Field(None, ge=1, description="rows per split, the first ones in their order; None: all")


class Shadow(Audit):
    """Likelihood ratio against reference models."""

    Settings, tiny = ShadowSettings, {"limit": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """One finding; None without a holdout split or without a reference model.

        Raises:
            SubjectError: a folder holds no model.
        """
        settings = self.settings
        where, other = settings.split, settings.holdout
        note = missing(data, where) or missing(data, other)
        if not note and reference is None and not settings.shadows:
            note = "there is no reference model to compare with"
        if note:
            return [nothing(self, NAME, note, where, "reference")]
        sides = [cut(data[name], settings.limit) for name in (where, other)]
        outside = [*([] if reference is None else [reference]), *(_read(folder, readings, run) for folder in settings.shadows)]
        outside = _others(readings, outside)
        inside = _others(readings, [_read(folder, readings, run) for folder in settings.knowing])
        known = (readings, reference)  # they are read in full by other measures
        members, others = (self._scores(readings, side, outside, inside, known) for side in sides)
        spread = auc_interval(members, others, generator(run, where, other)) if outside else None
        extra = {
            "convention": "scores are higher for members; an AUC of 1 is full exposure",
            "references": [model.subject.name for model in outside],
            "knowing": len(inside),
            "balanced_accuracy": balanced_accuracy(members, others),
            "true_positive_rate_at": {str(rate): true_positive_rate(members, others, rate) for rate in FALSE_POSITIVE_RATES},
            "least_false_positive_rate": 1 / len(others),
            "beyond_all": float((members > others.max()).mean()),
            "holdout_n": len(others),
            "holdout_rows": plain(others),
        }
        note = "" if outside else "it is the only reference model: compared with itself it can only be at 0.5"
        about = {"n": len(members), "interval": spread, "direction": "reference", "rows": plain(members), "note": note}
        return [finding(self, NAME, where, auc(members, others), extra=extra, **about)]

    def _scores(
        self, readings: Readings, side: Split, outside: list[Readings], inside: list[Readings], known: tuple[Readings | None, ...]
    ) -> np.ndarray:
        if not outside:
            return np.zeros(len(side))

        def sure(model: Readings) -> np.ndarray:
            return confidence(model.answers(side if model in known else side.bare).nll())

        seen, out, into = (np.stack(list(map(sure, models))) if models else None for models in ([readings], outside, inside))
        return likelihood_ratio(seen[0], out, into, pooled=self.settings.pooled)


def _read(folder: str, readings: Readings, run: Run) -> Readings:
    subject = load("hf", "subjects")(path=folder).build().to(readings.subject.device)
    return type(readings)(subject, run, tokens_per_batch=readings.tokens_per_batch)


def _others(readings: Readings, models: list[Readings]) -> list[Readings]:
    """Models that differ from the audited one and from one another."""
    return list({model.digest: model for model in models if model.digest != readings.digest}.values())
