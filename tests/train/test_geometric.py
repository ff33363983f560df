"""`geometric`: the numbers that its card says a correct implementation must show."""

from __future__ import annotations

import itertools
import logging

import pytest
import torch

from letheon.core.errors import SettingsError
from letheon.core.run import Run
from letheon.erase.npo import NPO
from letheon.train.means import retain_mean
from letheon.train.rules.geometric import Geometric, without
from letheon.train.rules.pcgrad import PCGrad

from .plain import gradient, trainer
from .vectors import LENGTH, flat, fresh, part, random_gradient, travelled, weights

NO_DRIFT = {"betas": (0.0, 0.999), "weight_decay": 0.0, "clip": 0}


def combined(rule, forget, retain, named, optimizer, weight: float = 0.0):
    found, told = rule.combine({"forget": part(forget), "retain": part(retain, weight)}, named, optimizer)
    return flat(found), told


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_what_is_left_is_orthogonal_in_the_metric_of_adam_and_in_no_other(dtype, within):
    named = weights(dtype)
    optimizer, h = travelled(named)
    forget, retain = random_gradient(1, dtype), random_gradient(2, dtype)
    p, told = combined(Geometric(), forget, retain, named, optimizer)
    f, r, p = flat(forget).double(), flat(retain).double(), p.double()
    norms = ((p**2 / h).sum() * (r**2 / h).sum()).sqrt()
    assert abs(float((p * r / h).sum() / norms)) < within
    assert abs(float(p @ r / (p.norm() * r.norm()))) > 1e-2
    assert float((p * f / h).sum()) > 0
    torch.testing.assert_close(p, f - (f * r / h).sum() / (r**2 / h).sum() * r, rtol=0, atol=10 * within * float(f.abs().max()))
    assert told["dot"] == pytest.approx(float((f * r / h).sum()), rel=1e-4)
    assert abs(told["cosine_after"]) < within and told["conflict"] == float(told["dot"] < 0)
    assert told["cut"] == pytest.approx(abs(told["cosine"]), rel=1e-4)  # with one vector the share that is cut is the cosine
    assert told["forget_slope"] == pytest.approx(-float((p * f / h).sum()), rel=1e-4)
    assert abs(told["retain_slope"]) < within * float(norms)


def test_the_retain_gradient_comes_back_with_its_weight():
    named = weights()
    optimizer, h = travelled(named)
    forget, retain = random_gradient(1), random_gradient(2)
    alone, _ = combined(Geometric(), forget, retain, named, optimizer)
    both, told = combined(Geometric(), forget, retain, named, optimizer, weight=2.5)
    torch.testing.assert_close(both, alone + 2.5 * flat(retain), rtol=0, atol=1e-12)
    assert told["retain_slope"] == pytest.approx(-2.5 * float((flat(retain) ** 2 / h).sum()))


def test_three_vectors_are_those_of_the_last_three_steps():
    """Closed form with dense matrices: (I - U (U' D^-1 U)^-1 U' D^-1) f."""
    named, rule = weights(), Geometric(vectors=3)
    optimizer, h = travelled(named)
    retained = [random_gradient(seed) for seed in (2, 3, 4, 5)]
    for retain in retained:
        p, _ = combined(rule, random_gradient(1), retain, named, optimizer)
    u = torch.stack([flat(retain) for retain in retained[1:]], 1)  # (24, 3)
    inverse = torch.diag(1 / h)
    expected = flat(random_gradient(1)) - u @ torch.linalg.solve(u.T @ inverse @ u, u.T @ inverse @ flat(random_gradient(1)))
    torch.testing.assert_close(p, expected, rtol=0, atol=1e-10)
    assert float((u.T @ inverse @ p).abs().max() / (u.T @ inverse @ u).diag().sqrt().max()) < 1e-10
    assert float((flat(retained[0]) * p / h).sum().abs()) > 1e-3  # the oldest is forgotten


def test_limits():
    named = weights()
    optimizer, _ = travelled(named)
    forget, nothing = random_gradient(1), [torch.zeros_like(t) for t in random_gradient(1)]
    kept, told = combined(Geometric(), forget, nothing, named, optimizer)
    assert torch.equal(kept, flat(forget)) and told["cut"] == 0 and "cosine" not in told  # an angle with nothing is unknown
    for vectors in (1, 3):
        gone, _ = combined(Geometric(vectors=vectors), forget, forget, named, optimizer)
        assert float(gone.abs().max()) < 1e-12
    for state in optimizer.state.values():
        state["exp_avg_sq"].fill_(0.25)
    constant, _ = combined(Geometric(), forget, random_gradient(2), named, optimizer)
    euclidean, _ = combined(Geometric(metric="euclidean"), forget, random_gradient(2), named, optimizer)
    torch.testing.assert_close(constant, euclidean, rtol=0, atol=1e-12)


