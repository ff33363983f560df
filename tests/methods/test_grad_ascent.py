"""Gradient ascent, GradDiff and the retain terms: what the card says a correct implementation must show."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from letheon.adapt.finetune import Finetune
from letheon.core.data import Data, Split
from letheon.erase.grad_ascent import GradAscent

from .fact_world import gradient, said, said_by_all, trainer
from .preset import NOBODY, Preset

FACTS = {"steps": 60, "learning_rate": 5e-4, "batch_size": 24, "schedule": "constant", "warmup": 0.0}


def test_gradient_is_exactly_minus_that_of_fine_tuning(stranger, fact_data, run):
    up = gradient(trainer(GradAscent(batch_size=24), stranger, fact_data, run))
    down = gradient(trainer(Finetune(split="forget", batch_size=24), stranger, fact_data, run))
    assert float(up.abs().max()) > 1e-3
    assert torch.equal(up, -down)


def test_graddiff_on_equal_rows_has_no_gradient(stranger, fact_data, run):
    same = Data({"forget": fact_data["forget"], "retain": Split([replace(r, id=r.id + "+") for r in fact_data["forget"]], "retain")})
    one = gradient(trainer(GradAscent(batch_size=24), stranger, same, run))
    both = gradient(trainer(GradAscent(retain="nll", batch_size=24), stranger, same, run))
    assert float(both.abs().max()) < 1e-5 * float(one.abs().max())


def test_logit_gradient_dies_on_certain_tokens_and_stays_on_lost_ones():
    case = Preset({"forget": [2, 3, 1]})
    with torch.no_grad():
        case.logits["forget"][0, case.targets["forget"][0]] = 60.0  # p = 1
        case.logits["forget"][1, case.targets["forget"][1]] = -60.0  # p = 0
    tokens = len(case.targets["forget"])
    found = case.grad(GradAscent().loss(NOBODY, case.batches)["forget"].total / tokens)
    p = case.logits["forget"].detach().softmax(-1)
    torch.testing.assert_close(found, (case.onehot("forget") - p) / tokens, rtol=0, atol=1e-12)
    assert float(found[0].norm()) < 1e-12
    assert float(found[1].norm()) > 1 / tokens


def test_ascent_alone_destroys_everything(knower, fact_data, run):
    alone = GradAscent(**FACTS).apply(knower, fact_data, run)
    assert said(alone, fact_data["forget"]).value < 0.1
    assert said(alone, fact_data["retain"]).value < 0.05


def test_a_retain_term_keeps_much_while_the_template_of_forget_answers_goes(graddiffs, fact_data):
    forget, retain = said_by_all(graddiffs, fact_data["forget"]), said_by_all(graddiffs, fact_data["retain"])
    assert forget.value < 0.2
    assert forget.template < retain.template - 0.05
    assert retain.value > 0.6


def test_floor_ends_the_run_after_the_step_that_passes_it(knower, fact_data, run, tmp_path):
    stopped = GradAscent(**FACTS, floor=2.0).apply(knower, fact_data, run)
    steps = stopped.lineage[-1].notes["steps"]
    assert 1 < steps < 60
    shorter = GradAscent(**{**FACTS, "steps": steps}).apply(knower, fact_data, run)
    assert shorter.lineage[-1].notes["steps"] == steps
    assert all(torch.equal(a, b) for a, b in zip(shorter.module.parameters(), stopped.module.parameters(), strict=True))
    ready = trainer(GradAscent(**FACTS), knower, fact_data, run)
    nll = [-ready.advance()["forget"] for _ in range(steps)]
    assert nll[-1] > 2.0 and max(nll[:-1]) <= 2.0


def test_kl_is_zero_with_zero_gradient_at_the_start(stranger, fact_data, run):
    ready = trainer(GradAscent(retain="kl", forget_weight=0.0, batch_size=24), stranger, fact_data, run)
    measured = ready.gradients(ready.feed.plan[0])
    assert measured.means["retain"] == pytest.approx(0, abs=1e-6)
    plain = gradient(trainer(Finetune(batch_size=24), stranger, fact_data, run))
    assert max(float(p.grad.abs().max()) for p in ready.parameters) < 1e-5 * float(plain.abs().max())


def test_kl_is_positive_away_from_the_start_and_has_the_incoming_model_on_the_left(knower, fact_data, run):
    ready = trainer(GradAscent(retain="kl", forget_weight=0.0, batch_size=8), knower, fact_data, run)
    with torch.no_grad():
        for parameter in ready.parameters:
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
    rows = ready.feed.plan[0]
    found = ready.gradients(rows).means["retain"]
    encoded = knower.encoder.encode(fact_data["retain"])
    forward, backward, tokens = 0.0, 0.0, 0
    for i in rows["retain"]:
        ids, start = torch.from_numpy(encoded.row(int(i)).astype("int64"))[None], int(encoded.starts[i])
        with torch.no_grad():
            q = knower.module(input_ids=ids).logits[0, start - 1 : -1].double().log_softmax(-1)
            p = ready.subject.module(input_ids=ids).logits[0, start - 1 : -1].double().log_softmax(-1)
        forward += float((q.exp() * (q - p)).sum())
        backward += float((p.exp() * (p - q)).sum())
        tokens += len(q)
    assert found == pytest.approx(forward / tokens, rel=1e-4)
    assert found > 0 and abs(found - backward / tokens) > 1e-2 * found


def test_kl_on_forget_needs_no_retain_rows(knower, fact_data, run):
    only = Data({"forget": fact_data["forget"]})
    after = GradAscent(retain="kl:on=forget", steps=2, learning_rate=1e-3).apply(knower, only, run)
    assert after.digest != knower.digest
