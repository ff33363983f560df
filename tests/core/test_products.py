"""Products through oneDNN: equal to those in float64, with gradients of any order, and only where they are meant to be."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F

from letheon.core.products import fast_products
from letheon.maths import products
from letheon.maths.products import linear
from letheon.testing.toys import toy_subject

needs = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this build of torch has no oneDNN")


@pytest.fixture
def always(monkeypatch):
    """As on a processor where oneDNN is the faster way, whatever the size of the product."""
    monkeypatch.setattr(products, "available", lambda: True)
    monkeypatch.setattr("letheon.core.products.available", lambda: True)
    monkeypatch.setattr(products, "LEAST", 0)


def parts(*shape, bias=True):
    rng = torch.Generator().manual_seed(5)
    x = torch.randn(*shape, generator=rng, requires_grad=True)
    weight = torch.randn(7, shape[-1], generator=rng, requires_grad=True)
    return [x, weight, torch.randn(7, generator=rng, requires_grad=True) if bias else None]


@needs
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 5)])
def test_values_and_gradients_equal_float64(shape, bias):
    given = parts(*shape, bias=bias)
    exact = [None if part is None else part.detach().double().requires_grad_() for part in given]
    found, wanted = linear(*given), F.linear(*exact)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    leaves = [[part for part in side if part is not None] for side in (given, exact)]
    first = [torch.autograd.grad(out.tanh().sum(), side, create_graph=True) for out, side in zip((found, wanted), leaves, strict=True)]
    second = [torch.autograd.grad(sum(g.square().sum() for g in grads), side) for grads, side in zip(first, leaves, strict=True)]
    for ours, true in ((first[0], first[1]), (second[0], second[1])):
        for a, b in zip(ours, true, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


@needs
def test_only_large_float32_products_outside_autocast_and_vmap_go_there(always, monkeypatch):
    x, weight, _ = parts(6, 5)
    calls = []
    honest = products._onednn
    monkeypatch.setattr(products, "_onednn", lambda *given: calls.append(given[0].shape) or honest(*given))
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=1e-5, atol=1e-5)
    assert len(calls) == 1
    linear(x.double(), weight.double())
    linear(x.bfloat16(), weight.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        linear(x, weight)
    torch.func.vmap(lambda row: linear(row[None], weight))(x)
    monkeypatch.setattr(products, "LEAST", 6 * 5 * 7 + 1)
    linear(x, weight)
    assert len(calls) == 1


@needs
def test_a_model_borrows_it_for_the_time_of_a_block(always):
    module = toy_subject().module
    ids = torch.arange(24).view(2, 12)
    before = module(input_ids=ids).logits
    plain = [part for part in module.modules() if type(part) is torch.nn.Linear]
    plain[0].forward = marked = lambda x: F.linear(x, plain[0].weight)
    with pytest.raises(RuntimeError, match="on the way"), fast_products(module):
        assert sum("forward" in vars(part) for part in plain) == len(plain) > 4 and plain[0].forward is marked
        torch.testing.assert_close(module(input_ids=ids).logits, before, rtol=1e-4, atol=1e-4)
        raise RuntimeError("on the way")
    assert [part for part in plain if "forward" in vars(part)] == [plain[0]]


def test_the_maker_decides_and_a_wrong_product_turns_it_off(monkeypatch):
    monkeypatch.setattr(products, "_maker", lambda: "GenuineIntel")
    assert products.available.__wrapped__() is False
    monkeypatch.setattr(products, "_maker", lambda: "AuthenticAMD")
    monkeypatch.setattr(products, "_onednn", lambda x, weight, bias: torch.zeros(len(x), len(weight)))
    assert products.available.__wrapped__() is False


def test_kept_kernels_are_few_unless_somebody_asked_for_more():
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        assert int(os.environ[name]) >= 1
