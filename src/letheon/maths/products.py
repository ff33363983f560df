"""Matrix products in float32 on CPUs where the linked BLAS leaves half of the vector units idle.

PyTorch takes float32 products to MKL, whose kernels for processors of other makers than its own use 256-bit vectors even where 512-bit
ones are there. oneDNN, which is in PyTorch too, uses what the processor has: the same sums, in another order, at more than twice the rate
(docs/performance.md). `linear` takes the faster way; `core/products.py` lends it to the layers of a model.
"""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

# oneDNN compiles a kernel for every new shape of a product and keeps a thousand of them, about a megabyte each; a training step or an
# audit meets a few dozen again and new ones all the time. Read by torch when it first uses oneDNN; values that are set already stay.
for _name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
    os.environ.setdefault(_name, "64")

LEAST = 1 << 20  # multiplications in a product that is worth the detour


@functools.cache
def available() -> bool:
    """Whether oneDNN is the faster way here: an AVX-512 processor that is not Intel's, MKL as BLAS, and products that agree."""
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    if not (wide and torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    if _maker() == "GenuineIntel" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    a = torch.linspace(-1, 1, 12).view(4, 3)
    b = torch.linspace(1, 2, 15).view(5, 3)
    with torch.no_grad():
        return bool(torch.allclose(_onednn(a, b, None), F.linear(a, b), rtol=1e-5, atol=1e-5))


def _maker() -> str:
    """The vendor of the processor as Linux names it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (m, k), weight (n, k) -> (m, n), without gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """x W' + b with all three products of forward and backward pass in oneDNN; differentiable any number of times."""

    @staticmethod
    def forward(ctx, x, weight, bias):  # (m, k), (n, k), (n,) or None
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):  # (m, n)
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        return (
            linear(grad, weight.t()) if need_x else None,
            linear(grad.t(), x.t()) if need_weight else None,
            grad.sum(0) if need_bias else None,
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., k) times weight (n, k) transposed, plus bias, (..., n): `torch.nn.functional.linear` by the faster library."""
    if not _fits(x, weight):
        return F.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    grad = torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (x, weight, bias))
    out = _Linear.apply(flat, weight, bias) if grad else _onednn(flat, weight, bias)
    return out.view(*x.shape[:-1], weight.shape[0])


def _fits(x: Tensor, weight: Tensor) -> bool:
    if x.dtype != torch.float32 or weight.dtype != torch.float32 or x.device.type != "cpu" or x.numel() * weight.shape[0] < LEAST:
        return False
    return not torch.is_autocast_enabled("cpu") and not torch._C._are_functorch_transforms_active() and available()
