"""WGA: what the card says a correct implementation must show."""

from __future__ import annotations

import math

import pytest
import torch

from letheon.erase.grad_ascent import GradAscent
from letheon.erase.wga import WGA

from .matched import MATCHED, matched
from .preset import NOBODY, Preset


def loss(case: Preset, **settings) -> torch.Tensor:
    return WGA(**settings).loss(NOBODY, case.batches)["forget"].total


def probability(case: Preset) -> torch.Tensor:
    """Of each forget token, (m,), with gradient."""
    return (case.logits["forget"].softmax(-1) * case.onehot("forget")).sum(-1)


def test_without_exponent_it_is_ascent():
    case = Preset({"forget": [3, 5, 1]})
    ascent = GradAscent().loss(NOBODY, case.batches)["forget"].total
    assert torch.equal(loss(case, beta=0.0), ascent)
    assert torch.equal(case.grad(loss(case, beta=0.0)), case.grad(ascent))


@pytest.mark.parametrize("beta", [0.3, 1.0, 5.0])
def test_gradient_is_that_of_the_sum_of_powers_of_the_probability(beta):
    case = Preset({"forget": [3, 5, 1, 8]})
    closed = case.grad(probability(case).pow(beta).sum() / beta)
    assert float(closed.abs().max()) > 1e-2
    torch.testing.assert_close(case.grad(loss(case, beta=beta)), closed, rtol=0, atol=1e-10)


def test_value_is_bounded_by_one_over_e_per_token():
    case = Preset({"forget": [200]})
    value, p = loss(case).item(), probability(case).detach()
    assert value == pytest.approx(float((p * p.log()).sum()), rel=1e-12)
    assert -200 / math.e <= value <= 0
    at = torch.arange(200), case.targets["forget"]
    with torch.no_grad():  # set every probability to 1/e, where p log p is lowest
        others = case.logits["forget"].scatter(-1, at[1][:, None], -math.inf).logsumexp(-1)
        case.logits["forget"][at] = others - math.log(math.e - 1)
    assert loss(case).item() == pytest.approx(-200 / math.e, rel=1e-12)


def test_tokens_of_no_probability_and_of_certainty_have_finite_terms():
    case = Preset({"forget": [2]})
    with torch.no_grad():
        case.logits["forget"][0, case.targets["forget"][0]] = 900.0
        case.logits["forget"][1, case.targets["forget"][1]] = -900.0
    for beta in (0.0, 0.5, 1.0):
        assert math.isfinite(float(loss(case, beta=beta)))
    assert float(loss(case, beta=1.0)) == 0.0


def test_at_matched_forgetting_more_of_the_rest_is_left_than_after_ascent(knowers, ascended, fact_data):
    found = matched(WGA(**MATCHED), knowers, fact_data)
    assert max(found.steps, ascended.steps) < 100
    assert found.retain > ascended.retain + 0.02
    assert found.template > 0.85
