"""The size of each row's own gradient, many rows at once, without a gradient per row ever being stored.

For a linear layer with input a (b, t, i) and output gradient g (b, t, o) the gradient of row r is g_r^T a_r, and its squared norm is

    sum_{s,t} (a_rs . a_rt) (g_rs . g_rt)

so two small tables (t, t) replace a table (o, i) where that is cheaper. An embedding is a linear layer whose inputs are one-hot. A tied
output embedding adds its own part and twice the product of both. Parts with few parameters (norms) go through a vectorised product per
row. The result is compared with plain differentiation of one row; a model that does not agree, for instance because a layer is used twice
or holds parameters of another kind, is differentiated row by row.

    score_r = mean over parameter tensors of || d nll_r / d tensor ||_2        nll_r: mean over the answer tokens of row r
"""

from __future__ import annotations

import logging
import weakref

import numpy as np
import torch
from torch import Tensor, nn

from letheon.maths.likelihood import scored_positions, token_nll

from .batching import WINDOW, Batch, by_length, collate
from .data import Split
from .encode import Encoded
from .errors import SubjectError
from .forward import final_hidden, unwrapped
from .memory import keep_freed_memory
from .products import fast_products
from .rowgrads import NotCoveredError, fast_norms
from .run import kept_as_found
from .subject import Subject

log = logging.getLogger("letheon")
_COVERED: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
TOKENS = {"cpu": 1024}  # tokens of one backward pass at most: activations of all layers are alive together, and fit a CPU's cache


def gradient_norms(
    subject: Subject, split: Split, *, end_token: bool = False, whole: bool = False, tokens_per_batch: int = 2048
) -> np.ndarray:
    """Mean over parameter tensors of the L2 norm of the gradient of each row's mean answer NLL, (n,) float64.

    All parameters count, whether or not they are marked as trainable. The model is in evaluation mode and is left as it was.

    Args:
        subject: a causal language model.
        split: the rows.
        end_token: count the end token among the answer tokens.
        whole: one norm over all parameters together instead of a mean over tensors.
        tokens_per_batch: tokens of one forward and backward pass.

    Raises:
        DataError: a row is longer than the context.
        SubjectError: a gradient is not finite.
    """
    keep_freed_memory()
    module = subject.module
    out, budget = np.zeros(len(split)), min(tokens_per_batch, TOKENS.get(subject.device.type, 4096))
    with kept_as_found(module), torch.autocast(subject.device.type, enabled=False), fast_products(subject.module):
        for first in range(0, len(split), WINDOW):
            encoded = subject.encoder.encode(split[first : first + WINDOW])
            encoded = encoded if end_token else _without_end(encoded)
            for group in by_length(encoded.lengths, budget):
                batch = collate(encoded, group, subject.encoder.pad, subject.device)
                way = fast_norms if _covered(module, batch) else slow_norms
                each = way(module, batch)  # (b, tensors)
                out[first + np.array(group)] = (each.norm(dim=1) if whole else each.mean(1)).double().cpu().numpy()
    if not np.isfinite(out).all():
        why = "Its weights are damaged or training diverged"
        raise SubjectError(f"`{subject.name}` gives a gradient that is not finite on `{split.name}`", why)
    return out


def _without_end(encoded: Encoded) -> Encoded:
    """Rows without their last token, except where nothing would be left to score."""
    rows: list[list[int]] = [encoded.row(i)[: -1 if scored > 1 else None].tolist() for i, scored in enumerate(encoded.scored)]
    return Encoded.from_rows(rows, encoded.starts)


def _covered(module: nn.Module, batch: Batch) -> bool:
    """Whether the fast way agrees with plain differentiation on every parameter, tried once per model on the last row of a batch."""
    inner = unwrapped(module)
    if inner not in _COVERED:
        try:
            found = fast_norms(module, batch)[-1]
            one = Batch(batch.ids[-1:, : int(batch.lengths[-1])], batch.starts[-1:], batch.lengths[-1:], batch.rows[-1:])
            wanted = slow_norms(module, one)[0]
            tolerance = 1e-4 if next(module.parameters()).dtype == torch.float32 else 5e-2
            worst = float(((found - wanted).abs() / (wanted + 1e-3 * wanted.max())).max())
            fine, reason = worst <= tolerance, f"the norm of a parameter is off by {worst:.1e}"
        except (NotCoveredError, RuntimeError, ValueError, TypeError) as error:
            fine, reason = False, str(error)
        if not fine:
            log.info("%s is differentiated row by row: %s", type(inner).__name__, reason)
        _COVERED[inner] = fine
    return _COVERED[inner]


def slow_norms(module: nn.Module, batch: Batch) -> Tensor:
    """Norms (b, number of parameters) by one backward pass per row."""
    parameters = [parameter for parameter in module.parameters() if parameter.is_floating_point()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    out = []
    for k in range(len(batch)):
        length = int(batch.lengths[k])
        with torch.enable_grad():
            states, head = final_hidden(module, batch.ids[k : k + 1, :length])
            _, at = scored_positions(batch.starts[k : k + 1], batch.lengths[k : k + 1])
            nll = token_nll(states[0, at - 1], head, batch.ids[k, at]).mean()
        found = torch.autograd.grad(nll, parameters, allow_unused=True)
        out.append(torch.stack([nll.new_zeros(()) if grad is None else grad.float().norm() for grad in found]))
    return torch.stack(out)
