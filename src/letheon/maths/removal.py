"""Linear models from which rows can be removed afterwards, with a certificate (arXiv:1911.03030).

    L_b(w; D) = sum_i l(w.x_i, y_i) + (lambda n / 2) |w|^2 + b.w         b ~ N(0, sigma^2 I), drawn once and kept secret
    remove F: Delta = lambda |F| w + sum_F grad l,    H = hess L_b(w; D') = sum_D' l'' x x^T + lambda n' I,    w <- w + H^-1 Delta

`logistic`: l = softplus(-y w.x), y = -1 or 1, gamma = 1/4. `ridge`: l = (w.x - y)^2 / 2, for which the step is exact and gamma = 0.
What is left of the gradient after a removal is at most, C being the largest |x| of D',

    beta += gamma |X'|_2 C |H^-1 Delta| |X' H^-1 Delta|                  summed over removals; begins at the gradient left by training

and beta <= sigma epsilon / c with c = sqrt(2 ln(1.5 / delta)) makes the removals (epsilon, delta)-certified: no test tells the result from
a training without the rows better than these two numbers allow. sigma = 0 certifies nothing but ridge. Many outputs (k) are as many
models over the same rows, each with its own w, b and beta; their epsilons add up, so each has delta / k. All numbers are float64.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Loss = Literal["ridge", "logistic"]
GAMMA = {"ridge": 0.0, "logistic": 0.25}  # Lipschitz constant of l''; 0.0963 would do for the logistic loss
STEPS, GRADIENT = 200, 1e-10  # Newton steps of a training at most, and the gradient norm that ends it


class BudgetSpent(ValueError):
    """A removal that the certificate does not cover; nothing has been changed.

    Attributes:
        spent: epsilon with that removal.
        allowed: epsilon that was asked for.
    """

    def __init__(self, spent: float, allowed: float):
        self.spent, self.allowed = spent, allowed
        super().__init__(f"the removal takes epsilon to {spent:.4g}, allowed is {allowed:.4g}")


class Removable:
    """Models trained to their optimum, and what is needed to take rows out again.

    Args:
        features: (n, d).
        targets: (n, k), -1 and 1 for `logistic`, any numbers for `ridge`; or (n,) for one model.
        loss: see above.
        penalty: lambda, per row.
        sigma: standard deviation of b.
        generator: draws b.

    Attributes:
        weights: (k, d).
        left: (n,) true for rows that have not been removed.
        bound: (k,) beta, a bound on the norm of the gradient of L_b over the rows that are left.
    """

    def __init__(
        self, features: Tensor, targets: Tensor, loss: Loss, penalty: float, *, sigma: float = 0.0, generator: torch.Generator | None = None
    ):
        self.features, self.targets = features.double(), targets.double().reshape(len(features), -1)
        self.loss, self.penalty, self.sigma = loss, penalty, sigma
        shape = self.targets.shape[1], self.features.shape[1]
        self.left = torch.ones(len(features), dtype=torch.bool)
        self.weights = torch.zeros(shape, dtype=torch.float64)
        self._noise = self.weights if not sigma else sigma * torch.randn(shape, generator=generator, dtype=torch.float64)
        self._train()
        self.bound = self.residual() if loss == "logistic" else torch.zeros(shape[0], dtype=torch.float64)

    def _slopes(self, weights: Tensor, rows: Tensor) -> Tensor:
        """l' of each row and model, (rows, k)."""
        z, y = self.features[rows] @ weights.T, self.targets[rows]
        return z - y if self.loss == "ridge" else -y * torch.sigmoid(-y * z)

    def _gradient(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Gradient of L_b over `rows` (n,) of bool, (k, d)."""
        n = int(rows.sum())
        return self._slopes(weights, rows).T @ self.features[rows] + self.penalty * n * weights + self._noise

    def _solved(self, right: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
        """H^-1 right for each model, (k, d); H is the Hessian over `rows` at `weights`."""
        x = self.features[rows]
        ridge = self.penalty * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
        if self.loss == "ridge":
            return torch.linalg.solve(x.T @ x + ridge, right.T).T
        s = torch.sigmoid(x @ weights.T)
        return torch.stack([torch.linalg.solve(x.T @ ((s * (1 - s))[:, k, None] * x) + ridge, right[k]) for k in range(len(right))])

    def _objective(self, weights: Tensor) -> Tensor:
        """L_b over all rows, (k,)."""
        z, y = self.features @ weights.T, self.targets
        each = (z - y).square() / 2 if self.loss == "ridge" else torch.nn.functional.softplus(-y * z)
        return each.sum(0) + self.penalty * len(z) / 2 * weights.square().sum(1) + (self._noise * weights).sum(1)

    def _train(self) -> None:
        """Newton's method with halved steps where a whole one does not go down."""
        for _ in range(STEPS):
            gradient = self._gradient(self.weights, self.left)
            if gradient.norm(dim=1).max() < GRADIENT:
                return
            step, before = self._solved(gradient, self.weights, self.left), self._objective(self.weights)
            length = torch.ones(len(step), 1, dtype=torch.float64)
            for _ in range(30):
                worse = self._objective(self.weights - length * step) > before + 1e-12 * before.abs()
                if not worse.any():
                    break
                length[worse] /= 2
            self.weights = self.weights - length * step

    def residual(self) -> Tensor:
        """The true norm of the gradient of L_b over the rows that are left, (k,)."""
        return self._gradient(self.weights, self.left).norm(dim=1)

    def influence(self, rows: Tensor) -> Tensor:
        """How the weights change without `rows` (indices), to first order: H^-1 sum_F g with the Hessian over all rows, (k, d)."""
        gone = torch.zeros_like(self.left).index_fill(0, rows, True)
        total = self._slopes(self.weights, gone).T @ self.features[gone] + self.penalty * len(rows) * self.weights
        return self._solved(total, self.weights, self.left)

    def remove(self, rows: Tensor, *, epsilon: float | None = None, delta: float = 1e-4) -> None:
        """Take rows (indices) out.

        Raises:
            BudgetSpent: the certificate would need more than `epsilon`; nothing has been changed.
            IndexError: a row has been removed before or is named twice.
        """
        gone = torch.zeros_like(self.left).index_fill(0, rows, True)
        if int(gone.sum()) < len(rows) or not bool(self.left[gone].all()):
            raise IndexError("a row can be removed only once")
        left = self.left & ~gone
        total = self._slopes(self.weights, gone).T @ self.features[gone] + self.penalty * len(rows) * self.weights
        step = self._solved(total, self.weights, left)  # (k, d)
        bound = self.bound + self._growth(step, left)
        if epsilon is not None and self._spent(bound, delta) > epsilon:
            raise BudgetSpent(self._spent(bound, delta), epsilon)
        self.weights, self.left, self.bound = self.weights + step, left, bound

    def _growth(self, step: Tensor, left: Tensor) -> Tensor:
        """What a removal adds to the bound, (k,)."""
        if not GAMMA[self.loss]:
            return torch.zeros(len(step), dtype=torch.float64)
        x = self.features[left]
        spectral = torch.linalg.eigvalsh(x.T @ x)[-1].clamp(min=0).sqrt()
        return GAMMA[self.loss] * spectral * x.norm(dim=1).max() * step.norm(dim=1) * (x @ step.T).norm(dim=0)

    def _spent(self, bound: Tensor, delta: float) -> float:
        if not bool(bound.any()):
            return 0.0
        return math.inf if not self.sigma else float(noise_factor(delta / len(bound)) * bound.sum() / self.sigma)

    def spent(self, delta: float = 1e-4) -> float:
        """Epsilon that the removals so far have cost: the sum over models of c beta / sigma."""
        return self._spent(self.bound, delta)


def noise_factor(delta: float) -> float:
    """c = sqrt(2 ln(1.5 / delta))."""
    return math.sqrt(2 * math.log(1.5 / delta))


def worst_growth(penalty: float, n: int) -> float:
    """What one logistic removal from n rows with |x| <= 1 can add to the bound, whatever the data: 4 gamma / (lambda^2 (n - 1))."""
    return 4 * GAMMA["logistic"] / (penalty**2 * (n - 1))
