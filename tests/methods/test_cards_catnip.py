"""CATNIP: points of the card beside those in `test_catnip.py`."""

from __future__ import annotations

import pytest
import torch

from letheon.core.run import Run
from letheon.erase.catnip import CATNIP
from letheon.erase.ce_u import CEU
from letheon.erase.npo import NPO
from letheon.erase.wga import WGA

from .fact_world import said, trainer
from .matched import MATCHED
from .preset import NOBODY, Preset


def npo(case: Preset, frozen: torch.Tensor) -> torch.Tensor:
    method = NPO(beta=0.3)
    method.frozen = frozen
    return case.grad(method.loss(NOBODY, case.batches)["forget"].total)


def test_npo_depends_on_the_reference_and_catnip_has_none():
    case = Preset({"forget": [3, 5]})
    start = case.nll("forget").detach()
    assert float((npo(case, start) - npo(case, start - 4.0)).abs().max()) > 1e-2
    method = CATNIP()
    assert not hasattr(method, "frozen")
    method.loss(NOBODY, case.batches)
    assert not hasattr(method, "frozen")


def test_joining_answers_changes_the_weights_of_npo_and_not_those_of_catnip():
    """NPO weighs a token by how far its whole answer has moved: 2 sigmoid(-b d). Joined, the answers have moved by d1 + d2."""
    case, joined = Preset({"forget": [3, 5]}), Preset({"forget": [8]})
    joined.logits["forget"], joined.targets["forget"] = case.logits["forget"], case.targets["forget"]
    moved = torch.tensor([2.0, 3.0], dtype=torch.float64)
    start = case.nll("forget").detach() - moved
    one, two = npo(case, start), npo(joined, start.sum()[None])
    weight = torch.sigmoid(-0.3 * moved)
    ratio = (2 * torch.sigmoid(-0.3 * moved.sum()) / (2 * weight)).repeat_interleave(torch.tensor([3, 5]))[:, None]
    torch.testing.assert_close(two, ratio * one, rtol=0, atol=1e-12)
    assert float(ratio.max()) < 0.8
    assert torch.equal(*(case.grad(CATNIP().loss(NOBODY, each.batches)["forget"].total) for each in (case, joined)))


@pytest.mark.parametrize(("mine", "other"), [({}, WGA()), ({"reference": "attached"}, CEU(skip_first=0))], ids=["wga", "ce-u"])
def test_trajectories_under_adam_are_those_of_the_method_whose_gradient_is_half(knower, fact_data, mine, other):
    """Adam does not see a factor of 2 (without clipping, which does): eight steps give the same model."""
    settings = {**MATCHED, "steps": 8, "clip": 0.0}
    values = {name: getattr(other.settings, name) for name in other.settings.model_fields_set}
    paths = []
    for method in (CATNIP(**settings, **mine), type(other)(**settings, **values)):
        ready = trainer(method, knower, fact_data, Run(0, dtype="float32", device="cpu"))
        start = torch.cat([p.detach().flatten().clone() for p in ready.parameters])
        for _ in range(8):
            ready.advance()
        paths.append((torch.cat([p.detach().flatten() for p in ready.parameters]) - start, said(ready.subject, fact_data["forget"]).value))
    (one, left), (two, also) = paths
    assert float(one @ two / (one.norm() * two.norm())) > 0.999
    assert left == pytest.approx(also, abs=0.01) and left < 0.98


def test_no_setting_saves_a_model_whose_facts_all_share_one_mechanism(knower, fact_data):
    """Without retain data, and going on long after the facts are gone: stop early."""
    for more in ({}, {"beta": 0.5}):
        ready = trainer(CATNIP(**{**MATCHED, "learning_rate": 1e-3}, **more), knower, fact_data, Run(0, dtype="float32", device="cpu"))
        for _ in range(40):
            ready.advance()
        assert said(ready.subject, fact_data["retain"]).value < 0.15
