"""Training in float16: the loss is lifted so that no gradient rounds to 0, and lowered again where one overflows."""

from __future__ import annotations

import pytest
import torch

from letheon.core.errors import RunError
from letheon.core.run import Run
from letheon.testing.toys import toy_data, toy_subject
from letheon.train import lift
from letheon.train.means import forget_slope

from .plain import Ascent, gradient, trainer

SMALL = {"steps": 1, "forget_weight": 1e-5, "retain_weight": 1e-5, "clip": 0.0}  # what a mean over millions of tokens does to gradients


def run(dtype: str = "float16", **more) -> Run:
    return Run(device="cpu", dtype=dtype, **more)


def stepped(dtype: str, rule: str, **more):
    one = trainer(Ascent(**{**SMALL, "rule": rule, **more}), run(dtype))
    return one.gradients(one.feed.plan[0]), gradient(one), one


@pytest.mark.parametrize("rule", ["sum", "primal-dual:epsilon=5"])
def test_small_gradients_are_not_lost(rule):
    (exact, wanted, _), (measured, found, one) = (stepped(dtype, rule) for dtype in ("float32", "float16"))
    assert one.lift.factor == lift.FIRST
    assert float((found - wanted).norm() / wanted.norm()) < 0.02
    assert measured.means == pytest.approx(exact.means, rel=1e-3)


@pytest.mark.parametrize("rule", ["sum", "pcgrad"])
def test_a_gradient_that_overflows_is_taken_again_with_less(rule, monkeypatch):
    monkeypatch.setattr(lift, "FIRST", 2.0**40)
    _, found, one = stepped("float16", rule, forget_weight=1.0, retain_weight=1.0)
    assert 1 < one.lift.factor < 2.0**40
    _, wanted, _ = stepped("float32", rule, forget_weight=1.0, retain_weight=1.0)
    assert float((found - wanted).norm() / wanted.norm()) < 0.02


def test_other_formats_are_left_alone():
    for dtype in ("float32", "bfloat16"):
        one = trainer(Ascent(steps=1), run(dtype))
        loss = torch.ones(())
        assert one.lift.up(loss) is loss and one.lift.down(loss) is loss and one.lift.state() == {}


def test_the_factor_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(lift, "FIRST", 2.0**40)

    class Stopped(Ascent):
        def stepped(self, subject, step):
            if step == 2:
                raise KeyboardInterrupt

    Stopped.__module__ = Ascent.__module__
    settings = {"steps": 4, "learning_rate": 1e-3, "rule": "primal-dual:epsilon=5"}
    whole = Ascent(**settings).apply(toy_subject(), toy_data(), run())
    with pytest.raises(RunError, match="Interrupted after step 2"):
        Stopped(**settings).apply(toy_subject(), toy_data(), run(out=tmp_path))
    monkeypatch.setattr(lift, "FIRST", float("nan"))  # it comes out of the checkpoint
    after = Ascent(**settings).apply(toy_subject(), toy_data(), run(out=tmp_path, resume=True))
    assert after.digest == whole.digest


def test_slopes_that_the_loop_does_not_lift_are_taken_in_float32():
    found = []
    for dtype in ("float32", "float16"):
        one = trainer(Ascent(**SMALL), run(dtype))
        found.append(forget_slope(one.objective, one.subject, one.feed, run(dtype)))
    assert found[0].keys() == found[1].keys() and all(torch.equal(found[0][name], found[1][name]) for name in found[0])
