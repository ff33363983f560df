"""Removal from linear models: exact for squared loss, within its bound for logistic loss, and refused beyond the budget."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from letheon.maths.removal import BudgetSpent, Removable, noise_factor, worst_growth

PENALTY = 0.01


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Handwritten 3 against 8: 357 pictures of 64 pixels and a constant, the longest of length 1; y = -1 or 1."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    chosen = np.isin(labels, (3, 8))
    x = np.hstack([pixels[chosen] / 16, np.ones((chosen.sum(), 1))])
    x /= np.linalg.norm(x, axis=1).max()
    return torch.from_numpy(x), torch.from_numpy(np.where(labels[chosen] == 8, 1.0, -1.0))


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    return digits()


def refit(x: torch.Tensor, y: torch.Tensor, penalty: float = PENALTY) -> torch.Tensor:
    """scikit-learn's logistic regression with C = 1 / (lambda n), (d,)."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (penalty * len(x)), fit_intercept=False, tol=1e-12, solver="newton-cholesky", max_iter=1000)
    return torch.from_numpy(model.fit(x.numpy(), y.numpy()).coef_[0])


def closed_form(x: torch.Tensor, y: torch.Tensor, penalty: float) -> torch.Tensor:
    """(X'X + lambda n I)^-1 X'Y, (k, d)."""
    return torch.linalg.solve(x.T @ x + penalty * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y).T


