"""What is said next, and what the model thought of it. All of it row by row: no row sees another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from letheon.maths.likelihood import Head

from .speech import Ask, Speech, Top

COLDEST = 1e-4  # below this temperature the most likely token is taken


def chosen(logits: Tensor, speeches: Sequence[Speech]) -> Tensor:
    """The next token of each row, (live,): the most likely one, or the first whose cumulated probability exceeds the row's draw."""
    out = logits.argmax(-1)
    drawn = [k for k, speech in enumerate(speeches) if speech.ask.temperature >= COLDEST]
    if drawn:
        z = logits[drawn].double()
        heat = torch.tensor([speeches[k].ask.temperature for k in drawn], device=z.device, dtype=z.dtype)
        p = ((z - z.max(-1, keepdim=True).values) / heat[:, None]).softmax(-1)
        mass = torch.tensor([speeches[k].ask.top_p for k in drawn], device=z.device, dtype=z.dtype)
        if bool((mass < 1).any()):
            ranked, order = p.sort(dim=-1, descending=True, stable=True)
            beyond = ranked.cumsum(-1) - ranked >= mass[:, None]  # the most likely token always stays
            beyond[:, 0] = False
            p = p.masked_fill(torch.zeros_like(beyond).scatter_(-1, order, beyond), 0)
        total = p.cumsum(-1)
        u = torch.tensor([speeches[k].draws.random() for k in drawn], device=z.device, dtype=z.dtype) * total[:, -1]
        out[drawn] = (total <= u[:, None]).sum(-1).clamp(max=p.shape[1] - 1)
    return out


def facts(logits: Tensor, tokens: Tensor, counts: Sequence[int]) -> list[tuple[float, Top]]:
    """Log-probability of each token (n,) and the most likely tokens in its place, `counts` of them."""
    if not counts:
        return []
    logprobs = logits.float().log_softmax(-1)
    own = logprobs.gather(-1, tokens[:, None])[:, 0].tolist()
    values, which = logprobs.topk(min(max(max(counts), 1), logprobs.shape[-1]), -1)
    tops = zip(which.tolist(), values.tolist(), strict=True)
    return [(mine, tuple(zip(ids, ps, strict=True))[:n]) for mine, (ids, ps), n in zip(own, tops, counts, strict=True)]


def prompt_facts(states: Tensor, head: Head, ask: Ask) -> list[tuple[float | None, Top]]:
    """For each token of a prompt what the model thought of it before it came; nothing for the first."""
    found: list[tuple[float | None, Top]] = [(None, ())]
    targets = torch.tensor(ask.prompt[1:], device=states.device)
    for first in range(0, len(targets), 256):
        part = targets[first : first + 256]
        found += facts(head.logits(states[first : first + len(part)]), part, [ask.logprobs or 0] * len(part))
    return found
