"""The maximum by blocks: the same as torch's, ties and NaN included."""

from __future__ import annotations

import pytest
import torch

from letheon.maths.largest import BLOCK, largest


@pytest.mark.parametrize("n", [1, 5, 4 * BLOCK - 1, 4 * BLOCK, 4 * BLOCK + 1, 1000, 2048])
def test_values_and_places_are_those_of_torch(n):
    generator = torch.Generator().manual_seed(n)
    table = torch.randint(-50, 50, (40, n), generator=generator).float()  # many ties
    table[1] = -torch.inf
    table[2, n // 2] = torch.nan
    table[3, -1] = torch.inf
    values, places = largest(table)
    meant = table.max(-1)
    assert torch.equal(places, meant.indices)
    assert torch.equal(values.nan_to_num(7e7), meant.values.nan_to_num(7e7))


def test_more_dimensions_and_no_rows():
    table = torch.randn(3, 4, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(largest(table)[1], table.argmax(-1))
    assert largest(table[:0])[1].shape == (0, 4)
