"""Token losses: against plain code in float64, and at the ends where 1 - p rounds away."""

from __future__ import annotations

import math

import pytest
import torch

from letheon.maths import likelihood
from letheon.maths.likelihood import Head
from letheon.maths.token_losses import group_means, importance, inverted_hinge, log_odds, relative, saturation, squared_peak

M, D, V = 23, 5, 13


def made(dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(M, D, generator=generator, dtype=dtype)
    head = Head(torch.randn(V, D, generator=generator, dtype=dtype), torch.randn(V, generator=generator, dtype=dtype))
    return hidden, head, torch.randint(V, (M,), generator=generator)


@pytest.mark.parametrize("chunk", [1, 3 * V, 1 << 22])
def test_chunks_change_neither_values_nor_gradients(chunk, monkeypatch):
    hidden, head, targets = made()
    z = hidden @ head.weight.T + head.bias
    p = z.softmax(-1)
    own, others = p[torch.arange(M), targets], p.scatter(-1, targets[:, None], 0.0)
    plain = {"odds": own.log() - others.sum(-1).log(), "hinge": 1 + own - others.amax(-1), "peak": (z.amax(-1) - z.mean(-1)).square()}
    monkeypatch.setattr(likelihood, "CHUNK", chunk)
    leaf = hidden.clone().requires_grad_()
    found = {"odds": log_odds(leaf, head, targets), "hinge": inverted_hinge(leaf, head, targets), "peak": squared_peak(leaf, head)}
    for name, value in plain.items():
        torch.testing.assert_close(found[name].detach(), value, rtol=1e-12, atol=1e-12)
    both = torch.autograd.grad(found["odds"].sum(), leaf)[0]
    again = hidden.clone().requires_grad_()
    logp = (again @ head.weight.T + head.bias).log_softmax(-1)[torch.arange(M), targets]
    (meant,) = torch.autograd.grad((logp - torch.log1p(-logp.exp())).sum(), again)
    torch.testing.assert_close(both, meant, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 3 * V, 1 << 22])
def test_the_hinge_moves_states_and_head_as_its_plain_form_does(chunk, monkeypatch):
    hidden, head, targets = made()
    weights = torch.linspace(-1, 2, M, dtype=hidden.dtype)
    slopes = []
    for plain in (True, False):
        parts = [part.clone().requires_grad_() for part in (hidden, head.weight, head.bias)]
        if plain:
            p = (parts[0] @ parts[1].T + parts[2]).softmax(-1)
            each = 1 + p[torch.arange(M), targets] - p.scatter(-1, targets[:, None], 0.0).amax(-1)
        else:
            monkeypatch.setattr(likelihood, "CHUNK", chunk)
            each = inverted_hinge(parts[0], Head(*parts[1:]), targets)
        slopes.append(torch.autograd.grad((each * weights).sum(), parts))
    for meant, found in zip(*slopes, strict=True):
        torch.testing.assert_close(found, meant, rtol=1e-11, atol=1e-13)
    z = (hidden @ head.weight.T + head.bias).requires_grad_()
    (found,) = torch.autograd.grad((inverted_hinge(z, Head(None), targets) * weights).sum(), z)
    torch.testing.assert_close(found @ head.weight, slopes[0][0], rtol=1e-11, atol=1e-13)
    assert inverted_hinge(hidden[:0], head, targets[:0]).shape == (0,)


def test_logits_as_states_are_left_as_they_are():
    hidden, head, targets = made()
    z = hidden @ head.weight.T + head.bias
    kept = z.clone()
    torch.testing.assert_close(log_odds(z, Head(None), targets), log_odds(hidden, head, targets))
    assert torch.equal(z, kept)


def test_odds_keep_what_probabilities_lose():
    z = torch.zeros(2, V)
    z[0, 0], z[1, 0] = 50.0, -50.0
    found = log_odds(z, Head(None), torch.zeros(2, dtype=torch.long))
    assert found.tolist() == pytest.approx([50 - math.log(V - 1), -50 - math.log(V - 1)], rel=1e-6)


def test_weights_at_the_ends():
    ends = torch.tensor([-1e-7, 0.0, 1e30])  # rounding can make a certain token's nll negative
    for beta, low, high in ((0.0, 1.0, 1.0), (0.5, 1.0, 0.0), (3.0, 1.0, 0.0)):
        assert saturation(ends, beta).tolist() == [low, low, high]
        assert importance(ends, beta).tolist() == [1.0 if beta == 0 else 0.0] * 2 + [1.0]
    assert relative(ends, ends, 4.0, 0.0).tolist() == [1.0, 1.0, 1.0]
    assert relative(ends, ends, 4.0, 1e-5).tolist() == pytest.approx([2 / (2 + 1e-5)] * 2 + [0.0])


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_group_means_against_plain_loops(size):
    weights = torch.rand(17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts, meant, first = [1, 7, 0, 4, 5], torch.empty(17, dtype=torch.float64), 0
    row = torch.repeat_interleave(torch.arange(5), torch.tensor(counts))
    for count in counts:
        order = sorted(range(first, first + count), key=lambda j: float(weights[j]))
        for k in range(0, count, size):
            group = order[k : k + size]
            meant[group] = sum(float(weights[j]) for j in group) / len(group)
        first += count
    torch.testing.assert_close(group_means(weights, row, size), meant, rtol=1e-12, atol=0)
    assert group_means(weights[:0], row[:0], size).shape == (0,)
