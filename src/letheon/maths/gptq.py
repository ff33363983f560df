"""GPTQ: rounding one column at a time, the columns after it taking up the error in what the layer puts out.

    min over Q of ||X W^T - X Q^T||^2,   H = 2 X^T X + damping * mean(diag(2 X^T X)) I,   H^-1 = U^T U with U upper triangular
    for column j in order:   q_j = Q(w_j),   w_k <- w_k - (w_j - q_j) U_jk / U_jj   for all k > j

Q is the grid of `maths/quantise.py`. The step of a group is set when its first column is reached, from the weights as they are then, so a
weight may later be pushed beyond the largest code: codes are held within -2^(bits - 1)..2^(bits - 1). With a diagonal H nothing is passed
on and the result is `rounded`, to the bit. Columns are taken in their own order; the columns after a group are changed once per group
instead of once per column, which is the same sum. arXiv:2210.17323.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .quantise import scales


def shares(hessian: Tensor, damping: float = 0.01) -> Tensor:
    """What the error of column j does to column k: U_jk / U_jj, (i, i) in float64, upper triangular with ones on the diagonal.

    Args:
        hessian: 2 X^T X, (i, i); zeros where nothing is known of the inputs.
        damping: added to the diagonal, in units of its mean.
    """
    whole = hessian.to(torch.float64, copy=True)
    mean = whole.diagonal().mean()
    whole.diagonal().add_(torch.where(mean > 0, damping * mean, 1.0))
    root = torch.linalg.cholesky(whole.flip(0, 1)).flip(0, 1)  # H = R R^T with R upper triangular, so U = R^-1
    upper = torch.linalg.solve_triangular(root, torch.eye(len(whole)).to(whole), upper=True)
    return upper / upper.diagonal()[:, None]


def gptq(weight: Tensor, hessian: Tensor, bits: int, group: int = 64, damping: float = 0.01) -> Tensor:
    """The weight (o, i) as its quantised copy stands for it, in its own number format.

    Args:
        weight: a matrix; a group runs along its second dimension.
        hessian: 2 X^T X over inputs X (n, i) of the layer.
        bits: 2 to 16.
        group: weights that share a step size.
        damping: added to the diagonal of the hessian, in units of its mean.
    """
    share, work = shares(hessian, damping).float(), weight.detach().to(torch.float32, copy=True)
    for first in range(0, work.shape[1], group):
        part, later = work[:, first : first + group], work[:, first + group :]
        own, beyond = share[first : first + group].tensor_split([first, first + part.shape[1]], 1)[1:]
        step, errors = scales(part, bits, group)[:, 0], torch.empty_like(part)
        safe = step.where(step > 0, torch.ones_like(step))
        for j in range(part.shape[1]):
            codes = (part[:, j] / safe).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1))
            coarse = (codes * step).to(weight.dtype).float()
            errors[:, j] = part[:, j] - coarse
            part[:, j:] -= errors[:, j, None] * own[j, j:]
            part[:, j] = coarse
        later -= errors @ beyond
    return work.to(weight.dtype)
