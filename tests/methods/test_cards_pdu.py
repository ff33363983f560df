"""PDU, logit flattening under the rule `primal-dual`: points of the card beside those of its two halves."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from letheon.core.batching import collate
from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.erase.logit_flattening import LogitFlattening

from .fact_world import gradient, said, trainer

FACTS = {"steps": 60, "learning_rate": 1e-3, "batch_size": 24, "schedule": "constant", "warmup": 0.0, "retain_weight": 10.0}


def quiet() -> Run:
    return Run(0, dtype="float32", device="cpu")


def test_without_a_forget_weight_it_is_fine_tuning_scaled_by_the_multiplier(knower, fact_data):
    rule = "primal-dual:epsilon=1,rate=0"
    pdu = trainer(LogitFlattening(batch_size=24, forget_weight=0.0, retain_weight=7.0, rule=rule), knower, fact_data, quiet())
    found = gradient(pdu)
    rows, encoded = pdu.feed.plan[0]["retain"], pdu.feed.encoded["retain"]
    twin = knower.fork()
    twin.module.requires_grad_(True)
    nll = Batches({"retain": collate(encoded, rows, knower.encoder.pad)}).nll(twin.module, "retain")
    meant = torch.autograd.grad(nll.values.mean(), list(twin.module.parameters()))
    meant = torch.cat([part.flatten() for part in meant])
    torch.testing.assert_close(found, 7 * meant, rtol=1e-3, atol=1e-4 * float(found.abs().max()))


@pytest.mark.parametrize("epsilon", [0.1, 0.4])
def test_the_multiplier_climbs_while_the_bound_is_broken_and_falls_once_it_holds(knower, fact_data, epsilon):
    """From a weight of 10 the first steps wreck the rest; the multiplier brings it back, and the secrets stay at chance (1 of 24)."""
    ready = trainer(LogitFlattening(**FACTS, rule=f"primal-dual:epsilon={epsilon},rate=5"), knower, fact_data, quiet())
    steps = [ready.advance() for _ in range(60)]
    multipliers, retain = [step["multiplier"] for step in steps], [step["retain"] for step in steps]
    for one, after in zip(steps, steps[1:], strict=False):
        assert after["multiplier"] == pytest.approx(max(0.0, one["multiplier"] + 5 * (one["retain"] - epsilon)), rel=1e-4, abs=1e-3)
    assert max(retain) > 2 * epsilon and max(multipliers) > 25
    assert multipliers[-1] < max(multipliers) - 2  # it falls once the bound holds
    assert fmean(retain[-10:]) < epsilon
    encoded = knower.encoder.encode(fact_data["retain"])
    with torch.no_grad():
        nll = Batches({"retain": collate(encoded, range(len(encoded)), knower.encoder.pad)}).nll(ready.subject.module, "retain")
    assert float(nll.values.mean()) < epsilon  # over all retain rows, of which a step sees a seventh
    assert said(ready.subject, fact_data["forget"]).value < 0.1 and said(ready.subject, fact_data["retain"]).exact > 0.8
