"""Null spaces of inputs: the bound on what projected matrices change, and the ends."""

from __future__ import annotations

import pytest
import torch

from letheon.maths.null_space import null_projector


def inputs(n: int = 200, d: int = 12, seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    """Correlated inputs with a mean, (n, d), whose directions have energies that fall by the factor `spread`."""
    generator = torch.Generator().manual_seed(seed)
    scale = spread ** torch.arange(d, dtype=torch.float64)
    mixed = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    return (torch.randn(n, d, generator=generator, dtype=torch.float64) * scale) @ mixed.T + 0.1


@pytest.mark.parametrize("gamma", [1e-4, 0.01, 0.3])
def test_projected_matrices_hardly_change_what_measured_inputs_give(gamma):
    """mean |D P a|^2 <= |D|_2^2 gamma trace C for every D, here 20 of them; and it is not empty."""
    a = inputs(spread=0.6)
    covariance = a.T @ a / len(a)
    p = null_projector(covariance, gamma)
    torch.testing.assert_close(p @ p, p, rtol=0, atol=1e-12)
    assert torch.equal(p, p.T) or float((p - p.T).abs().max()) < 1e-14
    assert 0 < round(float(p.trace())) < 12
    for seed in range(20):
        d = torch.randn(7, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        change = (a @ p @ d.T).square().sum(-1).mean()
        assert float(change) <= float(torch.linalg.matrix_norm(d, 2) ** 2 * gamma * covariance.trace()) * (1 + 1e-9)
    energies = torch.linalg.eigvalsh(covariance)
    kept = round(float(p.trace()))
    assert float(energies[:kept].sum()) <= gamma * float(energies.sum()) < float(energies[: kept + 1].sum())


def test_ends_of_gamma_and_directions_that_no_input_uses():
    full = inputs()
    covariance = full.T @ full / len(full)
    assert torch.equal(null_projector(covariance, 1.0), torch.eye(12, dtype=torch.float64))
    assert not null_projector(covariance, 0.0).any()
    few = inputs(5)  # rank 5 of 12
    p = null_projector(few.T @ few / 5, 0.0)
    assert round(float(p.trace())) == 7
    assert float((few @ p).abs().max()) < 1e-7
