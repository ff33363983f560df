"""Attention for training on CPUs: plain batched products, several times faster than the fused kernel's backward pass on short rows.

    out = softmax(scale q k' + bias) v          bias: 0 where a token may look, minus infinity elsewhere

The fused CPU kernel saves memory but its bfloat16 backward pass does not use the matrix units (docs/performance.md). On rows of up to
`LONGEST` tokens the (b h, t, t) scores are small and three batched products do the same work faster; longer rows take the fused kernel.
Models opt in through transformers' attention registry, for the time of a `with` block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .forward import unwrapped
from .products import fast_products

LONGEST = 256
NAME = "letheon_bmm"


def product_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float | None = None, **more: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it.

    Args:
        query: (b, h, t, d); key, value: (b, h or fewer, s, d).
        attention_mask: None for causal, or (b or 1, 1, t, s), true or 0 where a token may look.

    Returns:
        (b, t, h, d) and None.
    """
    b, h, t, d = query.shape
    s = key.shape[2]
    if max(t, s) > LONGEST:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
        return found
    if key.shape[1] != h:
        key, value = (part.repeat_interleave(h // part.shape[1], dim=1) for part in (key, value))
    if attention_mask is None:
        allowed = torch.ones(t, s, dtype=torch.bool, device=query.device).tril(s - t)[None]
    else:
        allowed = attention_mask[..., :s].expand(b, h, t, s).reshape(b * h, t, s)
    bias = allowed.to(query.dtype) if allowed.dtype != torch.bool else query.new_zeros(allowed.shape).masked_fill(~allowed, float("-inf"))
    q, k, v = query.reshape(b * h, t, d), key.reshape(b * h, s, d), value.reshape(b * h, s, d)
    scores = torch.baddbmm(bias.expand(b * h, t, s), q, k.transpose(1, 2), alpha=scaling if scaling is not None else d**-0.5)
    out = torch.bmm(scores.softmax(-1).to(v.dtype), v)
    return out.view(b, h, t, d).transpose(1, 2).contiguous(), None


def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    AttentionInterface.register(NAME, product_attention)
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


@contextlib.contextmanager
def fast_attention(module: nn.Module) -> Iterator[None]:
    """Inside the block, a model on the CPU that would use the fused kernel uses plain products on short rows; restored after it.

    Products in float32 take the faster library (products.py).
    """
    inner = unwrapped(module)
    config = getattr(inner, "config", None)
    device = next(module.parameters()).device
    with fast_products(module):
        if config is None or device.type != "cpu" or getattr(config, "_attn_implementation", None) != "sdpa":
            yield
            return
        _register()
        config._attn_implementation = NAME
        try:
            yield
        finally:
            config._attn_implementation = "sdpa"
