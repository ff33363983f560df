"""GPTQ of one weight: the limits that are known exactly, its equation by another road, and what it is for."""

from __future__ import annotations

import pytest
import torch

from letheon.maths.gptq import gptq, shares
from letheon.maths.quantise import rounded, scales


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(seed: int, n: int = 400, width: int = 96, rank: int = 12) -> torch.Tensor:
    """Inputs (n, width) that mostly lie in a few directions, as those of a language model do."""
    return drawn(seed, n, rank) @ drawn(seed + 1000, rank, width) + 0.3 * drawn(seed + 2000, n, width)


def hessian(inputs: torch.Tensor) -> torch.Tensor:
    return 2 * inputs.double().T @ inputs.double()


@pytest.mark.parametrize(("bits", "group"), [(8, 64), (4, 64), (3, 16), (4, 7), (2, 200)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_inputs_that_have_nothing_to_do_with_each_other_give_plain_rounding(bits, group, dtype):
    weight = drawn(0, 24, 100).to(dtype)  # no whole number of groups
    for known in (torch.eye(100), torch.diag(drawn(1, 100).square()), torch.zeros(100, 100)):
        assert torch.equal(gptq(weight, known, bits, group), rounded(weight, bits, group))
    assert not torch.equal(gptq(weight, hessian(correlated(2, width=100)), bits, group), rounded(weight, bits, group))


@pytest.mark.parametrize("seed", range(3))
def test_two_columns_in_closed_form(seed):
    """H = [[a, b], [b, c]]: given q_1, the output error is least at w_2 + (w_1 - q_1) b / c, c with the damping.

    A third column without ties to the two holds the largest weight: of two alone one is exact, and the other's error too small to move it.
    """
    weight = torch.cat([drawn(seed, 50, 2), torch.full((50, 1), 4.0)], 1)
    known = torch.block_diag(hessian(drawn(seed + 9, 30, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])), torch.eye(1).double())
    share = float(known[0, 1] / (known[1, 1] + 0.01 * known.diagonal().mean()))
    assert float(shares(known)[0, 1]) == pytest.approx(-share, rel=1e-9) and abs(share) > 0.1
    first = (weight[:, 0] / 0.5).round() * 0.5  # the step is 4 / 2^3
    second = ((weight[:, 1] + (weight[:, 0] - first) * share) / 0.5).round() * 0.5
    found = gptq(weight, known, 4, 3)
    assert torch.equal(found, torch.stack([first, second, weight[:, 2]], 1))
    assert not torch.equal(found, rounded(weight, 4, 3)) and torch.equal(gptq(weight[:, :2], known[:2, :2], 4), rounded(weight[:, :2], 4))


@pytest.mark.parametrize(("bits", "group"), [(4, 64), (3, 16), (4, 7)])
def test_against_the_optimal_update_without_a_factor(bits, group):
    """arXiv:2210.17323, equation 2: F are the columns still free; w_F moves by -(w_j - q_j) (H_F^-1)_j / (H_F^-1)_jj, H_F^-1 taken anew."""
    weight, known = drawn(3, 6, 30), hessian(correlated(4, n=60, width=30))
    found, work = gptq(weight, known, bits, group), weight.double()
    damped = known + 0.01 * known.diagonal().mean() * torch.eye(30, dtype=torch.float64)
    for j in range(30):
        if j % group == 0:
            step = work[:, j : j + group].abs().amax(1) / 2 ** (bits - 1)
        inverse = torch.linalg.inv(damped[j:, j:])
        coarse = (work[:, j] / step).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1)) * step
        work[:, j:] -= (work[:, j] - coarse)[:, None] * inverse[0] / inverse[0, 0]
        torch.testing.assert_close(work[:, j], coarse, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.double(), work, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_what_the_layer_puts_out_changes_less_than_with_plain_rounding(bits):
    """Mean over seeds of the squared output error, on the rows that H comes from and on others of the same kind; also none is worse."""
    ratios, fresh = [], []
    for seed in range(8):
        weight, inputs = drawn(seed, 32, 96), correlated(seed, n=800)
        seen, unseen = inputs[:400], inputs[400:]
        after, plain = gptq(weight, hessian(seen), bits, 32), rounded(weight, bits, 32)
        for rows, kept in ((seen, ratios), (unseen, fresh)):
            kept.append(float((rows @ (weight - after).T).square().sum() / (rows @ (weight - plain).T).square().sum()))
    assert max(ratios) < 0.5 and sum(ratios) / len(ratios) < 0.3, ratios
    assert sum(fresh) / len(fresh) < 0.3, fresh


def test_the_weights_move_further_than_with_plain_rounding():
    """The price: it does not take the nearest grid point of the weight itself."""
    weight, known = drawn(5, 32, 96), hessian(correlated(5))
    assert (gptq(weight, known, 4) - weight).square().sum() > (rounded(weight, 4) - weight).square().sum()


@pytest.mark.parametrize(("bits", "group"), [(8, 64), (4, 16), (4, 7), (3, 100)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_on_its_grid_stays(bits, group, dtype):
    """Without an error there is nothing to pass on, whatever the inputs."""
    coarse = rounded(drawn(6, 24, 100).to(dtype), bits, group)
    assert torch.equal(gptq(coarse, hessian(correlated(7, width=100)), bits, group), coarse)


def test_codes_stay_on_the_grid_of_the_group():
    """Whole numbers within -2^(bits - 1)..2^(bits - 1), also where the errors of others push a weight beyond the largest."""
    weight = drawn(8, 200, 64)
    codes = gptq(weight, hessian(correlated(8, width=64)), 2, 64) / scales(weight, 2, 64)
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-5)
    assert float(codes.abs().max()) == 2.0


def test_it_repeats_to_the_bit_and_leaves_what_it_is_given():
    weight, known = drawn(9, 24, 100), hessian(correlated(10, width=100))
    given = weight.clone(), known.clone()
    first = gptq(weight, known, 4, 16)
    assert torch.equal(gptq(weight, known, 4, 16), first)
    assert torch.equal(weight, given[0]) and torch.equal(known, given[1])


def test_zeros_and_many_bits():
    known = hessian(correlated(11, width=64))
    assert torch.equal(gptq(torch.zeros(3, 64), known, 4), torch.zeros(3, 64))
    weight = drawn(12, 8, 64)
    torch.testing.assert_close(gptq(weight, known, 16), weight, rtol=0, atol=float(weight.abs().max()) / 2**12)


def test_fewer_rows_than_inputs_are_enough():
    """H of rank 5 in 40 columns: the damping makes it definite."""
    inputs = drawn(13, 5, 40)
    found = gptq(drawn(14, 8, 40), hessian(inputs), 4, 40)
    assert bool(found.isfinite().all())
    error = (inputs @ (found - drawn(14, 8, 40)).T).square().sum()
    assert error < 0.4 * (inputs @ (rounded(drawn(14, 8, 40), 4, 40) - drawn(14, 8, 40)).T).square().sum()
