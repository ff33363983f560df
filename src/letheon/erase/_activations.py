"""What goes into and comes out of layers over the tokens of a split, summed up batch by batch; and where low-rank adapters sit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from letheon.core.adapter import is_adapted
from letheon.core.batching import Batch, by_length, collate
from letheon.core.data import Split
from letheon.core.errors import SubjectError
from letheon.core.forward import final_hidden, unwrapped
from letheon.core.run import Run, kept_as_found
from letheon.core.subject import Subject

from ._linears import chosen, watched

Tokens = Literal["all", "answer"]
BUDGET = 4096  # tokens of one forward pass


def drawn(split: Split, most: int, run: Run, purpose: str) -> Split:
    """At most `most` rows of a split, in their order."""
    if len(split) <= most:
        return split
    rows = torch.randperm(len(split), generator=run.rng(purpose, split.name))[:most].sort().values
    return Split([split[i] for i in rows.tolist()], split.name)


def positions(batch: Batch, tokens: Tokens) -> Tensor:
    """(b, t), true on all real tokens, or where the tokens of the answer are predicted."""
    if tokens == "all":
        return batch.mask
    return torch.cat([batch.scored_mask[:, 1:], torch.zeros_like(batch.scored_mask[:, :1])], 1)


@torch.no_grad()
def sweep(
    subject: Subject, split: Split, parts: Mapping[str, nn.Module], visit: Callable[[str, Tensor, Tensor], None], tokens: Tokens
) -> None:
    """Run all rows and call `visit(name, given, out)` with what each part is given (n, i) and gives (n, o) at the chosen tokens.

    Raises:
        DataError: a row is longer than the context, or has no answer.
    """
    encoded = subject.encoder.encode(split)
    with kept_as_found(subject.module), torch.autocast(subject.device.type, enabled=False):
        for group in by_length(encoded.lengths, BUDGET):
            batch = collate(encoded, group, subject.encoder.pad, subject.device)
            wanted = positions(batch, tokens)
            with watched(parts) as seen:
                final_hidden(subject.module, batch.ids)
            for name, (given, out) in seen.items():
                visit(name, chosen(given, wanted), chosen(out, wanted))


def adapters(subject: Subject, method: str) -> dict[str, tuple[nn.Module, nn.Module, float]]:
    """The active low-rank adapters of a subject by name: A (r, i) and B (o, r), both linear layers, and the factor of B A x.

    Raises:
        SubjectError: there is none, or one is of a kind that is more than a product of two matrices.
    """
    found: dict[str, tuple[nn.Module, nn.Module, float]] = {}
    for name, part in unwrapped(subject.module).named_modules() if is_adapted(subject.module) else ():
        inside: Any = part
        for adapter in getattr(part, "active_adapters", ()) if hasattr(part, "lora_A") else ():
            if adapter not in inside.lora_A or adapter not in inside.lora_B:
                continue
            down, up = inside.lora_A[adapter], inside.lora_B[adapter]
            dora = getattr(inside, "use_dora", {})
            if type(down) is not nn.Linear or type(up) is not nn.Linear or (dora.get(adapter) if isinstance(dora, dict) else dora):
                what = f"`{method}` knows adapters of two linear layers, and `{name}` has another kind"
                raise SubjectError(what, "Merge it first: `--set subject.merge=true`")
            found[f"{name}.{adapter}"] = (down, up, float(inside.scaling[adapter]))
    if not found:
        hint = "Load one with `hf:adapter=DIR`, or edit the weights themselves with `where=linear`"
        raise SubjectError(f"`{method}` is asked to edit a low-rank adapter and `{subject.name}` has none", hint)
    return found