def test_twice_is_once_and_alike_vectors_count_once():
    over = [None] * 3
    forget, basis = random_gradient(1), [random_gradient(2), random_gradient(3)]
    once, _ = without(forget, basis, over)
    twice, more = without(once, basis, over)
    torch.testing.assert_close(flat(twice), flat(once), rtol=0, atol=1e-12)
    assert more < 1e-12
    alike, _ = without(forget, [*basis, [2 * t for t in basis[0]]], over)
    torch.testing.assert_close(flat(alike), flat(once), rtol=0, atol=1e-10)


def test_orthogonal_gradients_are_summed_and_the_first_step_is_euclidean():
    named = weights()
    forget, retain = torch.zeros(2, LENGTH, dtype=torch.float64).unbind()
    forget[:9], retain[9:] = 1.5, -0.5
    shaped = [[t.view_as(p) for t, p in zip(v.split([12, 4, 8]), named.values(), strict=True)] for v in (forget, retain)]
    found, _ = combined(Geometric(), *shaped, named, fresh(named), weight=1.0)
    torch.testing.assert_close(found, forget + retain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_one_sided_surgery_is_the_same_where_gradients_conflict_and_nothing_elsewhere(sign):
    named = weights()
    optimizer, h = travelled(named)
    forget, retain = random_gradient(1), random_gradient(2)
    retain = [sign * t * float(torch.sign((flat(forget) * flat(retain) / h).sum())) for t in retain]  # the overlap has this sign
    cut, told = combined(Geometric(), forget, retain, named, optimizer, weight=1.0)
    surgery, counted = combined(PCGrad(yields="forget", metric="adam"), forget, retain, named, optimizer, weight=1.0)
    assert told["conflict"] == counted["conflicts"] == float(sign < 0)
    torch.testing.assert_close(surgery, cut if sign < 0 else flat(forget) + flat(retain), rtol=0, atol=1e-12)


def test_a_pattern_leaves_the_other_weights_to_the_plain_sum():
    named = weights()
    forget, retain = random_gradient(1), random_gradient(2)
    parts = {"forget": part(forget), "retain": part(retain)}
    found, _ = Geometric(pattern="^first", metric="euclidean").combine(parts, named, fresh(named))
    assert torch.equal(found[2], forget[2] + retain[2])
    p = flat(found[:2]) - flat(retain[:2])
    assert abs(float(p @ flat(retain[:2]))) < 1e-12
    with pytest.raises(SettingsError, match="matches none of 3 weights"):
        Geometric(pattern="nowhere").combine(parts, named, fresh(named))
    with pytest.raises(SettingsError, match="not a regular expression"):
        Geometric(pattern="(")


def test_momentum_and_decay_are_warned_of_once(caplog):
    named, parts = weights(), {"forget": part(random_gradient(1)), "retain": part(random_gradient(2))}
    with caplog.at_level(logging.WARNING, logger="letheon"):
        Geometric().combine(parts, named, fresh(named))
        assert not caplog.records
        for more in ({"betas": (0.9, 0.999)}, {"weight_decay": 0.01}):
            rule = Geometric()
            for _ in range(2):
                rule.combine(parts, named, fresh(named, **more))
    assert len(caplog.records) == 2 and "weight_decay=0" in caplog.text


@pytest.mark.parametrize("name", ["geometric", "sum"])
def test_the_effect_of_a_step_on_the_retain_loss_shrinks_with_the_square_of_its_size(name):
    """NPO on a language model, in the metric of Adam after two real steps: half the size gives a quarter (plain sum: half)."""
    run = Run(device="cpu", dtype="float32")
    one = trainer(NPO(steps=3, rule=name, retain_weight=0.0, learning_rate=3e-3, batch_size=12, **NO_DRIFT), run)
    for _ in range(2):
        one.advance()
    one.gradients(one.feed.plan[2])
    at = [one.optimizer.state[p] for p in one.parameters]
    h = [(s["exp_avg_sq"] / (1 - 0.999 ** float(s["step"]))).sqrt() + 1e-8 for s in at]
    start, changes = [p.detach().double() for p in one.parameters], []
    one.feed.plan[:] = [{"retain": one.feed.plan[2]["retain"]}]  # the loss of this step's rows
    one.subject.module.double()

    def loss() -> float:
        return retain_mean(one.objective, one.subject, one.feed, run, 1)

    before, scale = loss(), 2.0 / float(gradient(one).norm())
    for size in (1e-3, 5e-4, 2.5e-4):
        with torch.no_grad():
            for parameter, was, divide in zip(one.parameters, start, h, strict=True):
                parameter.copy_(was - size * scale * parameter.grad / divide)
        changes.append(loss() - before)
    ratios = [one / half for one, half in itertools.pairwise(changes)]
    expected = 4.0 if name == "geometric" else 2.0
    assert ratios == pytest.approx([expected] * 2, rel=0.15)
    assert abs(ratios[1] - expected) <= abs(ratios[0] - expected) + 0.01  # and it tends there
