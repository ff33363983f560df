"""Adapters off and weights moved back: values that identities fix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import letheon as lt
from letheon.audit.adapter_removal import AdapterRemoval, restored
from letheon.core.run import Run
from letheon.testing.toys import toy_subject

from .inside import RUN, data, knows, readings


def probability(subject, where="forget"):
    return np.exp(-readings(subject).answers(data()[where]).nll())


def measure(subject, original=None, **settings):
    other = None if original is None else readings(original)
    return {(f.split, f.name): f for f in AdapterRemoval(**settings).measure(readings(subject), data(), RUN, None, other)}


def adapted(steps: int = 30):
    """A model that knows, with an adapter that forgets."""
    part = {"name": "lora", "rank": 4, "merge": False}
    method = lt.method("grad-ascent", steps=steps, learning_rate=1e-2, parameters=part, retain="none", batch_size=8)
    return method.apply(knows(), data(), Run(0, dtype="float32", device="cpu"))


def test_a_switched_off_adapter_is_the_base_to_the_bit():
    subject = adapted()
    found = measure(subject, splits=("forget", "retain-check"))
    assert probability(subject).mean() < 0.3 < 0.8 < found["forget", "adapter-off"].value
    for where in ("forget", "retain-check"):
        one = found[where, "adapter-off"]
        np.testing.assert_allclose(one.rows, probability(knows(), where), rtol=1e-6)
        assert one.extra["before"] == pytest.approx(probability(subject, where).mean())
    layers = sum(name.endswith("lora_A.default.weight") for name, _ in subject.module.named_parameters())
    assert found["", "adapters"].value == layers > 0
    assert hasattr(subject.module, "peft_config") and "needed and was not given" in found["forget", "interpolated"].note


def test_the_way_back_begins_at_the_model_and_ends_at_the_original():
    subject, original, split = adapted(), knows(), data()["forget"]
    values = restored(subject, original, split, (0.0, 0.5, 1.0))
    assert values.shape == (3 + 2, len(split))
    np.testing.assert_allclose(values[0], probability(subject), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(values[2], probability(original), rtol=1e-5)
    half = original.fork()
    merged = dict(subject.fork().module.merge_and_unload().named_parameters())
    with torch.no_grad():
        for name, weight in half.module.named_parameters():
            weight.copy_((weight + merged[name]) / 2)
    np.testing.assert_allclose(values[1], probability(half), rtol=1e-3, atol=1e-6)
    found = measure(subject, original, amount=0.5, amounts=(0.25,))
    assert found["forget", "interpolated"].value == pytest.approx(values[1].mean(), rel=1e-3)
    assert list(found["forget", "interpolated"].extra["curve"]) == ["0.25", "0.5"]
    assert found["forget", "interpolated"].direction == found["forget", "block-restored"].direction == "none"


def test_a_change_in_one_block_is_undone_by_that_block():
    original = knows()
    edited = original.fork()
    with torch.no_grad():
        edited.module.model.layers[0].mlp.down_proj.weight.mul_(-1)
    one = measure(edited, original)["forget", "block-restored"]
    assert one.extra["block"] == 0 and one.value == pytest.approx(probability(original).mean(), rel=1e-5)
    assert one.extra["curve"][1] == pytest.approx(probability(edited).mean(), rel=1e-4) and one.value > one.extra["before"] + 0.2


def test_without_an_adapter_it_says_so():
    found = measure(knows())
    assert found["", "adapters"].value == 0 and found["forget", "adapter-off"].value is None
    assert found["forget", "adapter-off"].note == "the model has no adapter to switch off"
    assert "other names or shapes" in measure(knows(), toy_subject(architecture="gpt2"))["forget", "interpolated"].note


def test_an_adapter_of_no_steps_hides_nothing():
    from peft import LoraConfig, get_peft_model

    from letheon.core.subject import Subject

    fresh = get_peft_model(knows().fork().module, LoraConfig(r=2, target_modules=["q_proj"]))
    one = measure(Subject(fresh, knows().encoder))["forget", "adapter-off"]
    assert one.value == pytest.approx(one.extra["before"], rel=1e-6) and one.value == pytest.approx(probability(knows()).mean(), rel=1e-6)
