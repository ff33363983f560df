"""Directions taken out of the residual stream: projections, the four candidates, and a planted distortion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from letheon.audit.ablation import Ablation, ablated, inliers, principal, without
from letheon.core.data import Data
from letheon.testing.toys import toy_subject

from .inside import RUN, data, knows, readings


def measure(subject, original=None, rows=None, **settings):
    other = None if original is None else readings(original)
    return {f.name: f for f in Ablation(**settings).measure(readings(subject), rows or data(), RUN, None, other)}


def test_projecting_twice_is_projecting_once():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 5, 16, generator=generator, dtype=torch.float64)
    d = torch.nn.functional.normalize(torch.randn(16, generator=generator, dtype=torch.float64), dim=0)
    once = without(d)(states)
    torch.testing.assert_close(without(d)(once), once, rtol=0, atol=1e-14)
    assert float((once @ d).abs().max()) < 1e-14
    torch.testing.assert_close(states - once, (states @ d)[..., None] * d)
    assert torch.equal(without(torch.zeros(16))(states), states)


def test_the_principal_component_against_the_covariance_matrix():
    generator = np.random.default_rng(0)
    states = generator.normal(size=(300, 6)) * [1, 5, 1, 1, 0.2, 1] + generator.normal(size=(300, 1)) * [0, 10, 0, 0, 0.4, 0]
    centred = states - states.mean(0)
    spread = centred.std(0)
    _, vectors = np.linalg.eigh(np.cov((centred / spread).T))
    wanted = vectors[:, -1] * spread
    wanted /= np.linalg.norm(wanted)
    assert abs(principal(torch.from_numpy(states)).numpy() @ wanted) == pytest.approx(1, abs=1e-9)


def test_far_tokens_are_left_out():
    states = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    states[7] += 40
    kept = inliers(states, 3.0)
    assert len(kept) == 49 and not (kept == states[7]).all(1).any()
    assert len(inliers(states[:2], 3.0)) == 2


def distorted():
    """A model that knows, and the same with a large constant on the output of its first block, which drowns everything."""
    original = knows("gpt2")
    subject = original.fork()
    constant = torch.nn.functional.normalize(torch.randn(32, generator=torch.Generator().manual_seed(3)), dim=0)
    with torch.no_grad():
        subject.module.transformer.h[0].mlp.c_proj.bias.add_(200 * constant)
    return subject, original, constant


def test_a_planted_distortion_is_found_and_taken_out_and_random_directions_bring_nothing():
    subject, original, constant = distorted()
    split = data()["forget"]
    audit, run_one, run_two = Ablation(places=2), readings(subject), readings(original)
    found = audit._directions(run_one, run_two, split, data(), RUN)
    assert set(found) == {"original", "component", "general", "neutral", "random"}
    for name, directions in found.items():
        assert directions.norm(dim=1) == pytest.approx([1, 1], abs=1e-5), name
    for name in ("original", "component"):
        assert abs(float(found[name][0] @ constant)) > 0.99, name
    assert max(abs(float(found[name][0] @ constant)) for name in ("general", "neutral", "random")) < 0.9
    out = measure(subject, original, places=2)
    one, control = out["ablated"], out["ablated-random"]
    assert one.extra["before"] < 0.05 < 0.4 < one.value and one.extra["candidate"] in ("original", "component")
    assert control.value < 0.1 and one.extra["kept"] > 0.4 > 0.1 > one.extra["kept_before"]
    assert set(one.extra["table"]) == set(found) and set(one.extra["table"]["random"]) == {"0", "1", "all"}
    assert one.value == max(value for name, table in one.extra["table"].items() if name != "random" for value in table.values())


def test_a_direction_of_length_zero_changes_nothing_and_hooks_are_gone():
    subject, split = toy_subject(), data()["forget"]
    encoded = subject.encoder.encode(split)
    own = np.exp(-readings(subject).answers(split).nll())
    before = [len(part._forward_hooks) for part in subject.module.modules()]
    np.testing.assert_allclose(ablated(subject, encoded, torch.zeros(2, 32), [0, 1]), own, rtol=1e-5)
    assert [len(part._forward_hooks) for part in subject.module.modules()] == before


def test_directions_come_from_rows_that_were_lost():
    """Rows as likely as before have no part in it; where no row was lost all count."""
    subject, original, _ = distorted()
    audit, split = Ablation(), data()["forget"]
    asked = []
    audit._states = lambda model, rows: asked.append((model.subject.name, len(rows))) or [torch.eye(3), torch.eye(3)]
    audit._directions(readings(subject), readings(original), split, data(), RUN)
    fall = readings(subject).answers(split).nll() - readings(original).answers(split).nll()
    assert asked[0][1] == asked[1][1] == int((fall > np.log(2)).sum()) > 4
    asked.clear()
    audit._directions(readings(original), readings(original), split, data(), RUN)
    assert asked[0][1] == len(split)


def test_what_cannot_be_had_is_said():
    found = measure(knows())
    assert found["ablated"].note == "without the candidates original and component: there is no original"
    assert set(found["ablated"].extra["table"]) == {"general", "neutral", "random"}
    alone = measure(knows(), rows=Data({"forget": data()["forget"]}))
    assert alone["ablated"].value is None and "neither an original nor other rows" in alone["ablated"].note
    assert alone["ablated-random"].value is not None
    assert "other names or shapes" in measure(knows(), toy_subject(architecture="gpt2"))["ablated"].note
    assert "no split `forget`" in measure(knows(), rows=Data({"retain": data()["retain"]}))["ablated"].note
