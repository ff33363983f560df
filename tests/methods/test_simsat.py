"""SimSat: what the card says a correct implementation must show, at every grain."""

from __future__ import annotations

import pytest
import torch

from letheon.erase.npo import NPO
from letheon.erase.simsat import SimSat
from letheon.erase.wga import WGA

from .preset import NOBODY, Preset


def term(case: Preset, **settings):
    return SimSat(**settings).loss(NOBODY, case.batches)["forget"]


@pytest.mark.parametrize("beta", [0.0, 1.0, 5.0])
def test_per_token_it_is_wga(beta):
    case = Preset({"forget": [3, 5, 1]})
    other = WGA(beta=beta).loss(NOBODY, case.batches)["forget"]
    found = term(case, beta=beta)
    assert found.per == other.per == "token"
    assert torch.equal(case.grad(found.total), case.grad(other.total))


def test_groups_of_one_are_tokens_and_large_groups_share_the_mean_of_the_answer():
    case = Preset({"forget": [3, 5, 1]})
    assert torch.equal(term(case, grain="group", group=1).total, term(case).total)
    rows = (-case.logits["forget"].log_softmax(-1)[torch.arange(9), case.targets["forget"]]).split([3, 5, 1])
    meant = sum(-(torch.exp(-row).mean().detach() * row).sum() for row in rows)
    torch.testing.assert_close(case.grad(term(case, grain="group", group=8).total), case.grad(meant), rtol=0, atol=1e-12)


def test_a_whole_answer_has_the_weight_of_its_likelihood():
    case, beta = Preset({"forget": [2, 3, 1]}), 0.2
    found = term(case, grain="answer", beta=beta)
    s = case.nll("forget")
    assert found.per == "sequence"
    torch.testing.assert_close(case.grad(found.total), case.grad(torch.exp(-beta * s).sum() / beta), rtol=0, atol=1e-10)


def test_without_exponent_a_whole_answer_is_pushed_as_by_the_first_step_of_npo():
    case = Preset({"forget": [2, 3, 1]})
    method = NPO(beta=0.1)
    method.frozen = case.nll("forget").detach()
    first = case.grad(method.loss(NOBODY, case.batches)["forget"].total)
    torch.testing.assert_close(case.grad(term(case, grain="answer", beta=0.0).total), first, rtol=0, atol=1e-12)


def test_long_answers_lose_their_weight_at_the_grain_of_answers_only():
    case = Preset({"forget": [40]})
    whole, tokens = (case.grad(term(case, grain=grain).total).norm() for grain in ("answer", "token"))
    assert float(whole) < 1e-20 * float(tokens)
