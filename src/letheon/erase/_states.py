"""Hidden states of blocks in a pass of their own, for losses that read them instead of the output."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from letheon.core.batching import Batch
from letheon.core.errors import MethodError
from letheon.core.forward import Batches, unwrapped
from letheon.core.subject import Subject
from letheon.train.feed import Rows
from letheon.train.objective import Objective, Term
from letheon.train.taps import taps


def block_states(module: nn.Module, batch: Batch, blocks: Sequence[str], at: tuple[Tensor, Tensor]) -> Tensor:
    """Outputs of blocks at (row, position), (m, blocks, d), at least float32. The pass ends after the last of them."""
    with taps(module, *blocks, stop=True) as seen:
        unwrapped(module)(input_ids=batch.ids, use_cache=False)
    states = torch.stack([seen[block][at] for block in blocks], dim=1)
    return states.float() if states.dtype in (torch.bfloat16, torch.float16) else states


def terms_apart(objective: Objective, subject: Subject, batches: Batches) -> dict[str, Term]:
    """All terms, where the loss makes its own passes over what it reads and the retain term one over its rows alone."""
    held = objective.retain.splits if objective.retain is not None else ()
    own = {split: batch for split, batch in batches.items() if split in objective.reads}
    rest = {split: batch for split, batch in batches.items() if split in held}
    if not rest or own.keys() & rest.keys():
        return Objective.terms(objective, subject, Batches({**own, **rest}))
    found = objective.loss(subject, Batches(own)) if own else {}
    return {**found, **Objective.terms(objective, subject, Batches(rest))}


def read_rows(objective: Objective, rows: Rows) -> Rows:
    """Rows of a step that the loss or the retain term reads; the others were needed before the first step only."""
    held = objective.retain.splits if objective.retain is not None else ()
    return {split: found for split, found in rows.items() if split in objective.reads or split in held}


def hold_all_but(module: nn.Module, moving: Callable[[str, nn.Parameter], bool], where: str) -> list[Any]:
    """Hooks that make the gradient 0 of every weight that `moving` refuses: whatever the parameter space opens, these stay.

    Args:
        module: a network, or a peft wrapper around it (names are those of the network inside).
        moving: by name and parameter.
        where: what the message calls the weights that move.

    Raises:
        MethodError: none of the weights that may move is left.
    """
    named = [(name, parameter) for name, parameter in unwrapped(module).named_parameters() if parameter.requires_grad]
    held = [parameter for name, parameter in named if not moving(name, parameter)]
    if len(held) == len(named):
        raise MethodError(f"None of the weights that may move belongs to {where}", "Choose a space that holds them, as in `parameters=all`")
    return [parameter.register_hook(torch.zeros_like) for parameter in held]


@contextlib.contextmanager
def only(module: nn.Module, moving: Callable[[str, nn.Parameter], bool], wanted: bool) -> Iterator[None]:
    """Inside the block, if `wanted`, no weight that `moving` refuses has a part in what is computed: its gradient will be none."""
    named = unwrapped(module).named_parameters() if wanted else ()
    held = [parameter for name, parameter in named if parameter.requires_grad and not moving(name, parameter)]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)
