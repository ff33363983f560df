"""NPO: the numbers that its card says a correct implementation must show."""

from __future__ import annotations

import math

import pytest
import torch

from letheon.erase.npo import NPO
from letheon.maths.preference import preference_loss

from .fact_world import on_each, said_by_all, trainer
from .preset import NOBODY, Preset

FACTS = {"steps": 60, "learning_rate": 5e-4, "batch_size": 24, "schedule": "constant", "warmup": 0.0}


def mean_loss(case: Preset, beta: float, frozen: torch.Tensor) -> torch.Tensor:
    method = NPO(beta=beta)
    method.frozen = frozen
    return method.loss(NOBODY, case.batches)["forget"].total / len(case.counts["forget"])


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_value_at_the_start_is_two_ln_two_over_beta(knower, fact_data, run, beta):
    at_start = trainer(NPO(beta=beta, batch_size=24), knower, fact_data, run)
    measured = at_start.gradients(at_start.feed.plan[0])
    assert measured.means["forget"] == pytest.approx(2 / beta * math.log(2), abs=1e-5)


def test_gradient_is_that_of_weighted_ascent_on_summed_log_likelihood():
    case, beta = Preset({"forget": [3, 5, 1, 8]}), 0.3
    frozen = case.nll("forget").detach() + torch.tensor([-4.0, 0.0, 2.0, 7.0], dtype=torch.float64)
    found = case.grad(mean_loss(case, beta, frozen))
    now = case.nll("forget")
    weights = 2 * torch.exp(-beta * now) / (torch.exp(-beta * now) + torch.exp(-beta * frozen))
    torch.testing.assert_close(found, case.grad((weights.detach() * -now).mean()), rtol=0, atol=1e-10)


def test_small_beta_tends_to_ascent():
    case, beta = Preset({"forget": [3, 5, 1, 8]}), 1e-6
    frozen = case.nll("forget").detach() + torch.tensor([-4.0, 0.0, 2.0, 7.0], dtype=torch.float64)
    value = mean_loss(case, beta, frozen)
    rise = (frozen - case.nll("forget")).mean()
    assert value.item() - 2 / beta * math.log(2) == pytest.approx(rise.item(), abs=2e-5)
    torch.testing.assert_close(case.grad(value), case.grad((-case.nll("forget")).mean()), rtol=0, atol=2e-6)


def distances(loss) -> list[float]:
    """Rms movement of forget logits after 64, 256, 1024 and 4096 steps of plain gradient descent on a logistic head."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(200, 16, generator=generator, dtype=torch.float64)
    features = (inputs @ torch.randn(16, 128, generator=generator, dtype=torch.float64)).relu()
    sign = torch.randint(2, (200,), generator=generator) * 2.0 - 1
    start = 0.1 * torch.randn(128, generator=generator, dtype=torch.float64)
    head, found = start.clone(), []
    frozen = torch.nn.functional.softplus(-sign * (features @ start))
    for step in range(1, 4097):
        logits = features @ head
        nll = torch.nn.functional.softplus(-sign * logits).requires_grad_()
        slope = torch.autograd.grad(loss(nll, frozen), nll)[0]  # (n,), d loss / d nll
        head = head - 0.05 * features.T @ (slope * -sign * torch.sigmoid(-sign * logits))
        if step in (64, 256, 1024, 4096):
            found.append(float((features @ (head - start)).square().mean().sqrt()))
    return found


def test_ascent_moves_linearly_in_time_and_npo_logarithmically():
    ascent = distances(lambda now, frozen: -now.mean())
    assert ascent[3] / ascent[2] == pytest.approx(4, rel=0.1) and ascent[2] / ascent[1] == pytest.approx(4, rel=0.2)
    for beta in (1.0, 0.1):
        bounded = distances(lambda now, frozen, beta=beta: preference_loss(now - frozen, beta).mean())
        assert bounded[3] - bounded[2] == pytest.approx(bounded[2] - bounded[1], rel=0.25)
        assert bounded[3] < ascent[3] / 50


def test_npo_keeps_what_ascent_with_the_same_retain_term_drags_down(knowers, graddiffs, fact_data):
    """No claim on the template of the forget answers: what NPO keeps more of it is lost in the spread over seeds and processors."""
    bounded = on_each(NPO(**FACTS), knowers, fact_data)
    found, ascent = ({name: said_by_all(each, fact_data[name]) for name in ("forget", "retain")} for each in (bounded, graddiffs))
    assert max(found["forget"].value, ascent["forget"].value) < 0.1
    assert found["retain"].value > ascent["retain"].value + 0.03


def test_cached_start_equals_a_live_second_model(knower, fact_data, run):
    ready = trainer(NPO(batch_size=24), knower, fact_data, run)
    encoded = knower.encoder.encode(fact_data["forget"])
    for i in (0, 7, 23):
        ids, start = torch.from_numpy(encoded.row(i).astype("int64")), int(encoded.starts[i])
        with torch.no_grad():
            logp = knower.module(input_ids=ids[None]).logits[0, start - 1 : -1].double().log_softmax(-1)
        live = -float(logp.gather(-1, ids[start:, None]).sum())
        assert float(ready.objective.frozen[i]) == pytest.approx(live, abs=1e-5)
