"""Rounding to nearest: the identities of the card and its law of changed codes."""

from __future__ import annotations

import pytest
import torch

from letheon.maths.quantise import codes, normal_float, normal_levels, rounded, scales


@pytest.fixture(params=[(8, 64), (4, 64), (3, 16), (4, 7)], ids=str)
def case(request):
    weight = torch.randn(24, 100, generator=torch.Generator().manual_seed(0))  # no whole number of groups
    return (weight, *request.param)


def test_identities(case):
    weight, bits, group = case
    once = rounded(weight, bits, group)
    assert once.shape == weight.shape and once.dtype == weight.dtype
    torch.testing.assert_close(rounded(once, bits, group), once, rtol=1e-6, atol=0)
    assert torch.equal(rounded(-weight, bits, group), -once)
    torch.testing.assert_close(rounded(8 * weight, bits, group), 8 * once, rtol=0, atol=0)  # a power of two changes no rounding
    step = scales(weight, bits, group).repeat_interleave(group, 1)[:, :100]
    assert bool(((once - weight).abs() <= step / 2 * (1 + 1e-5)).all())
    largest = weight.abs() == (step * 2 ** (bits - 1))
    assert int(largest.sum()) >= 24 and torch.allclose(once[largest], weight[largest], rtol=1e-6)


def test_against_a_loop(case):
    weight, bits, group = case
    wanted = weight.double().clone()
    for row in wanted:
        for first in range(0, 100, group):
            part = row[first : first + group]
            delta = float(part.abs().max()) / 2 ** (bits - 1)
            part.copy_(delta * (part / delta).round())
    torch.testing.assert_close(rounded(weight, bits, group).double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("r", [0.02, 0.2, 1.0])
def test_the_share_of_codes_that_change_is_the_mean_change_in_steps(r):
    """Weights spread evenly over bins, |u| <= r Delta on a fixed grid: P(change) = E|u| / Delta = r / 2."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(400, 1024, generator=generator)
    delta = float(weight.abs().max()) / 8
    u = (2 * torch.rand(weight.shape, generator=generator) - 1) * r * delta
    changed = ((weight / delta).round() != ((weight + u) / delta).round()).double().mean()
    assert float(changed) == pytest.approx(float(u.abs().mean()) / delta, rel=0.02)
    assert float(u.abs().mean()) / delta == pytest.approx(r / 2, rel=0.01)


def test_a_change_too_small_for_any_code_is_undone():
    """Below the smallest distance to a rounding boundary, with each group's largest untouched, the codes are those of the original."""
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64).float()
    step = scales(weight, 4, 64).repeat_interleave(64, 1)
    room = ((weight / step - (weight / step).floor() - 0.5).abs() * step).min()
    largest = weight.abs() == weight.abs().amax(1, keepdim=True)
    changed = torch.where(largest, weight, weight + 0.4 * room)
    assert not torch.equal(changed, weight)
    assert torch.equal(codes(changed, 4), codes(weight, 4)) and torch.equal(rounded(changed, 4), rounded(weight, 4))


def test_many_bits_change_nothing_and_zeros_stay():
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(rounded(weight, 16), weight, rtol=0, atol=float(weight.abs().max()) / 2**15)
    assert torch.equal(rounded(torch.zeros(2, 5), 4), torch.zeros(2, 5))


def test_levels_of_nf4():
    """Quantiles of the normal distribution: the published table, symmetric in nothing but its ends."""
    known = [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0910, 0.0, 0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0]
    torch.testing.assert_close(normal_levels(), torch.tensor(known), rtol=0, atol=5e-5)


def test_nf4_takes_the_nearest_level():
    weight = torch.randn(5, 100, generator=torch.Generator().manual_seed(0))
    found = normal_float(weight, 32)
    for row, coarse in zip(weight, found, strict=True):
        for first in range(0, 100, 32):
            part, said = row[first : first + 32], coarse[first : first + 32]
            levels = normal_levels() * part.abs().max()
            assert torch.equal(said, levels[(part[:, None] - levels).abs().argmin(1)])
    torch.testing.assert_close(normal_float(found, 32), found, rtol=1e-6, atol=0)
    assert torch.equal(normal_float(torch.zeros(2, 8), 4), torch.zeros(2, 8))
