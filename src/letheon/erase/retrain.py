"""The exact baseline: train again from before, without the forget rows.

Every approximate erasure needs a yardstick that is right by construction: w = train(D without F, seed). This one starts from `base`, a
folder with the model as it was before it saw the data, or from the same architecture with fresh weights, and trains with any method that
learns one split. That method is given the split `kept` (else `retain`) and nothing else; the digest of what it was given is noted in the
lineage. The same seed gives the same start and the same draws for every data set. An erasure is exact if its result has the distribution of
this one over seeds. arXiv:1912.03817. Card: exact-unlearning.
"""

from __future__ import annotations

from typing import Any

from letheon.core.data import Data
from letheon.core.forward import unwrapped
from letheon.core.method import Change
from letheon.core.registry import make
from letheon.core.run import Run
from letheon.core.settings import Choice, Field, Settings
from letheon.core.subject import Subject

from ._start import fresh, loaded


class RetrainSettings(Settings):
    """Where to start and how to train."""

    base: str = Field("scratch", min_length=1, description="model to start from: a folder or hub name, or `scratch` for fresh weights")
    inner: Choice = Field("finetune", description="the method that trains, with its own settings")  # type: ignore[assignment]


class Retrain(Change):
    """Training without the forget rows."""

    Settings, tiny = RetrainSettings, {"inner": {"name": "finetune", "steps": 3}}

    def __init__(self, /, **values: Any):
        super().__init__(**values)
        self._inner("kept")  # a wrong name or value shows now

    def _inner(self, split: str) -> Change:
        inner = self.settings.inner
        return make(Choice(name=inner.name, **{"split": split, **inner.settings}), "adapt")

    def apply(self, subject: Subject, data: Data, run: Run) -> Subject:
        """Train anew. The given subject lends its architecture, tokenizer and template; its weights are not read for `scratch`.

        Raises:
            DataError: there is neither `kept` nor `retain`.
            SubjectError: the base has another tokenizer, or the subject's weights are damaged.
        """
        subject.check_finite()
        split = "kept" if "kept" in data else "retain"
        data.need(split, why="`retrain`")
        rest = Data({split: data[split]}, data.name)
        if self.settings.base == "scratch":
            start = fresh(unwrapped(subject.module), subject, run.derived_seed("retrain", "weights"))
        else:
            start = loaded(subject, self.settings.base, rest, run)
        began = start.digest
        after = self._inner(split).apply(start, rest, run)
        notes = {"started": began, "split": split, "learned": rest.digest, "inner": after.lineage[-1].settings, **after.lineage[-1].notes}
        return subject.changed(after.module, self, data=data.digest, before=subject.digest, seed=run.seed, notes=notes)
