"""What a term is divided by."""

from __future__ import annotations

import pytest

from letheon.core.errors import MethodError
from letheon.core.run import Run
from letheon.testing import toy_data, toy_subject
from letheon.train.objective import Objective, ObjectiveSettings, Term

RUN = Run(0, device="cpu", dtype="float32")


class Counting(Objective):
    """A sum of 1 for every forget token, divided as `of` says."""

    Settings = ObjectiveSettings
    of: object = None
    per = "token"

    def loss(self, subject, batches):
        nll = batches.nll(subject.module, "forget").values
        total = (nll * 0 + 1).sum() if self.per == "token" else (nll.sum() * 0 + len(batches["forget"]))
        return {"forget": Term(total, per=self.per, of=self.of)}


@pytest.mark.parametrize("per", ["token", "sequence"])
def test_one_split_or_several_counted_together(per, tmp_path):
    import json

    found = {}
    for of in (None, "retain", ("forget", "retain")):
        method = Counting(steps=1, batch_size=8, tokens_per_batch=64)
        method.of, method.per = of, per
        out = tmp_path / str(of)
        method.apply(toy_subject(), toy_data(), Run(0, out, device="cpu", dtype="float32"))
        found[of] = json.loads((out / "metrics.jsonl").read_text())["forget"]
    assert found[None] == pytest.approx(1, rel=1e-6)
    share = 1 / found["forget", "retain"]  # 1 + counts of retain / counts of forget
    assert share == pytest.approx(1 + 1 / found["retain"], rel=1e-5)


def test_counting_a_split_that_is_not_read_is_an_error():
    method = Counting(steps=1)
    method.of = ("forget", "holdout")
    with pytest.raises(MethodError, match="The term `forget` of .* counts tokens of `holdout`, which it does not read"):
        method.apply(toy_subject(), toy_data(), RUN)