def linear(seed: int = 0, n: int = 357, d: int = 12, k: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, x @ torch.randn(d, k, generator=generator, dtype=torch.float64) + torch.randn(n, k, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("gone", [1, 10, 200, 350])
def test_ridge_is_the_refit_for_any_group(gone):
    x, y = linear()
    model = Removable(x, y, "ridge", PENALTY)
    assert torch.allclose(model.weights, closed_form(x, y, PENALTY), atol=1e-12)
    model.remove(torch.arange(gone))
    assert torch.allclose(model.weights, closed_form(x[gone:], y[gone:], PENALTY), rtol=0, atol=1e-10)
    assert model.spent() == 0 and not model.bound.any()
    model.remove(torch.arange(gone, gone + 5))
    assert torch.allclose(model.weights, closed_form(x[gone + 5 :], y[gone + 5 :], PENALTY), rtol=0, atol=1e-10)


def test_ridge_with_noise_is_the_refit_with_the_same_noise():
    """The random term moves the optimum of n rows by -H^-1 b; after the removal it is -H'^-1 b."""
    x, y = linear()
    model = Removable(x, y, "ridge", PENALTY, sigma=3.0, generator=torch.Generator().manual_seed(1))
    noise = 3.0 * torch.randn(3, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model.remove(torch.arange(40))
    hessian = x[40:].T @ x[40:] + PENALTY * 317 * torch.eye(12, dtype=torch.float64)
    wanted = closed_form(x[40:], y[40:], PENALTY) - torch.linalg.solve(hessian, noise.T).T
    assert torch.allclose(model.weights, wanted, atol=1e-10)


def test_influence_is_off_by_the_share_of_the_rows():
    """It keeps the Hessian of all rows: relative error of order |F| / n, where Newton's step has none."""
    x, y = linear()
    model = Removable(x, y, "ridge", PENALTY)
    errors = []
    for gone in (10, 20, 40):
        exact = closed_form(x[gone:], y[gone:], PENALTY) - model.weights
        errors.append(float((model.influence(torch.arange(gone)) - exact).norm() / exact.norm()))
    assert 0.1 * 10 / 357 < errors[0] < 5 * 10 / 357
    assert errors[0] < errors[1] < errors[2] < 5 * 40 / 357


def test_leaving_one_out_divides_by_one_minus_leverage():
    """y_i - x_i.w_-i = (y_i - x_i.w) / (1 - h_ii) where the total penalty lambda n stays the same."""
    x, y = linear(k=1)
    n, total = len(x), PENALTY * len(x)
    model = Removable(x, y, "ridge", total / n)
    leverage = torch.einsum("ni,ij,nj->n", x, torch.linalg.inv(x.T @ x + total * torch.eye(12, dtype=torch.float64)), x)
    for i in (0, 7, 356):
        rest = torch.arange(n) != i
        alone = Removable(x[rest], y[rest], "ridge", total / (n - 1))
        wanted = (y[i] - x[i] @ model.weights[0]) / (1 - leverage[i])
        assert torch.allclose(y[i] - x[i] @ alone.weights[0], wanted, atol=1e-12)


def test_logistic_training_is_that_of_scikit_learn(pictures):
    x, y = pictures
    assert x.shape == (357, 65) and float(x.norm(dim=1).max()) == pytest.approx(1)
    model = Removable(x, y, "logistic", PENALTY)
    assert torch.allclose(model.weights[0], refit(x, y), atol=1e-7)
    assert float(model.bound) < 1e-10


@pytest.mark.parametrize("gone", [1, 10, 50])
def test_logistic_removal_is_near_the_refit_as_its_residual_says(gone, pictures):
    """L_b is lambda n'-strongly convex, so |w - w*| <= |gradient| / (lambda n') <= beta / (lambda n')."""
    x, y = pictures
    model = Removable(x, y, "logistic", PENALTY)
    wanted, start = refit(x[gone:], y[gone:]), model.weights[0]
    model.remove(torch.arange(gone))
    left = 357 - gone
    distance = float((model.weights[0] - wanted).norm())
    assert distance <= float(model.residual()) / (PENALTY * left) + 1e-7
    assert float(model.residual()) <= float(model.bound)
    assert distance < 0.1 * float((start - wanted).norm())


def test_fifty_removals_one_by_one(pictures):
    """Residual <= summed bound <= what theory knows beforehand; with epsilon 1 and delta 1e-4 the budget is 0.2280 and runs out."""
    x, y = pictures
    model = Removable(x, y, "logistic", PENALTY, sigma=1.0, generator=torch.Generator().manual_seed(0))
    start, worst, bounds = model.weights, 0.0, [float(model.bound)]
    for i in range(50):
        model.remove(torch.tensor([i]))
        worst += worst_growth(PENALTY, 357 - i)
        bounds.append(float(model.bound))
        assert float(model.residual()) <= bounds[-1] <= worst
    assert all(later > earlier for earlier, later in zip(bounds, bounds[1:], strict=False))
    assert float(model.residual()) < bounds[-1] / 20 and bounds[-1] < worst / 1000
    again = Removable(x[50:], y[50:], "logistic", PENALTY, sigma=1.0, generator=torch.Generator().manual_seed(0))
    assert (model.weights - again.weights).norm() < 0.01 * (start - again.weights).norm()  # the same noise, drawn again
    budget = 1 / noise_factor(1e-4)
    assert budget == pytest.approx(1 / math.sqrt(2 * math.log(15000))) == pytest.approx(0.2280, abs=1e-4)
    certified = sum(bound <= budget for bound in bounds[1:])
    assert 20 < certified < 50


def test_beyond_the_budget_nothing_is_removed(pictures):
    x, y = pictures
    model = Removable(x, y, "logistic", PENALTY, sigma=1.0, generator=torch.Generator().manual_seed(0))
    removed = 0
    with pytest.raises(BudgetSpent, match="allowed is 1") as caught:
        for i in range(100):
            before = model.weights, model.bound, model.left
            model.remove(torch.tensor([i]), epsilon=1.0)
            removed += 1
    assert 20 < removed < 50 and caught.value.spent > 1 >= model.spent()
    assert (model.weights is before[0]) and (model.bound is before[1]) and int(model.left.sum()) == 357 - removed


def test_a_stronger_penalty_costs_less_and_no_noise_certifies_nothing(pictures):
    x, y = pictures
    spent = []
    for penalty in (1e-3, 1e-2, 1e-1):
        model = Removable(x, y, "logistic", penalty, sigma=1.0, generator=torch.Generator().manual_seed(0))
        model.remove(torch.arange(5))
        spent.append(float(model.bound))
    assert spent[0] > spent[1] > spent[2] > 0
    bare = Removable(x, y, "logistic", PENALTY)
    with pytest.raises(BudgetSpent, match="epsilon to inf"):
        bare.remove(torch.tensor([0]), epsilon=1e9)
    assert bool(bare.left.all())


def test_a_weak_penalty_with_much_noise_buys_little(pictures):
    """lambda 1e-3 and sigma 10: worse than 0.9 on its own training rows, and a handful of removals at most."""
    x, y = pictures
    model = Removable(x, y, "logistic", 1e-3, sigma=10.0, generator=torch.Generator().manual_seed(0))
    assert float(((x @ model.weights[0]) * y > 0).double().mean()) < 0.9
    model.remove(torch.tensor([0]), epsilon=1.0)
    with pytest.raises(BudgetSpent):
        for i in range(1, 6):
            model.remove(torch.tensor([i]), epsilon=1.0)


def test_several_outputs_share_delta_and_add_epsilon(pictures):
    x, y = pictures
    both = Removable(x, torch.stack([y, -y], 1), "logistic", PENALTY, sigma=2.0, generator=torch.Generator().manual_seed(0))
    both.remove(torch.arange(3))
    wanted = sum(noise_factor(1e-4 / 2) * float(bound) / 2.0 for bound in both.bound)
    assert both.spent(1e-4) == pytest.approx(wanted)
    plain = Removable(x, torch.stack([y, -y], 1), "logistic", PENALTY)
    plain.remove(torch.arange(3))
    for k, sign in enumerate((y, -y)):
        alone = Removable(x, sign, "logistic", PENALTY)
        alone.remove(torch.arange(3))
        assert torch.allclose(alone.weights[0], plain.weights[k], atol=1e-9)
        assert float(alone.bound) == pytest.approx(float(plain.bound[k]), rel=1e-6)


def test_a_row_can_be_removed_only_once(pictures):
    model = Removable(*pictures, "logistic", PENALTY)
    model.remove(torch.tensor([3]))
    for rows in ([3], [4, 4]):
        with pytest.raises(IndexError, match="only once"):
            model.remove(torch.tensor(rows))
    assert int(model.left.sum()) == 356


@pytest.mark.parametrize(("penalty", "least"), [(1e-3, 0.9), (1e-2, 0.98)])
def test_removing_wrong_labels_helps_as_influence_predicts(penalty, least, pictures):
    """20 of 250 labels are flipped. Predicted: minus the gradient of each test loss times H^-1 sum_F g; realised: retraining."""
    x, y = pictures
    order = torch.randperm(357, generator=torch.Generator().manual_seed(0))
    train, test = order[:250], order[250:]
    flipped = y[train].clone()
    flipped[:20] *= -1
    model = Removable(x[train], flipped, "logistic", penalty)
    clean = refit(x[train][20:], flipped[20:], penalty)
    change = model.influence(torch.arange(20))[0]
    margin = y[test] * (x[test] @ model.weights[0])
    predicted = -y[test] * torch.sigmoid(-margin) * (x[test] @ change)
    realised = torch.nn.functional.softplus(-y[test] * (x[test] @ clean)) - torch.nn.functional.softplus(-margin)
    assert float(torch.corrcoef(torch.stack([predicted, realised]))[0, 1]) > least
    assert float(realised.mean()) < 0
    moved = clean - model.weights[0]
    model.remove(torch.arange(20))
    newton = float((model.weights[0] - clean).norm() / moved.norm())
    first = float((change - moved).norm() / moved.norm())
    assert newton < first < 0.5
