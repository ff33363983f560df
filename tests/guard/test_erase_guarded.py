"""Erasing behind a guard: the work is done on the weights, as if there were no guard, and the guard is there afterwards."""

from __future__ import annotations

import pytest
import torch

import letheon as lt
from letheon.core.errors import MethodError
from letheon.core.guard import unguard, watches
from letheon.core.registry import load, plugins
from letheon.erase.npo import NPO

BUILDS = {"retrain", "sisa"}  # make other models, which nobody guards
METHODS = {
    "npo": {"steps": 4, "learning_rate": 3e-3, "batch_size": 10},
    "modhifi-u": {"fraction": 0.05},
    "k-fade": {"steps": 2, "target": 100.0},
    "certified-removal": {},
}


def weights(subject) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in subject.module.state_dict().items()}


@pytest.mark.parametrize("name", METHODS)
def test_the_weights_are_those_of_the_unguarded_model_and_the_guard_stays(name, guarded, knower, world, quiet):
    method = lt.method(name, **METHODS[name])
    before, held, hooks = guarded.digest, watches(guarded.module), _hooks(guarded.module)
    after, plain = method.apply(guarded, world, quiet), method.apply(knower, world, quiet)
    wanted, found, start = weights(plain), weights(after), weights(knower)
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert any(not torch.equal(found[key], start[key]) for key in start)
    assert [watch.digest for watch in watches(after.module)] == [watch.digest for watch in held]
    assert watches(after.module)[0] is not held[0] and after.lineage[-1].before == before
    assert watches(guarded.module) == held and guarded.digest == before and _hooks(guarded.module) == hooks == _hooks(after.module)
    ids = torch.tensor(knower.encoder.prompts(world["forget"])[:1])
    with torch.no_grad():
        behind, alone = (subject.module(input_ids=ids).logits for subject in (after, plain))
    assert not torch.equal(behind, alone), "it watches no more"


def _hooks(module) -> int:
    return sum(len(part._forward_pre_hooks) + len(part._forward_hooks) for part in module.modules())


def test_a_disposable_subject_is_handed_on_with_its_guard(guarded, world, quiet):
    given = guarded.fork()
    given.disposable, module, held = True, given.module, watches(given.module)
    after = NPO(steps=1, parameters="lora:rank=2,merge=false").apply(given, world, quiet)
    assert after.module.get_base_model() is module and watches(after.module) == held


def test_the_guard_is_back_after_an_error(guarded, world, quiet):
    class Failing(NPO):
        def loss(self, subject, batches):
            assert not watches(subject.module)
            raise MethodError("no")

    held, hooks = watches(guarded.module), _hooks(guarded.module)
    with pytest.raises(MethodError, match="no"):
        Failing(steps=1).apply(guarded, world, quiet)
    assert watches(guarded.module) == held and _hooks(guarded.module) == hooks
    bare = guarded.fork()
    unguard(bare.module)
    assert not watches(bare.module) and watches(guarded.module) == held


def test_all_that_change_weights_work_like_this():
    swept = 0
    for name in plugins("erase"):
        work, wrapped = load(name, "erase").apply, []
        while hasattr(work, "__wrapped__"):
            work = work.__wrapped__
            wrapped.append(work.__code__.co_name)
        assert ("applied" in wrapped) is (name not in BUILDS), name
        swept += 1
    assert swept > 25
