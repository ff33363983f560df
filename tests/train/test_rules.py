"""All gradient rules over several objectives, without a retain term, and beside the loop's own guards."""

from __future__ import annotations

import json

import pytest
import torch

from letheon.core.errors import MethodError
from letheon.core.forward import logits_are_linear
from letheon.core.registry import load, plugins
from letheon.core.run import Run
from letheon.erase.grad_ascent import GradAscent
from letheon.erase.npo import NPO
from letheon.erase.rmu import RMU
from letheon.erase.simnpo import SimNPO
from letheon.testing.toys import toy_data, toy_subject

from .plain import Ascent, SumOfParts, gradient, trainer

OBJECTIVES = (NPO, SimNPO, GradAscent)
RULES = sorted(name for name in plugins("train/rules") if load(name, "train/rules").separate)
LOGGED = {"geometric": {"dot", "cosine_after", "retain_slope"}, "pcgrad": {"conflicts"}, "primal-dual": {"multiplier", "violation"}}


def run(**more) -> Run:
    return Run(device="cpu", dtype="float32", **more)


def test_the_rules_are_swept():
    assert set(LOGGED) <= set(RULES)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda cls: cls.name())
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_works_over_several_objectives(rule, objective, tmp_path):
    """The result is another than that of the plain sum, finite, and its numbers are logged beside the terms."""
    settings = {"steps": 3, "batch_size": 4, "learning_rate": 1e-2, "retain": "nll", "warmup": 0.0}
    settings |= {"beta": 0.1} if objective is not GradAscent else {}  # a larger one finds a random model forgetful enough
    after = objective(rule=rule, **settings).apply(toy_subject(), toy_data(), run(out=tmp_path))
    after.check_finite()
    plain = objective(**settings).apply(toy_subject(), toy_data(), run())
    pairs = zip(after.module.state_dict().values(), plain.module.state_dict().values(), strict=True)
    assert max(float((a - b).abs().max()) for a, b in pairs) > 1e-4
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and all({"forget", "retain", *LOGGED.get(rule, ())} <= line.keys() for line in lines)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda cls: cls.name())
def test_geometric_leaves_the_retain_slope_of_its_own_term_alone(objective):
    """With `retain_weight` 0 the step is orthogonal to the retain gradient, which the plain sum is not."""
    cosines = {}
    for rule in ("geometric:metric=euclidean", "sum"):
        one = trainer(objective(steps=1, retain="nll", retain_weight=0.0, rule=rule), run())
        one.gradients(one.feed.plan[0])
        cut = gradient(one).double()
        other = trainer(objective(steps=1, retain="nll", forget_weight=0.0), run())
        other.gradients(one.feed.plan[0])
        retain = gradient(other).double()
        cosines[rule] = float(cut @ retain / (cut.norm() * retain.norm()))
    assert abs(cosines["geometric:metric=euclidean"]) < 2e-6 and abs(cosines["sum"]) > 1e-2


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_protects_is_refused_where_there_is_nothing_to_protect(rule):
    if load(rule, "train/rules").protects:
        with pytest.raises(MethodError, match=f"`{rule}` protects .* this `grad-ascent` has none") as caught:
            GradAscent(rule=rule)  # its retain term is `none` unless one is named
        assert "retain=nll" in caught.value.hint
        return
    one, plain = (trainer(GradAscent(steps=1, rule=name), run()) for name in (rule, "sum"))
    for each in (one, plain):
        each.gradients(each.feed.plan[0])
    torch.testing.assert_close(gradient(one), gradient(plain), rtol=0, atol=1e-6 * float(gradient(plain).abs().max()))


@pytest.mark.parametrize("rule", ["sum", "pcgrad"])
def test_weights_that_no_term_reaches_keep_their_bits(rule):
    """`rmu` ends its passes after block 0: what lies above has no gradient, and no weight decay either."""
    after = RMU(layer=0, steps=2, learning_rate=1e-2, weight_decay=0.5, parameters="all", rule=rule).apply(toy_subject(), toy_data(), run())
    start, found = toy_subject().module.state_dict(), after.module.state_dict()
    moved = {name for name in start if not torch.equal(start[name], found[name])}
    assert moved and not [name for name in moved if name.startswith(("model.layers.1", "model.norm", "lm_head"))]
    assert "model.layers.0.mlp.down_proj.weight" in moved


def test_what_a_rule_logs_is_no_sign_of_divergence():
    class Loud(SumOfParts):
        def combine(self, parts, named, optimizer):
            return super().combine(parts, named, optimizer)[0], {"loud": 1e12}

    one = trainer(Ascent(steps=1), run())
    one.rule = Loud()
    assert one.advance()["loud"] == 1e12


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_passes_apart_say_what_one_pass_says(architecture):
    one = trainer(Ascent(steps=1), run())
    module = toy_subject(architecture=architecture).module
    logits_are_linear(module)  # its probe is not a pass of the batches
    said = []
    for apart, passes in ((False, 1), (True, 2)):
        batches, calls = one.feed.batches(one.feed.plan[0], apart=apart), []
        hook = module.base_model.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        found = {split: batches.nll(module, split).per_row() for split in ("forget", "retain")}
        hook.remove()
        assert len(calls) == passes
        said.append(found)
    for split in ("forget", "retain"):
        torch.testing.assert_close(said[0][split], said[1][split], rtol=1e-5, atol=1e-5)
