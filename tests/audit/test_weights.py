"""Distances of weights against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import letheon as lt
from letheon.audit.weights import NAMES, Weights
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.maths.quantise import rounded, scales
from letheon.testing.toys import toy_subject

from .inside import RUN, data, hidden, knows, never, readings


def measure(subject, original=None, reference=None, **settings):
    other = [None if model is None else readings(model) for model in (reference, original)]
    return {f.name: f for f in Weights(**settings).measure(readings(subject), data(), RUN, *other)}


def values(subject, original, **settings):
    return {name: f.value for name, f in measure(subject, original, **settings).items()}


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_compared_with_itself(architecture):
    subject = toy_subject(architecture=architecture)
    found = measure(subject, subject)
    assert [found[name].value for name in NAMES[:4]] == pytest.approx([0, 1, 0, 1], abs=1e-12)
    assert [found[name].note for name in NAMES[4:]] == ["no weight has changed"] * 2
    size = sum(weight.numel() for weight in subject.module.parameters())
    assert found["weight-distance"].n == size == sum(row["entries"] for row in found["weight-distance"].extra["table"])
    assert found["weight-distance"].extra["most_changed"] == []


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_against_plain_arithmetic(architecture):
    original = toy_subject(architecture=architecture)
    subject = original.fork()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in subject.module.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator) * (torch.rand(weight.shape, generator=generator) < 0.5))
    w, o = (torch.cat([x.detach().flatten() for x in s.module.parameters()]).double().numpy() for s in (subject, original))
    found = values(subject, original, group=16)
    assert found["weight-distance"] == pytest.approx(np.linalg.norm(w - o) / np.linalg.norm(o), rel=1e-9)
    assert found["weight-cosine"] == pytest.approx(w @ o / np.linalg.norm(w) / np.linalg.norm(o), rel=1e-9)
    assert found["weights-changed"] == np.mean(w != o)
    inside = [name for name, x in original.module.named_parameters() if x.ndim == 2 and (".layers." in name or ".h." in name)]
    assert len(inside) == (14 if architecture == "llama" else 8)
    alike, total, gap, moved = 0, 0, 0.0, 0.0
    for name in inside:
        now, then = (dict(s.module.named_parameters())[name].detach() for s in (subject, original))
        now, then = (now.T, then.T) if architecture == "gpt2" else (now, then)
        one, two = (rounded(x, 4, 16).double() for x in (now, then))
        steps = [np.repeat(scales(x, 4, 16).numpy(), 16, 1)[:, : x.shape[1]] for x in (now, then)]
        alike += (np.rint(now.numpy() / steps[0]) == np.rint(then.numpy() / steps[1])).sum()
        total += now.numel()
        gap += float((one - two).square().sum())
        moved += float((now.double() - then.double()).square().sum())
    assert found["code-collision"] == pytest.approx(alike / total, abs=2e-4)
    assert found["quantised-distance"] == pytest.approx((gap / moved) ** 0.5, rel=1e-6)


def test_an_update_below_the_grid_keeps_every_code():
    """Weights on the grid of their group, moved by less than half a step and never the largest: rounding gives the original back."""
    original = toy_subject()
    with torch.no_grad():
        for weight in original.module.parameters():
            if weight.ndim == 2:
                weight.copy_(rounded(weight, 4, 16))
    subject = original.fork()
    names = [name for name, weight in subject.module.named_parameters() if "layers" in name and weight.ndim == 2]
    with torch.no_grad():
        for name in names:
            weight = subject.module.get_parameter(name)
            step = scales(weight, 4, 16).repeat_interleave(16, 1)[:, : weight.shape[1]]
            weight.add_(0.3 * step * (weight.abs() < 7.5 * step))
    found = values(subject, original, group=16)
    assert found["code-collision"] == 1 and found["quantised-distance"] == 0 and found["weight-distance"] > 0.01


def test_the_share_of_changed_codes_follows_the_size_of_the_update():
    """P(code changes) = mean |u| / step for weights spread evenly inside bins; the largest of each group keeps the grid."""
    original = toy_subject()
    for share in (0.1, 0.5):
        subject = original.fork()
        generator = torch.Generator().manual_seed(1)
        expected, n = 0.0, 0
        with torch.no_grad():
            for name, weight in subject.module.named_parameters():
                if "layers" in name and weight.ndim == 2:
                    step = scales(weight, 4, 16).repeat_interleave(16, 1)[:, : weight.shape[1]]
                    move = share * step * (2 * torch.rand(weight.shape, generator=generator) - 1) * (weight.abs() < 6.9 * step)
                    weight.add_(move)
                    expected, n = expected + float((move.abs() / step).sum()), n + weight.numel()
        assert 1 - values(subject, original, group=16)["code-collision"] == pytest.approx(expected / n, rel=0.12)


def test_which_blocks_changed():
    original = toy_subject()
    subject = original.fork()
    with torch.no_grad():
        subject.module.model.layers[1].mlp.up_proj.weight.add_(0.1)
    found = measure(subject, original)
    assert found["blocks-changed"].value == 0.5 and found["blocks-changed"].extra["most_changed"] == ["model.layers.1"]
    changed = [(row["part"], row["kind"]) for row in found["weight-distance"].extra["table"] if row["weights-changed"]]
    assert changed == [("model.layers.1", "feed-forward")]
    with torch.no_grad():
        subject.module.model.layers[0].mlp.up_proj.weight.add_(0.1)
    assert values(subject, original)["blocks-changed"] == 1 and values(subject, original, mass=0.5)["blocks-changed"] == 0.5


def test_an_adapter_is_merged_before_it_is_compared():
    original = knows()
    settings = {"split": "forget", "steps": 3, "learning_rate": 1e-2, "parameters": {"name": "lora", "rank": 2, "merge": False}}
    adapted = lt.method("finetune", **settings).apply(original, data(), Run(0, dtype="float32", device="cpu"))
    plain = Subject(adapted.fork().module.merge_and_unload(), original.encoder)
    assert hasattr(adapted.module, "peft_config")
    assert values(adapted, original) == pytest.approx(values(plain, original)) and values(adapted, original)["weight-distance"] > 0


def test_what_cannot_be_compared_says_why():
    assert "needed and was not given" in measure(knows())["weight-cosine"].note
    assert "other names or shapes" in measure(knows(), hidden())["weight-distance"].note
    other = measure(knows(), reference=never())["weight-distance"]
    assert other.value > 0 and "the retrained model takes its place" in other.note and other.direction == "none"
