"""`primal-dual`: the numbers that its card says a correct implementation must show."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
import torch.nn.functional as F

from letheon.core.errors import MethodError, RunError
from letheon.core.run import Run
from letheon.erase.npo import NPO
from letheon.testing.toys import toy_data, toy_subject
from letheon.train.rules.primal_dual import PrimalDual

from .plain import Ascent, gradient, trainer
from .vectors import flat, fresh, part, random_gradient, weights


def run(**more) -> Run:
    return Run(device="cpu", dtype="float32", **more)


def trajectory(rule: PrimalDual, losses: list[float], weight: float = 2.0) -> list[float]:
    """The multiplier of each step, read off the gradient: forget is 0, so g = multiplier r."""
    named, found = weights(), []
    retain, nothing = random_gradient(1), [torch.zeros_like(t) for t in random_gradient(1)]
    for loss in losses:
        g, told = rule.combine({"forget": part(nothing), "retain": part(retain, weight, loss)}, named, fresh(named))
        found.append(float(flat(g) @ flat(retain) / (flat(retain) @ flat(retain))))
        assert told["multiplier"] == pytest.approx(found[-1]) and told["violation"] == pytest.approx(loss - rule.epsilon)
    return found


def test_the_multiplier_moves_by_rate_times_violation_and_stops_at_zero():
    """epsilon 0.5, rate 3: 2, +3 * 0.5, +3 * 0.25, then down by 3 * 0.5 a step to 0, and up from there."""
    losses = [1.0, 0.75, 0.0, 0.0, 0.0, 0.0, 0.6]
    assert trajectory(PrimalDual(epsilon=0.5, rate=3), [*losses, 0.5]) == pytest.approx([2, 3.5, 4.25, 2.75, 1.25, 0, 0, 0.3])


def test_during_the_warm_up_it_does_not_move():
    assert trajectory(PrimalDual(epsilon=0.5, rate=3, warmup=2), [1.0] * 5) == pytest.approx([2, 2, 2, 3.5, 5])


def test_smoothing_follows_the_running_average():
    """Averages of 1, 0, 0 with decay 1/2: 1, 1/2, 1/4; violations of 1/4: 3/4, 1/4, 0."""
    found = trajectory(PrimalDual(epsilon=0.25, rate=1, smoothing=0.5), [1.0, 0.0, 0.0, 0.25])
    assert found == pytest.approx([2, 2.75, 3, 3])


def test_a_bound_without_end_leaves_forgetting_alone():
    named, rule = weights(), PrimalDual(epsilon=1e9)
    parts = {"forget": part(random_gradient(1), 0.7), "retain": part(random_gradient(2), 5.0)}
    rule.combine(parts, named, fresh(named))
    found, _ = rule.combine(parts, named, fresh(named))
    assert torch.equal(flat(found), 0.7 * flat(random_gradient(1)))


def test_without_a_dual_step_it_is_the_plain_sum():
    found = []
    for rule in ("sum", "primal-dual:rate=0"):
        one = trainer(Ascent(steps=3, retain_weight=1.7, forget_weight=0.3, rule=rule), run())
        one.advance()
        found.append(gradient(one))
    torch.testing.assert_close(*found, rtol=0, atol=2e-6 * float(found[0].abs().max()))


@pytest.mark.parametrize(("slack", "margin"), [(0.25, 0.05), (0.0, 0.3)])
def test_the_bound_comes_from_the_model_as_it_came_in(slack, margin):
    """L0 by hand from full logits over the retain rows of the first steps of the plan, 9 rows of 3 steps."""
    rule = {"name": "primal-dual", "start_rows": 7, "slack": slack, "margin": margin}
    one = trainer(NPO(steps=5, batch_size=3, rule=rule), run())
    subject, data = toy_subject(), toy_data()
    encoded, total, tokens = subject.encoder.encode(data["retain"]), 0.0, 0
    plan = [int(row) for step in one.feed.plan for row in step["retain"]]
    assert [len(step["retain"]) for step in one.feed.plan[:3]] == [3, 3, 2]
    for row in plan[:8]:
        ids, begin = torch.tensor(encoded.row(row).astype("int64")), int(encoded.starts[row])
        logits = subject.module(input_ids=ids[None]).logits[0].detach().double()
        total += float(F.cross_entropy(logits[begin - 1 : -1], ids[begin:], reduction="sum"))
        tokens += len(ids) - begin
    first = total / tokens
    assert one.rule.epsilon == pytest.approx(max((1 + slack) * first, first + margin), rel=1e-5)
    assert one.advance()["epsilon"] == one.rule.epsilon


def test_a_rule_that_was_not_started_says_so():
    named = weights()
    with pytest.raises(MethodError, match="was not started"):
        PrimalDual().combine({"retain": part(random_gradient(1))}, named, fresh(named))


def test_it_moves_once_per_step_however_the_step_is_cut():
    found = []
    for budget in (1 << 20, 16):
        one = trainer(NPO(steps=4, batch_size=4, learning_rate=1e-3, tokens_per_batch=budget, rule="primal-dual:epsilon=4"), run())
        found.append([one.advance()["multiplier"] for _ in range(4)])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0][0] == 1.0 and found[0][1] > 2 and len(set(found[0])) == 4


def test_a_resumed_run_has_the_same_bits_and_the_same_multipliers(tmp_path):
    """Six steps, stopped after three; bound, multiplier and average come out of the checkpoint."""
    settings = {"steps": 6, "learning_rate": 3e-3, "batch_size": 4, "rule": "primal-dual:slack=0,margin=0,smoothing=0.5"}

    class Stopped(NPO):
        def stepped(self, subject, step):
            if step == 3:
                raise KeyboardInterrupt

    Stopped.__module__ = NPO.__module__
    whole = NPO(**settings).apply(toy_subject(), toy_data(), run(out=tmp_path / "whole"))
    with pytest.raises(RunError, match="Interrupted after step 3"):
        Stopped(**settings).apply(toy_subject(), toy_data(), run(out=tmp_path / "cut"))
    after = NPO(**settings).apply(toy_subject(), toy_data(), run(out=tmp_path / "cut", resume=True))
    assert after.digest == whole.digest
    told = [{line["step"]: line for line in map(json.loads, (tmp_path / name / "metrics.jsonl").open())} for name in ("whole", "cut")]
    for step, line in told[1].items():
        assert line["multiplier"] == told[0][step]["multiplier"] and line["epsilon"] == told[0][step]["epsilon"]
    assert sorted(told[1]) == [1, 2, 4, 5, 6]
    moves = [told[0][step]["multiplier"] for step in range(1, 7)]
    assert all(a != b for a, b in itertools.pairwise(moves)), "a multiplier that stands still would prove nothing"
