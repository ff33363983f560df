"""What rules do on a small classifier of digits that is to forget one class, with plain gradient descent on all rows."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
import torch.nn.functional as F

from letheon.train.parts import Part
from letheon.train.rules.geometric import Geometric
from letheon.train.rules.primal_dual import PrimalDual

FORGOTTEN = 3


@functools.cache
def digits():
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.tensor(found.data, dtype=torch.float64) / 16, torch.tensor(found.target)


@functools.cache
def trained() -> tuple[torch.Tensor, ...]:
    """Weights of a network of one hidden layer that knows all ten digits."""
    x, y = digits()
    generator = torch.Generator().manual_seed(0)
    shapes = ((32, 64), (32,), (10, 32), (10,))
    weights = [(0.15 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_() for shape in shapes]
    optimizer = torch.optim.Adam(weights, lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(logits(weights, x), y).backward()
        optimizer.step()
    return tuple(w.detach() for w in weights)


def logits(weights, x):
    return F.linear(F.linear(x, *weights[:2]).relu(), *weights[2:])


def losses(weights) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy of the forgotten class and of the nine others."""
    x, y = digits()
    each = F.cross_entropy(logits(weights, x), y, reduction="none")
    return each[y == FORGOTTEN].mean(), each[y != FORGOTTEN].mean()


def kept(weights) -> float:
    """Accuracy on the nine other classes."""
    x, y = digits()
    return float((logits(weights, x).argmax(1) == y)[y != FORGOTTEN].double().mean())


def direction(weights, cut: bool) -> list[torch.Tensor]:
    """The gradient of ascent on the forgotten class, with or without its retain direction."""
    weights = [w.detach().requires_grad_() for w in weights]
    forget, retain = losses(weights)
    f = [-g for g in torch.autograd.grad(forget, weights, retain_graph=True)]
    r = list(torch.autograd.grad(retain, weights))
    if not cut:
        return f
    named = {str(k): torch.nn.Parameter(w) for k, w in enumerate(weights)}
    parts = {"forget": Part(f, -forget.item(), 1.0), "retain": Part(r, retain.item(), 0.0)}
    return Geometric().combine(parts, named, torch.optim.SGD(named.values(), lr=1.0))[0]


def moved(weights, step, size: float) -> list[torch.Tensor]:
    return [w - size * g for w, g in zip(weights, step, strict=True)]


@pytest.mark.parametrize(("cut", "ratio"), [(True, 4.0), (False, 2.0)], ids=["geometric", "ascent"])
def test_half_the_rate_has_a_quarter_of_the_effect_on_the_retain_loss(cut, ratio):
    start = trained()
    step, before = direction(start, cut), float(losses(start)[1])
    changes = [float(losses(moved(start, step, size))[1]) - before for size in (1e-3, 5e-4, 2.5e-4)]
    assert [one / half for one, half in itertools.pairwise(changes)] == pytest.approx([ratio] * 2, rel=0.05)


def test_at_equal_forgetting_more_is_kept():
    """50 steps each; compared where both have first reached the smaller of the two last forget losses."""
    paths = {}
    for cut in (False, True):
        weights, path = list(trained()), []
        for _ in range(50):
            weights = moved(weights, direction(weights, cut), 0.01)
            forget, retain = losses(weights)
            path.append((float(forget), kept(weights), float(retain)))
        paths[cut] = path
    goal = min(paths[False][-1][0], paths[True][-1][0])
    assert goal > 20 > 100 * float(losses(trained())[0])
    plain, cut = (next(point for point in paths[which] if point[0] >= goal) for which in (False, True))
    assert cut[1] > plain[1] + 0.3 and cut[2] < plain[2]


def constrained(epsilon: float, rate: float, steps: int = 560) -> tuple[float, list[float]]:
    """Logits of the forgotten class are flattened, from multiplier 10: the last retain loss, and the multiplier of every step."""
    x, y = digits()
    rule, weights, multipliers = PrimalDual(epsilon=epsilon, rate=rate), list(trained()), []
    named = {str(k): torch.nn.Parameter(w) for k, w in enumerate(weights)}
    optimizer = torch.optim.SGD(named.values(), lr=1.0)  # this rule asks it for nothing
    for _ in range(steps):
        weights = [w.detach().requires_grad_() for w in weights]
        each = logits(weights, x)
        margin = (each.max(1).values - each.mean(1))[y == FORGOTTEN]
        flat, retain = (margin**2).mean(), F.cross_entropy(each[y != FORGOTTEN], y[y != FORGOTTEN])
        gradients = [list(torch.autograd.grad(loss, weights, retain_graph=True)) for loss in (flat, retain)]
        parts = {"forget": Part(gradients[0], flat.item(), 1.0), "retain": Part(gradients[1], retain.item(), 10.0)}
        step, told = rule.combine(parts, named, optimizer)
        weights = moved(weights, step, 0.005)
        multipliers.append(told["multiplier"])
    return retain.item(), multipliers


@pytest.mark.parametrize("epsilon", [0.1, 0.3, 0.5])
def test_the_bound_and_not_the_first_weight_decides_what_is_kept(epsilon):
    """The first steps break the bound; at the end the retain loss stands at it. A tight one needs a larger multiplier than the first."""
    retain, multipliers = constrained(epsilon, rate=5.0)
    assert retain == pytest.approx(epsilon, rel=0.15)
    if epsilon == 0.1:
        assert max(multipliers) > 20 and multipliers[-1] < max(multipliers) - 5, "it climbs, and falls once the bound holds"
    else:
        assert min(multipliers) == 0, "the first weight was far too large for this bound"


def test_a_fixed_weight_takes_no_notice_of_the_bound():
    (tight, fixed), (loose, _) = (constrained(epsilon, rate=0.0, steps=60) for epsilon in (0.1, 0.5))
    assert tight == loose and set(fixed) == {10.0}
