"""SimImp: what the card says a correct implementation must show."""

from __future__ import annotations

import pytest
import torch

from letheon.erase.grad_ascent import GradAscent
from letheon.erase.simimp import SimImp

from .preset import NOBODY, Preset


def term(case: Preset, **settings):
    return SimImp(**settings).loss(NOBODY, case.batches)["forget"]


def test_without_exponent_it_is_ascent():
    case = Preset({"forget": [3, 5, 1]})
    assert torch.equal(term(case, beta=0.0).total, GradAscent().loss(NOBODY, case.batches)["forget"].total)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_gradient_is_that_of_its_integral(beta):
    case = Preset({"forget": [3, 5, 1, 8]})
    p = (case.logits["forget"].softmax(-1) * case.onehot("forget")).sum(-1)
    integral = p.log() - p if beta == 1.0 else p.log() - 2 * p + p**2 / 2  # of (1 - p)^beta / p
    torch.testing.assert_close(case.grad(term(case, beta=beta).total), case.grad(integral.sum()), rtol=0, atol=1e-10)


def test_certain_tokens_are_spared_and_lost_ones_pushed_as_by_ascent():
    case = Preset({"forget": [2]})
    with torch.no_grad():
        case.logits["forget"][0, case.targets["forget"][0]] = 60.0
        case.logits["forget"][1, case.targets["forget"][1]] = -60.0
    found = case.grad(term(case).total)
    ascent = case.grad(GradAscent().loss(NOBODY, case.batches)["forget"].total)
    assert float(found[0].abs().max()) < 1e-40
    torch.testing.assert_close(found[1], ascent[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("grain", ["group", "answer"])
def test_coarser_grains(grain):
    case = Preset({"forget": [2, 4]})
    found = term(case, grain=grain, group=4)
    nll = -case.logits["forget"].log_softmax(-1)[torch.arange(6), case.targets["forget"]]
    rows = nll.split([2, 4])
    if grain == "group":
        meant = sum(-((1 - torch.exp(-row)).mean().detach() * row).sum() for row in rows)
    else:
        meant = sum(-(1 - torch.exp(-row.sum())).detach() * row.sum() for row in rows)
    assert found.per == ("token" if grain == "group" else "sequence")
    torch.testing.assert_close(case.grad(found.total), case.grad(meant), rtol=0, atol=1e-12)
