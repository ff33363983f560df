"""Random gradients and optimisers that have made some steps, for tests of gradient rules."""

from __future__ import annotations

import torch

from letheon.train.parts import Part

SHAPES = {"first.weight": (4, 3), "first.bias": (4,), "last.weight": (2, 4)}
LENGTH = 24


def random_gradient(seed: int, dtype=torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in SHAPES.values()]


def weights(dtype=torch.float64) -> dict[str, torch.nn.Parameter]:
    return {name: torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for name, shape in SHAPES.items()}


def fresh(named, **more) -> torch.optim.AdamW:
    return torch.optim.AdamW(named.values(), **{"lr": 1e-3, "betas": (0.0, 0.9), "weight_decay": 0.0, **more})


def travelled(named, steps: int = 3) -> tuple[torch.optim.AdamW, torch.Tensor]:
    """An optimiser after some steps, in two groups as in the loop, and its denominators from their definition, flat."""
    groups = [{"params": [p for p in named.values() if (p.ndim >= 2) == matrix]} for matrix in (True, False)]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.0, 0.9), weight_decay=0.0)
    second = 0.0
    for step in range(steps):
        gradient = random_gradient(100 + step)
        for parameter, part in zip(named.values(), gradient, strict=True):
            parameter.grad = (part * torch.logspace(-3, 1, part.numel(), dtype=part.dtype).view_as(part)).to(parameter.dtype)
        second = 0.9 * second + 0.1 * flat([p.grad for p in named.values()]).double() ** 2
        optimizer.step()
    return optimizer, (second / (1 - 0.9**steps)).sqrt() + 1e-8


def flat(gradient) -> torch.Tensor:
    return torch.cat([t.flatten() for t in gradient])


def part(gradient, weight: float = 1.0, mean: float = 1.0) -> Part:
    return Part(list(gradient), mean, weight)
