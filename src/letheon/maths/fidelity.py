"""How well single inputs of a linear layer alone give what the layer puts out: fidelity of components, of subsets, and least squares.

Notation: Y_c = sum_i W_ci phi_i, A_ci = W_ci phi_i, G = E[phi phi^T] (i, i), W (o, i). Biases are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

DEAD = 1e-12  # an output with less than this share of the mean squares of its parts is dead


def fidelity(weight: Tensor, gram: Tensor) -> Tensor:
    """s_ci = <Y_c, A_ci>^2 / (|Y_c|^2 |A_ci|^2) = (W G)_ci^2 / ((W G W^T)_cc G_ii), the squared cosine of part and whole, (o, i) in [0, 1].

    It is 0 where the weight or the input is 0 and for outputs that are dead.
    """
    product = weight @ gram
    whole = (weight * product).sum(-1, keepdim=True)  # (o, 1)
    inputs = gram.diagonal()
    alive = (whole > DEAD * (weight.square() @ inputs)[:, None]) & (inputs > 0) & (weight != 0)
    scores = product.square() / (whole * inputs).clamp(min=torch.finfo(product.dtype).tiny)
    return torch.where(alive, scores.clamp(max=1.0), 0.0)


def _solved(gram: Tensor, right: Tensor, ridge: float) -> Tensor:
    """gram^-1 right, with `ridge` of the mean diagonal added; by the pseudo-inverse where it is 0 and the Gram matrix is singular."""
    if ridge:
        gram = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor, fault = torch.linalg.cholesky_ex(gram)
    return torch.cholesky_solve(right, factor) if not int(fault) else torch.linalg.pinv(gram, hermitian=True) @ right


def subset_fidelity(row: Tensor, gram: Tensor, chosen: Tensor, ridge: float = 0.0) -> tuple[Tensor, Tensor]:
    """The fidelity of the inputs `chosen` (k,) together, and the best factor of each, delta (k,).

        FS = max_delta 1 - E|Y - sum_i delta_i A_i|^2 / E|Y|^2 = b_S^T Q_SS^-1 b_S / 1^T Q 1,   Q = diag(w) G diag(w), b = Q 1
    """
    similar = row[:, None] * gram * row  # (i, i)
    together = similar.sum(1)
    delta = _solved(similar[chosen][:, chosen], together[chosen, None], ridge)[:, 0]
    return (together[chosen] @ delta) / similar.sum(), delta


def refit(weight: Tensor, gram: Tensor, chosen: Tensor, ridge: float = 0.0) -> Tensor:
    """Weights (o, k) on the inputs `chosen` that give the layer's output best: W G[:, S] G[S, S]^-1, one solve for all outputs."""
    return _solved(gram[chosen][:, chosen], gram[chosen] @ weight.T, ridge).T
