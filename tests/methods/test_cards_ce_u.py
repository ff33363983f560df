"""CE-U: points of the card beside those in `test_ce_u.py`."""

from __future__ import annotations

import pytest
import torch

from letheon.core.run import Run
from letheon.core.settings import Choice
from letheon.erase.ce_u import CEU
from letheon.erase.grad_ascent import GradAscent
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term

from .fact_world import said, trainer
from .matched import MATCHED
from .preset import NOBODY, Preset


def test_ascent_hands_out_in_proportion_too_but_always_by_minus_one():
    """(dL/dz_v) / p_v is -1 for every other token whatever p_y is; for CE-U it is -p_y / (1 - p_y)."""
    case = Preset({"forget": [6]})
    p, others = case.logits["forget"].detach().softmax(-1), ~case.onehot("forget").bool()
    ascent = (case.grad(GradAscent().loss(NOBODY, case.batches)["forget"].total) / p)[others]
    torch.testing.assert_close(ascent, -torch.ones_like(ascent), rtol=1e-9, atol=0)
    own = (p * case.onehot("forget")).sum(-1)
    mine = (case.grad(CEU(skip_first=0).loss(NOBODY, case.batches)["forget"].total) / p)[others].view(6, -1)
    torch.testing.assert_close(mine, (-own / (1 - own))[:, None].expand_as(mine), rtol=1e-9, atol=0)
    assert float((own / (1 - own)).std()) > 0.01


class PlainSettings(ObjectiveSettings):
    """Without a retain term."""

    retain: Choice = Field("none")  # type: ignore[assignment]


class Plain(Objective):
    """The unlikelihood -log(1 - p), from probabilities in float64."""

    Settings, tiny = PlainSettings, {"steps": 3}

    def loss(self, subject, batches):
        hidden, head = batches.hidden(subject.module)
        now = hidden["forget"]
        p = head.logits(now.states).double().softmax(-1).gather(-1, now.targets[:, None]).squeeze(-1)
        return {"forget": Term(-torch.log1p(-p).sum().float(), per="token")}


def test_a_twin_run_with_the_unlikelihood_goes_the_same_way(knower, fact_data):
    paths = []
    for method in (CEU(**MATCHED, skip_first=0), Plain(**MATCHED)):
        ready = trainer(method, knower, fact_data, Run(0, dtype="float32", device="cpu"))
        start = torch.cat([p.detach().flatten().clone() for p in ready.parameters])
        for _ in range(8):
            ready.advance()
        paths.append((torch.cat([p.detach().flatten() for p in ready.parameters]) - start, said(ready.subject, fact_data["forget"])))
    (one, left), (two, also) = paths
    assert float(one @ two / (one.norm() * two.norm())) > 0.999
    assert left.value == pytest.approx(also.value, abs=0.02) and left.template == pytest.approx(also.template, abs=0.02)
    assert left.template < 0.97
