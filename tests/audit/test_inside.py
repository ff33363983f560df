"""What all audits that look inside share: models with an adapter, models in half precision, and models left as they were."""

from __future__ import annotations

import pytest
import torch

import letheon as lt
from letheon.core.registry import load
from letheon.core.subject import Subject
from letheon.report.known import KNOWN
from letheon.testing._cases import left_as_found

from .inside import RUN, data, knows, never, readings

AUDITS = ("logit-lens", "probing", "patching", "ablation", "adapter-removal", "weights", "concept-traces", "concept-answers")


def measure(name, subject, original, **settings):
    method = load(name, "audit")
    found = method(**{**method.tiny, **settings}).measure(readings(subject), data(), RUN, readings(never()), readings(original))
    return {(f.split, f.name): f for f in found}


@pytest.fixture(scope="module")
def adapted():
    part = {"name": "lora", "rank": 2, "merge": False}
    return lt.method("finetune", split="forget", steps=3, learning_rate=1e-3, parameters=part).apply(knows(), data(), RUN)


@pytest.mark.parametrize("name", AUDITS)
def test_a_model_with_an_adapter_is_measured_like_its_merged_copy(name, adapted):
    plain = Subject(adapted.fork().module.merge_and_unload(), adapted.encoder)
    one, two = (measure(name, subject, knows()) for subject in (adapted, plain))
    assert one.keys() == two.keys() and any(f.value is not None for f in one.values())
    for key, found in one.items():
        if key[1] not in ("adapters", "adapter-off"):
            assert found.value == pytest.approx(two[key].value, rel=1e-3, abs=1e-4), key


@pytest.mark.parametrize("name", AUDITS)
def test_half_precision_is_measured_too(name):
    half = Subject(knows().fork().module.to(torch.bfloat16), knows().encoder)
    found = measure(name, half, half)
    assert any(f.value is not None for f in found.values())


@pytest.mark.parametrize("name", AUDITS)
def test_no_model_is_changed(name):
    subject, original = knows(), never()
    with left_as_found(subject), left_as_found(original):
        measure(name, subject, original)


@pytest.mark.parametrize("name", AUDITS)
def test_every_finding_is_explained(name):
    found = measure(name, knows(), knows())
    assert {key[1] for key in found} <= KNOWN.keys()
    assert all(KNOWN[key[1]].tests.endswith(".") for key in found)
