"""What must hold for every objective in the registry: exact steps, exact resuming, an untouched start."""

from __future__ import annotations

import contextlib

import pytest
import torch

from letheon.core.registry import load, plugins
from letheon.core.run import Run
from letheon.testing import toy_data, toy_subject
from letheon.train.objective import Objective

from .fact_world import trainer

NAMES = [(role, name) for role in ("erase", "adapt", "keep") for name in plugins(role) if issubclass(load(name, role), Objective)]
SIX = {"steps": 6, "batch_size": 3, "learning_rate": 1e-3}


class Killed(BaseException):
    """Stands for SIGKILL."""


def make(role: str, name: str, **more):
    cls = load(name, role)
    return cls(**{**cls.tiny, **SIX, **more})


def quiet(**more) -> Run:
    return Run(0, dtype="float32", device="cpu", **more)


def gap(one, two) -> float:
    pairs = zip(one.module.state_dict().values(), two.module.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def test_all_of_them_are_swept():
    assert len(NAMES) >= 9
    assert {"npo", "grad-ascent", "simnpo", "dpo-idk", "kto-idk", "idk", "rmu", "undial", "finetune"} <= {name for _, name in NAMES}


@pytest.mark.parametrize(("role", "name"), NAMES)
def test_the_size_of_micro_batches_changes_nothing(role, name):
    # Plain gradient descent instead of Adam, whose first steps turn rounding errors of tiny gradients into full steps.
    found = []
    for budget in (16, 1 << 20):
        method = make(role, name, tokens_per_batch=budget, clip=0.0)
        found.append(descent(method, toy_subject()))
    assert found[0].keys() == found[1].keys()
    for key, weight in found[0].items():
        assert float((weight - found[1][key]).abs().max()) <= 1e-6 * max(1.0, float(weight.abs().max())), key


def descent(method: Objective, subject) -> dict[str, torch.Tensor]:
    """The moving weights after three steps of plain gradient descent of norm 0.01."""
    ready = trainer(method, subject, toy_data(), quiet())
    for rows in ready.feed.plan[:3]:
        ready.gradients(rows)
        norm = torch.nn.utils.get_total_norm([p.grad for p in ready.parameters if p.grad is not None])
        assert float(norm) > 0
        with torch.no_grad():
            for parameter in ready.parameters:
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad / norm
    return {name: parameter.detach() for name, parameter in ready.named.items()}


@pytest.mark.parametrize(("role", "name"), NAMES)
def test_killed_after_three_of_six_steps_and_resumed_gives_the_same_bits(role, name, tmp_path):
    whole = make(role, name).apply(toy_subject(), toy_data(), quiet())
    method = make(role, name)

    def killing(subject, step):
        if step == 4:
            raise Killed

    method.stepped = killing
    with contextlib.suppress(Killed):
        method.apply(toy_subject(), toy_data(), quiet(out=tmp_path, checkpoint_every=3))
        pytest.fail("it was not killed")
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]
    resumed = make(role, name).apply(toy_subject(), toy_data(), quiet(out=tmp_path, checkpoint_every=3, resume=True))
    assert gap(whole, resumed) == 0
    assert gap(whole, toy_subject()) > 0


def test_a_run_that_ends_itself_ends_at_the_same_step_when_resumed(tmp_path):
    settings = {"steps": 40, "learning_rate": 1e-2, "batch_size": 3, "warmup": 0.0}
    free = load("grad-ascent")(**settings)
    start = descent_nll(free)
    method = load("grad-ascent")(**settings, floor=start + 1.0)
    whole = method.apply(toy_subject(), toy_data(), quiet())
    steps = whole.lineage[-1].notes["steps"]
    assert 2 < steps < 40
    killed = load("grad-ascent")(**settings, floor=start + 1.0)

    def killing(subject, step):
        if step == steps:  # in the very step that ends the run
            raise Killed

    killed.stepped = killing
    with contextlib.suppress(Killed):
        killed.apply(toy_subject(), toy_data(), quiet(out=tmp_path, checkpoint_every=2))
        pytest.fail("it was not killed")
    resumed = load("grad-ascent")(**settings, floor=start + 1.0).apply(
        toy_subject(), toy_data(), quiet(out=tmp_path, checkpoint_every=2, resume=True)
    )
    assert resumed.lineage[-1].notes["steps"] == steps
    assert gap(whole, resumed) == 0


def descent_nll(method: Objective) -> float:
    """Mean nll of the forget answers of the first step."""
    ready = trainer(method, toy_subject(), toy_data(), quiet())
    return -ready.gradients(ready.feed.plan[0]).means["forget"]


@pytest.mark.parametrize(("role", "name"), NAMES)
def test_the_incoming_subject_keeps_every_bit(role, name):
    subject = toy_subject()
    before = subject.digest
    make(role, name).apply(subject, toy_data(), quiet())
    assert subject.digest == before == toy_subject().digest
    assert all(parameter.requires_grad and parameter.grad is None for parameter in subject.module.parameters())
    assert not any(part._forward_hooks for part in subject.module.modules())
