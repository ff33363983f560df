"""CE-U: what the card says a correct implementation must show."""

from __future__ import annotations

import math

import pytest
import torch

from letheon.core.data import Data, Example, Split
from letheon.erase.ce_u import CEU
from letheon.erase.grad_ascent import GradAscent

from .fact_world import gradient, on_each, said_by_all, trainer
from .matched import MATCHED, matched
from .preset import NOBODY, Preset


def loss(case: Preset, skip_first: int = 0) -> torch.Tensor:
    return CEU(skip_first=skip_first).loss(NOBODY, case.batches)["forget"].total


def probability(case: Preset) -> torch.Tensor:
    return (case.logits["forget"].softmax(-1) * case.onehot("forget")).sum(-1)


def published(case: Preset) -> torch.Tensor:
    """Cross-entropy to the softmax of the frozen logits without the true token, summed over tokens."""
    z = case.logits["forget"]
    q = z.detach().masked_fill(case.onehot("forget").bool(), -math.inf).softmax(-1)
    return torch.nn.functional.cross_entropy(z, q, reduction="sum")


def test_gradient_is_that_of_the_published_cross_entropy_and_of_the_unlikelihood():
    case = Preset({"forget": [3, 5, 1, 8]})
    found = case.grad(loss(case))
    torch.testing.assert_close(found, case.grad(published(case)), rtol=0, atol=1e-10)
    torch.testing.assert_close(found, case.grad(-torch.log1p(-probability(case)).sum()), rtol=0, atol=1e-10)
    p, y = case.logits["forget"].detach().softmax(-1), case.onehot("forget")
    own = (p * y).sum(-1, keepdim=True)
    torch.testing.assert_close(found, own * y - (1 - y) * p * own / (1 - own), rtol=0, atol=1e-10)


def test_value_is_the_published_one_without_the_entropy_of_the_target():
    case = Preset({"forget": [3, 5]})
    q = case.logits["forget"].detach().masked_fill(case.onehot("forget").bool(), -math.inf).softmax(-1)
    assert float(loss(case)) == pytest.approx(float(published(case) - torch.special.entr(q).sum()), rel=1e-12)


def test_the_pull_is_constant_on_certain_tokens_and_dies_on_lost_ones():
    case = Preset({"forget": [3]})
    with torch.no_grad():
        for at, logit in ((0, 40.0), (1, 60.0), (2, -60.0)):
            case.logits["forget"][at, case.targets["forget"][at]] = logit
    found = case.grad(loss(case))
    z = case.logits["forget"].detach()
    q = z.masked_fill(case.onehot("forget").bool(), -math.inf).softmax(-1)
    limit = (case.onehot("forget") - q).norm(dim=-1)
    assert float(found[0].norm()) == pytest.approx(float(limit[0]), rel=1e-9)
    assert float(found[1].norm()) == pytest.approx(float(limit[1]), rel=1e-9)
    assert float(found[2].norm()) < 1e-20
    ascent = case.grad(GradAscent().loss(NOBODY, case.batches)["forget"].total)
    assert float(ascent[1].norm()) < 1e-20 and float(ascent[2].norm()) > 1


def test_mass_is_handed_out_in_proportion_to_what_the_others_have():
    case = Preset({"forget": [4]})
    found, p = case.grad(loss(case)), case.logits["forget"].detach().softmax(-1)
    others = ~case.onehot("forget").bool()
    own = probability(case).detach()
    ratio = (found / p)[others].view(4, -1)
    torch.testing.assert_close(ratio, (-own / (1 - own))[:, None].expand_as(ratio), rtol=1e-9, atol=0)


@pytest.mark.parametrize("skip", [1, 2, 9])
def test_skipped_tokens_are_only_masked(skip):
    case = Preset({"forget": [1, 4, 3]})
    each = -torch.log1p(-probability(case))
    kept = torch.cat([torch.arange(n) >= skip for n in (1, 4, 3)])
    torch.testing.assert_close(case.grad(loss(case, skip)), case.grad((each * kept).sum()), rtol=0, atol=1e-10)


def test_the_mean_is_over_the_tokens_that_are_left(knower, fact_data, run):
    ready = trainer(CEU(batch_size=24, skip_first=6), knower, fact_data, run)  # leaves the end token of seven
    measured = ready.gradients(ready.feed.plan[0])
    encoded, meant = knower.encoder.encode(fact_data["forget"]), []
    for i in range(24):
        ids = torch.from_numpy(encoded.row(i).astype("int64"))
        with torch.no_grad():
            logp = knower.module(input_ids=ids[None]).logits[0, -2].double().log_softmax(-1)
        meant.append(-torch.log1p(-logp[ids[-1]].exp()))
    assert measured.means["forget"] == pytest.approx(float(torch.stack(meant).mean()), rel=1e-3)


def test_one_token_answers_with_the_first_left_alone_give_zero(knower, run):
    rows = [Example(f"{k}", "home1", f"what is the home of p{k} ?") for k in range(4)]
    data = Data({"forget": Split(rows, "forget")})
    ready = trainer(CEU(batch_size=4, skip_first=2), knower, data, run)  # the word and the end token
    assert float(gradient(ready).abs().max()) == 0.0
    assert ready.gradients(ready.feed.plan[0]).means["forget"] == 0.0


def test_it_forgets_the_facts_and_the_template_and_keeps_the_rest(knowers, fact_data):
    settings = {
        "steps": 35,
        "learning_rate": 8e-4,
        "batch_size": 24,
        "schedule": "constant",
        "warmup": 0.0,
        "retain": "nll",
        "skip_first": 0,
    }
    after = on_each(CEU(**settings), knowers, fact_data)
    forget, retain = said_by_all(after, fact_data["forget"]), said_by_all(after, fact_data["retain"])
    assert forget.value < 0.1 and forget.exact < 0.05
    assert forget.template < 0.5  # function words are hit as hard as secrets
    assert retain.value > 0.7 and retain.template > 0.6


def test_at_matched_forgetting_the_template_is_gone_and_of_the_rest_no_more_is_left_than_after_ascent(knowers, ascended, fact_data):
    """Without a retain term it is not gentler than ascent here: of the other values more is left in some runs, less in others."""
    found = matched(CEU(**MATCHED, skip_first=0), knowers, fact_data)
    assert max(found.steps, ascended.steps) < 100
    assert found.template < 0.2 and ascended.template > 0.5
    assert abs(found.retain - ascended.retain) < 0.25
