"""TNPO: what the section of its card says, and that the frozen numbers are those of a second model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from letheon.erase.grad_ascent import GradAscent
from letheon.erase.tnpo import TNPO
from letheon.erase.wga import WGA

from .fact_world import gradient, trainer
from .preset import NOBODY, Preset


def token_nll(case: Preset) -> torch.Tensor:
    return -case.logits["forget"].log_softmax(-1)[torch.arange(len(case.targets["forget"])), case.targets["forget"]]


def loss(case: Preset, frozen: torch.Tensor, **settings) -> torch.Tensor:
    method = TNPO(**settings)
    method.frozen = SimpleNamespace(of=lambda batch: frozen)
    return method.loss(NOBODY, case.batches)["forget"].total


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_weights_are_those_of_the_card(alpha):
    case = Preset({"forget": [3, 5, 1]})
    with torch.no_grad():
        case.logits["forget"][torch.arange(9), case.targets["forget"]] += 3.0
    q = torch.linspace(0.9, 0.02, 9, dtype=torch.float64)
    found = case.grad(loss(case, -q.log(), alpha=alpha))
    p = torch.exp(-token_nll(case)).detach()
    weights = 2 * p**4 / (p**4 + q**4 + 1e-5) * p**alpha
    assert float(weights.min()) < 0.1 and float(weights.max()) > (0.7 if alpha else 1.0)
    torch.testing.assert_close(found, case.grad(-(weights * token_nll(case)).sum()), rtol=0, atol=1e-10)


def test_at_the_start_it_is_ascent_without_epsilon_and_spares_unlikely_tokens_with_it():
    case = Preset({"forget": [3, 5, 1]})
    frozen = token_nll(case).detach()
    ascent = GradAscent().loss(NOBODY, case.batches)["forget"].total
    torch.testing.assert_close(case.grad(loss(case, frozen, epsilon=0.0)), case.grad(ascent), rtol=0, atol=1e-12)
    p = torch.exp(-frozen)
    weights = 2 * p**4 / (2 * p**4 + 1e-5)
    assert float(weights.min()) < 0.9
    torch.testing.assert_close(case.grad(loss(case, frozen)), case.grad(-(weights * token_nll(case)).sum()), rtol=0, atol=1e-10)


def test_gradient_is_that_of_a_preference_loss_on_each_token():
    case, beta = Preset({"forget": [3, 5, 1]}), 0.7
    frozen = torch.linspace(0.1, 5, 9, dtype=torch.float64)
    bounded = 2 / beta * torch.nn.functional.softplus(-beta * (token_nll(case) - frozen)).sum()
    torch.testing.assert_close(case.grad(loss(case, frozen, beta=beta, epsilon=0.0)), case.grad(bounded), rtol=0, atol=1e-10)


def test_against_a_certain_reference_small_probabilities_make_it_twice_wga():
    case = Preset({"forget": [6]})
    at = torch.arange(6), case.targets["forget"]
    with torch.no_grad():
        case.logits["forget"][at] -= 25.0
    certain = torch.zeros(6, dtype=torch.float64)
    found, wga = (
        case.grad(value) for value in (loss(case, certain, beta=1.0, epsilon=0.0), WGA().loss(NOBODY, case.batches)["forget"].total)
    )
    torch.testing.assert_close(found, 2 * wga, rtol=1e-6, atol=0)


def test_tokens_lost_without_trace_have_finite_weights():
    case = Preset({"forget": [3]})
    frozen = torch.tensor([0.0, 800.0, 0.5], dtype=torch.float64)
    with torch.no_grad():
        case.logits["forget"][0, case.targets["forget"][0]] = -900.0
        case.logits["forget"][1, case.targets["forget"][1]] = -900.0
    for epsilon in (0.0, 1e-5):
        assert torch.isfinite(case.grad(loss(case, frozen, epsilon=epsilon))).all()


def test_cached_tokens_equal_a_live_second_model_and_the_first_step_is_ascent(knower, fact_data, run):
    ready = trainer(TNPO(batch_size=24, retain="none", epsilon=0.0), knower, fact_data, run)
    encoded, rows = knower.encoder.encode(fact_data["forget"]), []
    for i in (5, 0, 17):
        ids, start = torch.from_numpy(encoded.row(i).astype("int64")), int(encoded.starts[i])
        with torch.no_grad():
            logp = knower.module(input_ids=ids[None]).logits[0, start - 1 : -1].double().log_softmax(-1)
        rows.append(-logp.gather(-1, ids[start:, None]).squeeze(-1))
    found = ready.objective.frozen.of(ready.feed.batch("forget", [5, 0, 17]))
    torch.testing.assert_close(found.double(), torch.cat(rows), rtol=0, atol=1e-5)
    up = gradient(trainer(GradAscent(batch_size=24), knower, fact_data, run))
    torch.testing.assert_close(gradient(ready), up, rtol=0, atol=1e-4 * float(up.abs().max()))
