"""UNDIAL: what the card says a correct implementation must show."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from letheon.erase.undial import UNDIAL
from letheon.maths.divergence import adjusted_cross_entropy, by_penalty, to_probability
from letheon.maths.likelihood import Head

from .fact_world import gradient, said, trainer
from .preset import NOBODY, Preset, V

EYE = Head(torch.eye(V, dtype=torch.float64))
FACTS = {"learning_rate": 5e-4, "batch_size": 24, "schedule": "constant", "warmup": 0.0, "parameters": "all"}


def closed_form(p0: torch.Tensor, beta: float) -> torch.Tensor:
    return p0 * math.exp(-beta) / (1 - p0 + p0 * math.exp(-beta))


def test_without_penalty_the_start_is_at_rest(knower, fact_data, run):
    still = gradient(trainer(UNDIAL(beta=0.0, **FACTS), knower, fact_data, run))
    moved = gradient(trainer(UNDIAL(beta=10.0, **FACTS), knower, fact_data, run))
    assert float(still.abs().max()) < 1e-4 * float(moved.abs().max())


def test_logit_gradient_is_p_minus_q_over_n():
    case, z0 = Preset({"forget": [3, 5, 1]}), Preset({"forget": [3, 5, 1]}, seed=1).logits["forget"].detach()
    method = UNDIAL(beta=4.0)
    method.lowered = by_penalty(4.0)
    method.frozen = SimpleNamespace(of=lambda batch: z0, head=EYE)
    tokens = len(z0)
    found = case.grad(method.loss(NOBODY, case.batches)["forget"].total / tokens)
    q = (z0 - 4.0 * case.onehot("forget")).softmax(-1)
    torch.testing.assert_close(found, (case.logits["forget"].detach().softmax(-1) - q) / tokens, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("beta", "left"), [(3.0, 0.980), (10.0, 0.043), (30.0, 1e-10)])
def test_the_fixed_point_is_the_closed_form(beta, left):
    others = torch.linspace(0, 1, V - 1, dtype=torch.float64)
    z0 = torch.cat([others.logsumexp(0)[None] + math.log(0.999 / 0.001), others])[None]
    targets, free = torch.zeros(1, dtype=torch.long), z0.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([free], max_iter=200, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = adjusted_cross_entropy(free, EYE, z0, EYE, targets, by_penalty(beta)).sum()
        value.backward()
        return value

    optimizer.step(loss)
    p = free.detach().softmax(-1)[0]
    meant = float(closed_form(torch.tensor(0.999, dtype=torch.float64), beta))
    assert meant == pytest.approx(left, rel=0.03, abs=2e-10)
    assert float(p[0]) == pytest.approx(meant, rel=1e-3, abs=1e-7)
    torch.testing.assert_close(p[1:] / p[1:].sum(), others.softmax(-1), rtol=1e-3, atol=1e-6)  # ratios of the others are kept


def test_target_probability_is_what_is_left_unless_less_was_there():
    z = Preset({"forget": [6]}, seed=2).logits["forget"].detach()
    z[:3, 0] += 30.0  # certain tokens, where 1 - p is lost in float32
    z[3:, 0] -= 30.0  # unlikely already
    targets = torch.zeros(6, dtype=torch.long)
    q = z.scatter(-1, targets[:, None], to_probability(0.01)(z, targets)[:, None]).softmax(-1)[:, 0]
    torch.testing.assert_close(q[:3], torch.full((3,), 0.01, dtype=torch.float64), rtol=1e-9, atol=0)
    torch.testing.assert_close(q[3:], z[3:].softmax(-1)[:, 0], rtol=1e-12, atol=0)


def test_cached_states_equal_a_live_second_model(knower, fact_data, run):
    ready = trainer(UNDIAL(**FACTS), knower, fact_data, run)
    batch = ready.feed.batch("forget", [5, 0, 17])
    frozen = ready.objective.frozen
    encoded, rows = knower.encoder.encode(fact_data["forget"]), []
    for i in (5, 0, 17):
        ids = torch.from_numpy(encoded.row(i).astype("int64"))[None]
        with torch.no_grad():
            rows.append(knower.module(input_ids=ids).logits[0, encoded.starts[i] - 1 : -1])
    torch.testing.assert_close(frozen.head.logits(frozen.of(batch)), torch.cat(rows), rtol=0, atol=1e-4)


def test_tokens_come_to_rest_near_the_closed_form_and_not_at_zero(knower, fact_data, run):
    method = UNDIAL(beta=10.0, steps=100, **FACTS)
    ready = trainer(method, knower, fact_data, run)
    start = [p.detach().clone() for p in ready.parameters]
    moved = []
    for _ in range(100):
        ready.advance()
        moved.append(math.sqrt(sum(float((p.detach() - q).square().sum()) for p, q in zip(ready.parameters, start, strict=True))))
    left = said(ready.subject, fact_data["forget"])
    assert 0.005 < left.value < 0.2
    assert left.template > 0.01
    assert moved[99] - moved[66] < 0.5 * (moved[33] - moved[0])  # it levels off
