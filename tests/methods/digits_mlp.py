"""A small network for the digits of scikit-learn, written out so that a test can look at every layer."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy


class Digits:
    """Rows to learn and rows to test, and layers (o, i) with biases; relu between them.

    Args:
        sizes: widths from the 64 pixels to the 10 digits.
        seed: draws the split, the weights and the order of rows.
    """

    def __init__(self, sizes: tuple[int, ...], seed: int = 0):
        found = load_digits()
        self.generator = torch.Generator().manual_seed(seed)
        self.x, self.y = torch.tensor(found.data, dtype=torch.float32) / 16, torch.tensor(found.target)
        order = torch.randperm(len(self.y), generator=self.generator)
        self.train, self.test = order[:1300], order[1300:]
        shapes = list(zip(sizes[1:], sizes, strict=False))
        self.weights = [(torch.randn(o, i, generator=self.generator) * (2 / i) ** 0.5).requires_grad_() for o, i in shapes]
        self.biases = [torch.zeros(o, requires_grad=True) for o, _ in shapes]
        self.down = [torch.randn(8, i, generator=self.generator).mul(i**-0.5).requires_grad_() for _, i in shapes]
        self.up = [torch.zeros(o, 8, requires_grad=True) for o, _ in shapes]

    def run(
        self, x: Tensor, weights: list[Tensor] | None = None, up: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Logits, the input of every layer, and what the adapter adds to it (0 without `up`)."""
        inputs, added = [], []
        for k, weight in enumerate(weights or self.weights):
            inputs.append(x)
            added.append(x @ self.down[k].T @ up[k].T if up else torch.zeros(()))
            x = x @ weight.T + self.biases[k] + added[-1]
            x = x.relu() if k + 1 < len(self.weights) else x
        return x, inputs, added

    def learn(self, rows: Tensor, epochs: int, rate: float, adapter: bool = False) -> None:
        """Train all weights, or the adapter alone."""
        moving = [*self.down, *self.up] if adapter else [*self.weights, *self.biases]
        optimiser = torch.optim.Adam(moving, lr=rate)
        for _ in range(epochs):
            for batch in rows[torch.randperm(len(rows), generator=self.generator)].split(64):
                loss = cross_entropy(self.run(self.x[batch], up=self.up if adapter else None)[0], self.y[batch])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    def rows(self, digit: int, *, kept: bool = False) -> Tensor:
        """Training rows of a digit, or of all others."""
        return self.x[self.train[(self.y[self.train] == digit) != kept]]

    @torch.no_grad()
    def right(self, digit: int, *, kept: bool = False, weights: list[Tensor] | None = None, up: list[Tensor] | None = None) -> float:
        """Accuracy on test rows of a digit; of all others, the mean over digits."""
        said = self.run(self.x[self.test], weights, up)[0].argmax(-1)
        each = [float((said == self.y[self.test])[self.y[self.test] == k].float().mean()) for k in range(10)]
        return sum(value for k, value in enumerate(each) if k != digit) / 9 if kept else each[digit]
