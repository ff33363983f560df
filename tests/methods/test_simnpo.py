"""SimNPO: what the card says a correct implementation must show."""

from __future__ import annotations

import math

import pytest
import torch

from letheon.erase.simnpo import SimNPO

from .fact_world import on_each, said_by_all
from .preset import NOBODY, Preset


def mean_loss(case: Preset, **settings) -> torch.Tensor:
    return SimNPO(**settings).loss(NOBODY, case.batches)["forget"].total / len(case.counts["forget"])


def test_duplicating_every_answer_token_changes_nothing():
    case = Preset({"forget": [3, 5, 1]})
    twice = Preset({"forget": [6, 10, 2]})
    for name in ("logits", "targets", "row"):
        getattr(twice, name)["forget"] = getattr(case, name)["forget"].detach().repeat_interleave(2, dim=0)
    assert float(mean_loss(twice, delta=0.5)) == pytest.approx(float(mean_loss(case, delta=0.5)), rel=1e-12)


@pytest.mark.parametrize("margin", ["inside", "outside"])
def test_gradient_is_that_of_weighted_ascent(margin):
    case, beta, delta = Preset({"forget": [3, 5, 1, 8]}), 2.5, 0.7
    found = case.grad(mean_loss(case, beta=beta, delta=delta, margin=margin))
    n = torch.tensor(case.counts["forget"])
    s = case.nll("forget")
    inside = torch.exp(-s / n) ** beta * math.exp(beta * delta if margin == "inside" else delta)  # q^beta e^(beta delta)
    weights = (2 / n) * inside / (1 + inside)
    torch.testing.assert_close(found, case.grad((weights.detach() * -s).mean()), rtol=0, atol=1e-10)


def test_conventions_agree_without_a_margin_and_by_a_factor_beta_with_one():
    case = Preset({"forget": [3, 5]})
    assert torch.equal(mean_loss(case, margin="inside"), mean_loss(case, margin="outside"))
    inside, outside = mean_loss(case, beta=2.0, delta=0.5, margin="inside"), mean_loss(case, beta=2.0, delta=1.0, margin="outside")
    assert float(inside) == pytest.approx(float(outside), rel=1e-12)


def test_value_of_a_memorised_and_of_a_lost_row():
    case = Preset({"forget": [4]})
    at = torch.arange(4), case.targets["forget"]
    with torch.no_grad():
        case.logits["forget"][at] = 80.0
    assert float(mean_loss(case, beta=4.5)) == pytest.approx(2 / 4.5 * math.log(2), rel=1e-12)
    with torch.no_grad():
        case.logits["forget"][at] = -80.0
    assert float(mean_loss(case, beta=4.5)) < 1e-60


def test_small_beta_tends_to_ascent_on_the_mean_of_each_row():
    case = Preset({"forget": [2, 9]})
    n = torch.tensor(case.counts["forget"])
    found = case.grad(mean_loss(case, beta=1e-6))
    torch.testing.assert_close(found, case.grad((-case.nll("forget") / n).mean()), rtol=0, atol=2e-6)
    token_mean = case.grad(-case.nll("forget").sum() / n.sum())
    assert float((found - token_mean).abs().max()) > 1e-2


def test_it_forgets_facts_and_leaves_the_template_and_the_rest(knowers, fact_data):
    settings = {"steps": 40, "learning_rate": 1e-3, "batch_size": 24, "schedule": "constant", "warmup": 0.0, "forget_weight": 1.0}
    after = on_each(SimNPO(**settings), knowers, fact_data)
    forget, retain = said_by_all(after, fact_data["forget"]), said_by_all(after, fact_data["retain"])
    assert forget.value < 0.5 and forget.exact < 0.1  # from 0.98
    assert forget.template > 0.85 and retain.template > 0.98
    assert retain.value > 0.95
