"""Parameter spaces and the modular sampler at their job: a model that knows 192 facts is made to forget 24 of them."""

from __future__ import annotations

import pytest
import torch
from methods.fact_world import Said, facts, memorised, said, trainer

from letheon.core.registry import make
from letheon.core.run import Run
from letheon.core.settings import Choice

STEADY = {"schedule": "constant", "warmup": 0.0, "retain": "nll"}


@pytest.fixture(scope="module")
def data():
    return facts()


@pytest.fixture(scope="module")
def knower(data):
    return memorised(data)


def begun(method: str, knower, data, seed: int = 0, **settings):
    """A trainer before its first step."""
    objective = make(Choice(name=method, **{**STEADY, "batch_size": 24, **settings}), "erase")
    return trainer(objective, knower, data, Run(seed, dtype="float32", device="cpu"))


def after(method: str, knower, data, seed: int = 0, **settings) -> tuple[Said, Said]:
    """What is said of forget and retain rows after all steps."""
    one = begun(method, knower, data, seed, **settings)
    while one.step < len(one.feed.plan):
        one.advance()
    return said(one.subject, data["forget"]), said(one.subject, data["retain"])


def test_melu_holds_more_at_equal_epochs_and_little_more_at_equal_steps(knower, data):
    """24 forget and 168 retain rows: 3 steps of 8 per epoch one to one, 21 in pairs of the table. Most of the gap is step count."""
    npo = {"learning_rate": 1e-3, "batch_size": 8}
    (_, few), (modular_forget, modular), (_, many) = (
        after("npo", knower, data, **npo, **more)
        for more in ({"epochs": 4}, {"epochs": 4, "sampler": "melu"}, {"steps": 84})
    )
    assert modular_forget.exact == 0 and modular_forget.value < 0.2
    assert few.value + 0.05 < modular.value > 0.9
    assert abs(many.value - modular.value) < 0.6 * (modular.value - few.value)


def test_fila_forgets_in_steps_in_which_lora_hardly_begins(knower, data):
    """Means over two draws: the same loss, rank, scale and rate."""
    hinge = {"learning_rate": 1e-3, "batch_size": 24, "steps": 40}
    value = {}
    for space in ("lora", "fila"):
        runs = [after("inverted-hinge", knower, data, seed, **hinge, parameters=f"{space}:rank=4,alpha=8") for seed in (0, 1)]
        value[space] = sum(forget.value for forget, _ in runs) / 2
        assert sum(retain.value for _, retain in runs) / 2 > 0.75
    assert value["fila"] < 0.5 * value["lora"]


def codes(weight: torch.Tensor) -> torch.Tensor:
    """4-bit codes in groups of 32 with the largest magnitude as scale."""
    groups = weight.detach().reshape(-1, 32)
    return (groups / groups.abs().amax(1, keepdim=True) * 7).round().reshape(weight.shape)


def changed_codes(knower, data, **settings) -> tuple[float, float]:
    """Share of the 4-bit codes that changed until the forget facts had a probability below 0.1: of all matrices, of what may move."""
    one, before = begun("npo", knower, data, steps=200, **settings), dict(knower.module.named_parameters())
    while said(one.subject, data["forget"]).value >= 0.1:
        for _ in range(4):
            one.advance()
    total = inside = moving = changed = 0
    for name, parameter in one.subject.module.named_parameters():
        if parameter.ndim == 2:
            moved = codes(parameter) != codes(before[name])
            free = one.space.masks[name].expand_as(moved) if "parameters" in settings else torch.ones_like(moved)
            total, changed = total + moved.numel(), changed + int(moved.sum())
            moving, inside = moving + int(free.sum()), inside + int((moved & free).sum())
    return changed / total, inside / moving


def test_sure_at_ten_times_the_rate_crosses_more_4_bit_codes_in_fewer_places(knower, data):
    """At equal forgetting: more changed codes inside the mask, fewer overall, than all weights at the small rate."""
    overall, _ = changed_codes(knower, data, learning_rate=2e-4)
    masked, inside = changed_codes(knower, data, learning_rate=2e-3, parameters="sure")
    assert inside > 1.5 * overall > 2.5 * masked
