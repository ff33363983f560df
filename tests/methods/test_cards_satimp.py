"""SatImp and WGA: points of the card beside those in `test_satimp.py` and `test_wga.py`."""

from __future__ import annotations

import torch

from letheon.core.run import Run
from letheon.erase.satimp import SatImp
from letheon.erase.wga import WGA

from .fact_world import said
from .matched import MATCHED, matched
from .preset import NOBODY, Preset


def test_a_gradient_through_the_weights_is_another():
    """The closed form holds for weights that are held fixed; letting autograd through p^5 (1 - p) l does not give it."""
    case = Preset({"forget": [3, 5, 1, 8]})
    p = (case.logits["forget"].softmax(-1) * case.onehot("forget")).sum(-1)
    closed = case.grad((p**5 / 5 - p**6 / 6).sum())
    p = (case.logits["forget"].softmax(-1) * case.onehot("forget")).sum(-1)
    through = case.grad((p**5 * (1 - p) * p.log()).sum())
    found = case.grad(SatImp(beta1=5.0, beta2=1.0).loss(NOBODY, case.batches)["forget"].total)
    torch.testing.assert_close(found, closed, rtol=0, atol=1e-10)
    assert float((through - closed).abs().max()) > 1e-2


def test_what_is_known_by_heart_is_forgotten_slowly_beside_a_full_retain_term(knower, fact_data):
    """At the same rate and number of steps WGA has forgotten most and SatImp(5, 1) next to nothing."""
    settings = {"steps": 30, "learning_rate": 3e-4, "batch_size": 24, "schedule": "constant", "warmup": 0.0, "retain": "nll"}
    left = {}
    for method in (SatImp, WGA):
        after = method(**settings, retain_weight=1.0).apply(knower, fact_data, Run(0, dtype="float32", device="cpu"))
        left[method] = said(after, fact_data["forget"]).value
        assert said(after, fact_data["retain"]).exact > 0.95
    assert left[SatImp] > 0.75 and left[WGA] < 0.55


def test_at_matched_forgetting_little_importance_leaves_more_of_the_rest_than_ascent(knowers, ascended, fact_data):
    found = matched(SatImp(**MATCHED, beta2=0.1), knowers, fact_data)
    assert max(found.steps, ascended.steps) < 100
    assert found.retain > ascended.retain + 0.02
