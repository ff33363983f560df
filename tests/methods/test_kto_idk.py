"""KTO with refusals: its zero point is one number for the whole step, without gradient."""

from __future__ import annotations

import math

import pytest
import torch

from letheon.erase.kto_idk import KTOIDK

from .fact_world import gradient, trainer
from .preset import NOBODY, Preset


def test_value_at_the_start(stranger, fact_data, run):
    ready = trainer(KTOIDK(beta=0.1, batch_size=24), stranger, fact_data, run)
    assert ready.gradients(ready.feed.plan[0]).means["forget"] == pytest.approx(1 + 20 * math.log(2), rel=1e-5)


def test_value_and_gradient_on_given_logits():
    case, beta = Preset({"forget": [3, 5, 1]}), 0.4
    method = KTOIDK(beta=beta)
    method.frozen, method.zero = case.nll("forget").detach() - 2.0, torch.tensor(-0.7, dtype=torch.float64)
    value = method.loss(NOBODY, case.batches)["forget"].total / 3
    rho = -(case.nll("forget") - method.frozen)
    meant = 1 - 2 / beta * torch.log(torch.sigmoid(method.zero - beta * rho)).mean()
    assert value.item() == pytest.approx(meant.item(), rel=1e-12)
    torch.testing.assert_close(case.grad(value), case.grad(meant), rtol=0, atol=1e-12)


def test_the_zero_point_is_measured_over_the_whole_step_and_carries_no_gradient(stranger, fact_data, run):
    ready = trainer(KTOIDK(batch_size=9, tokens_per_batch=32), stranger, fact_data, run)
    with torch.no_grad():
        for parameter in ready.parameters:
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
    rows = ready.feed.plan[1]
    kept = ready.objective.drawn(ready.subject, ready.feed, rows, run)
    assert sorted(kept) == ["forget", "retain"]  # refusals take no part in the pass with gradient
    encoded, rho = stranger.encoder.encode(ready.feed.data["refusal"]), []
    for i in rows["refusal"]:
        ids, start = torch.from_numpy(encoded.row(int(i)).astype("int64")), int(encoded.starts[i])
        nll = []
        for module in (ready.subject.module, stranger.module):
            with torch.no_grad():
                logp = module(input_ids=ids[None]).logits[0, start - 1 : -1].double().log_softmax(-1)
            nll.append(-float(logp.gather(-1, ids[start:, None]).sum()))
        rho.append(nll[1] - nll[0])
    assert abs(sum(rho)) > 1e-2
    assert float(ready.objective.zero) == pytest.approx(sum(rho) / len(rho), abs=1e-4)
    assert not ready.objective.zero.requires_grad


def test_however_a_step_is_cut_its_gradient_is_the_same(stranger, fact_data, run):
    found = []
    for budget in (32, 1 << 20):
        ready = trainer(KTOIDK(batch_size=9, tokens_per_batch=budget), stranger, fact_data, run)
        with torch.no_grad():
            for parameter in ready.parameters:
                parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
        found.append(gradient(ready))
    assert float((found[0] - found[1]).abs().max()) < 1e-5 * float(found[0].abs().max())
