"""Divergences between next-token distributions, made in chunks from hidden states.

Notation: m scored tokens, v vocabulary, d width. `now` and `then` are final hidden states, each with its own head.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .likelihood import Head, chunked


def kl_to_frozen(now: Tensor, head: Head, then: Tensor, frozen: Head) -> Tensor:
    """KL(then || now) per token: sum_v q (log q - log p), (m,), in nats. Gradient flows to `now` and its head only.

    Args:
        now: (m, d).
        then: (m, d), of the frozen model.
    """

    def piece(now_part: Tensor, then_part: Tensor) -> Tensor:
        logp = head.logits(now_part).log_softmax(-1)
        with torch.no_grad():
            logq = frozen.logits(then_part).log_softmax(-1)
            q = logq.exp()
            negative_entropy = (q * logq).sum(-1)
        return negative_entropy - (q * logp).sum(-1)

    return chunked(piece, head, now, then)


Lowered = Callable[[Tensor, Tensor], Tensor]  # logits (m, v), targets (m,) -> new logits of the targets (m,)


def by_penalty(penalty: float) -> Lowered:
    """Lower the target's logit by a constant. Its probability p becomes p e^-penalty / (1 - p + p e^-penalty)."""
    return lambda z, targets: z.gather(-1, targets[:, None]).squeeze(-1) - penalty


def to_probability(most: float) -> Lowered:
    """Lower the target's logit until its probability is `most`; one that is already below stays."""

    def lowered(z: Tensor, targets: Tensor) -> Tensor:
        others = z.scatter(-1, targets[:, None], -math.inf).logsumexp(-1)
        return torch.minimum(z.gather(-1, targets[:, None]).squeeze(-1), others + math.log(most / (1 - most)))

    return lowered


def adjusted_cross_entropy(now: Tensor, head: Head, then: Tensor, frozen: Head, targets: Tensor, lowered: Lowered) -> Tensor:
    """Cross-entropy -sum_v q log p per token, (m,), where q is the frozen distribution with the target's logit lowered.

        q = softmax(z with z_target replaced by lowered(z, target))           z: logits of the frozen model

    Args:
        now, then: (m, d).
        targets: (m,).
    """

    def piece(now_part: Tensor, then_part: Tensor, target: Tensor) -> Tensor:
        logp = head.logits(now_part).log_softmax(-1)
        with torch.no_grad():
            z = frozen.logits(then_part)
            q = z.scatter(-1, target[:, None], lowered(z, target)[:, None]).softmax(-1)
        return -(q * logp).sum(-1)

    return chunked(piece, head, now, then, targets)
