"""CATNIP: what the card says a correct implementation must show."""

from __future__ import annotations

import math

import pytest
import torch

from letheon.erase.catnip import CATNIP
from letheon.erase.ce_u import CEU
from letheon.erase.wga import WGA

from .fact_world import gradient, trainer
from .matched import MATCHED, matched
from .preset import NOBODY, Preset


def term(case: Preset, **settings):
    return CATNIP(**settings).loss(NOBODY, case.batches)["forget"]


def probability(case: Preset) -> torch.Tensor:
    return (case.logits["forget"].softmax(-1) * case.onehot("forget")).sum(-1)


def weight(p: float, **settings) -> float:
    """The weight on the gradient of log p of one token that has the probability p."""
    case = Preset({"forget": [1]})
    target = case.targets["forget"]
    with torch.no_grad():
        others = case.logits["forget"].scatter(-1, target[:, None], -math.inf).logsumexp(-1)
        case.logits["forget"][0, target] = others + math.log(p) - math.log1p(-p)
    found = case.grad(term(case, **settings).total)[0, target].item()
    return found / (1 - p)  # d log p / d z_y = 1 - p


def test_detached_at_beta_one_it_is_twice_wga():
    case = Preset({"forget": [3, 5, 1, 8]})
    found = case.grad(term(case).total)
    torch.testing.assert_close(found, 2 * case.grad(WGA(beta=1.0).loss(NOBODY, case.batches)["forget"].total), rtol=0, atol=1e-10)
    torch.testing.assert_close(found, case.grad(2 * probability(case).sum()), rtol=0, atol=1e-10)


def test_attached_at_beta_one_it_is_twice_the_unlikelihood_and_twice_ce_u():
    case = Preset({"forget": [3, 5, 1, 8]})
    found = term(case, reference="attached").total
    unlikely = -2 * torch.log1p(-probability(case)).sum()
    assert float(found) == pytest.approx(float(unlikely), rel=1e-12)
    slope = case.grad(found)
    torch.testing.assert_close(slope, case.grad(unlikely), rtol=0, atol=1e-10)
    other = CEU(skip_first=0).loss(NOBODY, case.batches)["forget"].total
    torch.testing.assert_close(slope, 2 * case.grad(other), rtol=0, atol=1e-10)


@pytest.mark.parametrize("beta", [0.5, 2.0])
@pytest.mark.parametrize("reference", ["detached", "attached"])
def test_value_and_weight_at_any_beta(beta, reference):
    case = Preset({"forget": [3, 5, 1, 8]})
    found, p = term(case, beta=beta, reference=reference).total, probability(case)
    assert float(found) == pytest.approx(float(2 / beta * torch.log1p((p / (1 - p)) ** beta).sum()), rel=1e-12)
    weights = 2 * p**beta / (p**beta + (1 - p) ** beta) / (1 if reference == "detached" else 1 - p)
    torch.testing.assert_close(case.grad(found), case.grad((weights.detach() * p.log()).sum()), rtol=0, atol=1e-10)


def test_saturation():
    assert weight(1e-3) == pytest.approx(2e-3, rel=1e-9)
    assert weight(0.999) == pytest.approx(1.998, rel=1e-9)
    assert weight(0.5) == pytest.approx(1.0, rel=1e-9) and weight(0.5, beta=3.0) == pytest.approx(1.0, rel=1e-9)
    low = weight(1e-3, beta=2.0)
    assert low / (2 - low) == pytest.approx((1e-3 / 0.999) ** 2, rel=1e-9)  # the ratio of p to 1 - p, squared
    grid = [weight(p / 20) for p in range(1, 20)]
    assert grid == sorted(grid)


def test_certain_tokens_keep_their_pull_in_float32():
    case = Preset({"forget": [1]})
    case.logits["forget"] = case.logits["forget"].detach().float()
    case.logits["forget"][0, case.targets["forget"][0]] = 60.0  # p rounds to 1
    case.logits["forget"].requires_grad_()
    batches = case.batches
    batches._passed = (batches._passed[0], type(batches._passed[1])(torch.eye(case.logits["forget"].shape[1])))
    found = CATNIP(reference="attached").loss(NOBODY, batches)["forget"].total
    assert math.isfinite(float(found)) and float(found) > 80
    assert float(case.grad(found)[0, case.targets["forget"][0]]) == pytest.approx(2.0, rel=1e-6)


def test_repeating_or_joining_answers_changes_no_mean_weight():
    case, joined = Preset({"forget": [3, 5]}), Preset({"forget": [8]})
    for name in ("logits", "targets"):
        getattr(joined, name)["forget"] = getattr(case, name)["forget"]
    assert torch.equal(term(case).total, term(joined).total)
    twice = Preset({"forget": [6, 10]})
    for name in ("logits", "targets"):
        getattr(twice, name)["forget"] = getattr(case, name)["forget"].detach().repeat_interleave(2, dim=0)
    for mean, units in (("token", (8, 16)), ("sequence", (2, 2))):
        one, two = term(case, mean=mean), term(twice, mean=mean)
        assert one.per == mean
        assert float(two.total) / units[1] == pytest.approx(float(one.total) / units[0], rel=1e-12)


def test_means_over_rows_weigh_short_answers_more():
    case = Preset({"forget": [1, 7]})
    p = probability(case)
    each = 2 * torch.log1p(p / (1 - p))
    assert float(term(case, mean="sequence").total) == pytest.approx(float(each[0] + each[1:].mean()), rel=1e-12)


def test_the_first_step_does_not_depend_on_another_model(knower, stranger, fact_data, run):
    """The weight reads the current model only: started from another one but with the same weights, the gradient is the same."""
    ready = trainer(CATNIP(batch_size=24), stranger, fact_data, run)
    with torch.no_grad():
        for mine, theirs in zip(ready.subject.module.parameters(), knower.module.parameters(), strict=True):
            mine.copy_(theirs)
    assert torch.equal(gradient(ready), gradient(trainer(CATNIP(batch_size=24), knower, fact_data, run)))


def test_at_matched_forgetting_more_of_the_rest_is_left_than_after_ascent(knowers, ascended, fact_data):
    found = matched(CATNIP(**MATCHED), knowers, fact_data)
    assert max(found.steps, ascended.steps) < 100
    assert found.retain > ascended.retain + 0.02
