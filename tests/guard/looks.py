"""What a guarded model does, looked at from outside."""

from __future__ import annotations

import torch

from letheon.core.guard import watches
from letheon.core.subject import Subject


def padded(subject: Subject, prompts, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask of a batch, padded on one side."""
    longest = max(map(len, prompts))
    blanks = [[subject.encoder.pad] * (longest - len(prompt)) for prompt in prompts]
    rows = [blank + prompt if left else prompt + blank for blank, prompt in zip(blanks, prompts, strict=True)]
    real = [[0] * len(b) + [1] * len(p) if left else [1] * len(p) + [0] * len(b) for b, p in zip(blanks, prompts, strict=True)]
    return torch.tensor(rows), torch.tensor(real)


def caught(subject: Subject, prompts) -> list[bool]:
    return watches(subject.module)[0].caught(prompts)


def embedded(subject: Subject, ids: torch.Tensor, **more) -> torch.Tensor:
    """What the embedding hands on in one forward pass, after the guard."""
    seen = []
    handle = subject.module.get_input_embeddings().register_forward_hook(lambda layer, given, out: seen.append(out))
    with torch.no_grad():
        subject.module(input_ids=ids, **more)
    handle.remove()
    return seen[0]
