"""Divergences against sums written out in float64, and their limits."""

from __future__ import annotations

import pytest
import torch

from letheon.maths import likelihood
from letheon.maths.divergence import adjusted_cross_entropy, by_penalty, kl_to_frozen, to_probability
from letheon.maths.likelihood import Head

M, V, D = 6, 9, 4


@pytest.fixture(params=[1, 4, 100], ids=lambda rows: f"{rows}-rows-per-chunk")
def chunk(request, monkeypatch):
    monkeypatch.setattr(likelihood, "CHUNK", request.param * V)


def draw(seed: int):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(M, D, generator=generator, dtype=torch.float64)
    return hidden, torch.randn(V, D, generator=generator, dtype=torch.float64), torch.randint(V, (M,), generator=generator)


def distribution(hidden, weight):
    logits = hidden @ weight.T
    return logits - logits.logsumexp(-1, keepdim=True)


def test_kl_is_the_sum_over_the_vocabulary(chunk):
    now, weight, _ = draw(1)
    then, frozen, _ = draw(2)
    logp, logq = distribution(now, weight), distribution(then, frozen)
    expected = torch.stack([sum(logq[i, v].exp() * (logq[i, v] - logp[i, v]) for v in range(V)) for i in range(M)])
    found = kl_to_frozen(now, Head(weight), then, Head(frozen))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert bool((found > 0).all())


def test_kl_at_the_start_is_zero_with_zero_gradient():
    now, weight, _ = draw(1)
    now.requires_grad_()
    found = kl_to_frozen(now, Head(weight), now.detach().clone(), Head(weight).frozen())
    found.sum().backward()
    assert float(found.detach().abs().max()) < 1e-14 and float(now.grad.abs().max()) < 1e-14


def test_kl_gradient_flows_to_the_present_model_only(chunk):
    now, weight, _ = draw(1)
    then, frozen, _ = draw(2)
    for tensor in (now, weight, then, frozen):
        tensor.requires_grad_()
    kl_to_frozen(now, Head(weight), then, Head(frozen)).sum().backward()
    assert now.grad is not None and weight.grad is not None and then.grad is None and frozen.grad is None
    p, q = distribution(now, weight).detach().exp(), distribution(then, frozen).detach().exp()
    torch.testing.assert_close(now.grad, (p - q) @ weight.detach(), rtol=0, atol=1e-12)  # dKL/dlogits = p - q


def test_kl_gradcheck():
    now, weight, _ = draw(1)
    then, frozen, _ = draw(2)
    assert torch.autograd.gradcheck(lambda h, w: kl_to_frozen(h, Head(w), then, Head(frozen)), (now.requires_grad_(), weight.requires_grad_()))


@pytest.mark.parametrize("penalty", [0.0, 0.7, 10.0])
def test_adjusted_cross_entropy_in_closed_form(chunk, penalty):
    """q_target' = q e^-s / (1 - q + q e^-s), the others grow by the same factor: no softmax needed."""
    now, weight, targets = draw(3)
    then, frozen, _ = draw(4)
    logp, q = distribution(now, weight), distribution(then, frozen).exp()
    at = torch.arange(M)
    shrunk = q[at, targets] * torch.exp(torch.tensor(-penalty, dtype=torch.float64))
    adjusted = q.clone()
    adjusted[at, targets] = shrunk
    adjusted /= (1 - q[at, targets] + shrunk)[:, None]
    torch.testing.assert_close(adjusted.sum(-1), torch.ones(M, dtype=torch.float64))
    found = adjusted_cross_entropy(now, Head(weight), then, Head(frozen), targets, by_penalty(penalty))
    torch.testing.assert_close(found, -(adjusted * logp).sum(-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("most", [0.01, 0.3])
def test_adjusted_to_a_probability(chunk, most):
    """A target above `most` is set to it and the others share 1 - most in their old proportions; one below stays."""
    now, weight, targets = draw(3)
    then, frozen, _ = draw(4)
    logp, q = distribution(now, weight), distribution(then, frozen).exp()
    expected = q.clone()
    for i, target in enumerate(targets.tolist()):
        if float(q[i, target]) > most:
            expected[i] *= (1 - most) / (1 - q[i, target])
            expected[i, target] = most
    assert 0 < sum(float(q[i, t]) > most for i, t in enumerate(targets.tolist()))
    found = adjusted_cross_entropy(now, Head(weight), then, Head(frozen), targets, to_probability(most))
    torch.testing.assert_close(found, -(expected * logp).sum(-1), rtol=0, atol=1e-12)


def test_adjusted_cross_entropy_without_penalty_is_kl_plus_entropy():
    now, weight, targets = draw(3)
    then, frozen, _ = draw(4)
    logq = distribution(then, frozen)
    entropy = -(logq.exp() * logq).sum(-1)
    found = adjusted_cross_entropy(now, Head(weight), then, Head(frozen), targets, by_penalty(0.0))
    torch.testing.assert_close(found, kl_to_frozen(now, Head(weight), then, Head(frozen)) + entropy, rtol=0, atol=1e-12)


def test_adjusted_cross_entropy_gradcheck_and_inputs_untouched():
    now, weight, targets = draw(3)
    then, frozen, _ = draw(4)
    kept = then.clone(), frozen.clone()
    inputs = (now.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda h, w: adjusted_cross_entropy(h, Head(w), then, Head(frozen), targets, by_penalty(2.0)), inputs)
    assert torch.equal(then, kept[0]) and torch.equal(frozen, kept[1])
