"""GPTQ of a whole model: the linear layers of its blocks, first block to last, each from what the blocks below, already rounded, hand up.

Layers of one block share a pass: they see inputs from before any of them is rounded, as in the authors' code. Rows are never padded, so all
tokens that a layer sees count. A layer that no token reaches (an expert) is rounded to nearest. arXiv:2210.17323.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from letheon.core.batching import Batch, by_length, collate
from letheon.core.data import Data, Split
from letheon.core.encode import TextEncoder
from letheon.core.errors import SubjectError
from letheon.core.forward import unwrapped
from letheon.erase._linears import linear_layers, matrix, watched
from letheon.maths.gptq import gptq
from letheon.train.taps import block_names, taps

from ._parts import cut

SPLITS = ("retain", "retain-check")  # text that is not about what was forgotten, the first that has rows
BUDGET = 2048  # tokens of one forward pass


def calibration_rows(data: Data, limit: int) -> Split | None:
    """The first rows to keep, or None where the data has none."""
    found = next((data[name] for name in SPLITS if name in data and len(data[name])), None)
    return None if found is None else cut(found, limit)


def why_not(module: nn.Module, rows: Split | None) -> str:
    """Why a model cannot be rounded with these rows, or an empty text."""
    if rows is None:
        return f"the data has no rows to calibrate GPTQ on, in {' or '.join(f'`{name}`' for name in SPLITS)}"
    try:
        linear_layers(module, "all")
    except SubjectError as error:
        return f"GPTQ cannot be used: {error}"
    return ""


@torch.no_grad()
def round_blocks(module: nn.Module, encoder: TextEncoder, rows: Split, bits: int, group: int) -> None:
    """Round the linear layers of all blocks in place.

    Raises:
        DataError: a row is longer than the context.
        SubjectError: there are no blocks of ordinary linear layers, or what goes through them is not finite.
    """
    layers, batches = linear_layers(module, "all"), _batches(encoder, rows, next(module.parameters()).device)
    for block in block_names(module):
        own = {name: part for name, part in layers.items() if name.startswith(f"{block}.")}
        for name, hessian in _hessians(module, block, own, batches).items():
            if not torch.isfinite(hessian).all():
                raise SubjectError(f"The inputs of `{name}` hold NaN or infinity", "The model is damaged: GPTQ cannot be calibrated")
            weight = matrix(own[name])
            weight.copy_(gptq(weight, hessian, bits, group))


def _hessians(module: nn.Module, block: str, own: dict[str, nn.Module], batches: list[Batch]) -> dict[str, Tensor]:
    """2 X^T X of each layer in float64, X its inputs (tokens, i) over all batches."""
    widths = {name: matrix(part).shape[1] for name, part in own.items()}
    found = {name: torch.zeros(width, width, dtype=torch.float64, device=own[name].weight.device) for name, width in widths.items()}
    with watched(own) as seen:
        for batch in batches:
            seen.clear()  # a layer that this batch does not reach must not count the last one again
            with taps(module, block, stop=True):
                unwrapped(module)(input_ids=batch.ids, use_cache=False)
            for name, (given, _) in seen.items():
                inputs = given.flatten(0, -2).to(found[name])
                found[name].addmm_(inputs.T, inputs, alpha=2)
    return found


def _batches(encoder: TextEncoder, rows: Split, device: torch.device) -> list[Batch]:
    """Rows of one length stand together, so that there is no padding."""
    encoded = encoder.encode(rows)
    same = [np.flatnonzero(encoded.lengths == length) for length in np.unique(encoded.lengths)]
    groups = [index[part] for index in same for part in by_length(encoded.lengths[index], BUDGET)]
    return [collate(encoded, group, encoder.pad, device) for group in groups]
