"""Attention on CPUs: plain batched products for training on short rows, and trees of tokens that attend along their paths.

    out = softmax(scale q k' + bias) v          bias: 0 where a token may look, minus infinity elsewhere

The fused CPU kernel saves memory but its bfloat16 backward pass does not use the matrix units (docs/performance.md). On rows of up to
`LONGEST` tokens the (b h, t, t) scores are small and three batched products do the same work faster; longer rows take the fused kernel.
A node of a tree (trees.py) looks at the path that leads to it, some 60 nodes; under a mask the fused kernel multiplies it with all 512
of the tree. `tree_attention` gathers the paths into short rows. Models opt in through transformers' attention registry, for the time of a
`with` block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .forward import unwrapped
from .products import fast_products
from .trees import Paths

LONGEST = 256
NAME, PATHS = "letheon_bmm", "letheon_paths"


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


def path_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float | None = None, *,
    groups: Sequence[Paths], **more: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention over trees laid end to end, as transformers calls it: each chain of nodes sees its own path.

    Args:
        query: (1, h, n, d); key, value: (1, h or fewer, n, d).
        groups: the paths; every node is a query of one of them.

    Returns:
        (1, n, h, d) and None.

    Raises:
        ValueError: the model has a mask of its own.
    """
    if attention_mask is not None:
        raise ValueError("the model makes a mask of its own")
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))  # (n, h, d)
    out = v.new_empty(len(q) + 1, q.shape[1], v.shape[2])
    for group in groups:
        asked, seen, given = (
            part.index_select(0, at.flatten()).view(*at.shape, *part.shape[1:]).transpose(1, 2)  # (p, h, t or s, d)
            for part, at in ((q, group.queries), (k, group.keys), (v, group.keys))
        )
        grouped = k.shape[1] != q.shape[1]
        found = F.scaled_dot_product_attention(asked, seen, given, attn_mask=group.mask, scale=scaling, enable_gqa=grouped)
        out.index_copy_(0, group.target, found.transpose(1, 2).flatten(0, 1))
    return out[None, :-1], None


def takes_paths(module: nn.Module) -> bool:
    """Whether `tree_attention` can stand in for attention: on the CPU, with transformers' fused kernel or our products, and with no hook.

    Rows of many prompts come as one; a hook (a guard's, for one) may look for a prompt in each row.
    """
    config = getattr(unwrapped(module), "config", None)
    if next(module.parameters()).device.type != "cpu" or getattr(config, "_attn_implementation", None) not in ("sdpa", NAME):
        return False
    return not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@contextlib.contextmanager
def tree_attention(module: nn.Module, groups: Sequence[Paths]) -> Iterator[None]:
    """Inside the block a model that `takes_paths` attends along the paths of trees laid end to end; restored after it."""
    from transformers import AttentionInterface

    config = unwrapped(module).config
    usual = config._attn_implementation
    AttentionInterface.register(PATHS, partial(path_attention, groups=groups))  # a name without a mask of its own gets none
    config._attn_implementation = PATHS
    try:
        yield
    finally:
        config._attn_implementation = usual
