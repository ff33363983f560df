"""Adapters that start on the weight directions that the forget rows use and the retain rows do not.

Adapters that start at zero have far to go before they undo anything. Here the part of each matrix that matters to the forget rows moves
from the frozen weight into the adapter, where it can be trained away; the function at the start is that of the incoming model.

    F = sum_b n_b g_b^2 / sum_b n_b             g_b: gradient of the token-mean nll of a batch with n_b answer tokens, element-wise
    R = F_forget / (floor + F_retain)           d_i = sqrt(sum_j R_ij), i: output row; D = diag(d)
    U S V' ~ D W, rank r                        A = diag(S / s)^(1/2) V'     B = D^-1 U diag(S / s)^(1/2)     W <- W - s B A

s = alpha / rank. s B A is the best approximation of W of rank r in the norm |D .|: what is left of D W has its smaller singular values.
Where d is constant this is the plain truncated SVD. B is made as W V (s S)^(-1/2), which is the same and does not divide by a small d; a
row with d = 0 keeps its weights and has B = 0. F is taken per batch, so it depends on `batch_size` and stands for the Fisher information
only roughly; it takes one pass over all forget rows and as many random retain rows.

The scale of d leaves B A alone but makes A larger and B smaller, and so changes training; it is that of the losses, which is arbitrary.
Here d has mean 1 unless `normalise` is off; the published code takes it as it comes. With `inverted-hinge` this is LoKU.
arXiv:2408.06621. Card: loku.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from letheon.core import processes
from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.core.subject import Subject
from letheon.train.feed import Feed
from letheon.train.parts import ParameterSpace

from ._adapters import AdapterSettings, handed_out, is_transposed, matrix, opened, targets_of

OVERSAMPLED = 16  # columns of the randomised SVD beyond the rank
EPSILON = 1e-5  # a row whose weight is below this share of the mean hardly enters the adapter


class FILASettings(AdapterSettings):
    """The authors' recipe: alpha twice the rank."""

    batch_size: int = Field(2, ge=1, description="rows whose gradient is squared as one")
    floor: float = Field(1e-5, gt=0, description="added to the retain importance, so that a small one does not count too much")
    normalise: bool = Field(True, description="divide the row weights d by their mean")
    iterations: int = Field(4, ge=2, le=64, description="power iterations of the randomised SVD")


class FILA(ParameterSpace):
    """Adapters that start where the forget rows are."""

    Settings, tiny, splits = FILASettings, {"rank": 2, "alpha": 4.0}, ("forget", "retain")

    def __init__(self, /, **values: object):
        super().__init__(**values)
        self.found: dict[str, tuple[Tensor, Tensor]] = {}

    def start(self, subject: Subject, feed: Feed, run: Run, slope: object = None) -> None:
        """Weigh the rows of every matrix and cut it up.

        Raises:
            DataError: there is no `forget` or no `retain` split.
            MethodError: there is nothing to adapt.
        """
        settings, parts = self.settings, targets_of(subject, self.settings, run)
        forget, retain = self.importances(subject, parts, feed, run)
        self.found = {}
        for name, part in parts.items():
            weights = row_weights(forget.pop(name), retain.pop(name), settings.floor, settings.normalise)
            scale, seed = settings.alpha / settings.rank, run.derived_seed("fila", name)
            self.found[name] = weighted_start(matrix(part), weights, settings.rank, scale, settings.iterations, seed)

    def importances(
        self, subject: Subject, parts: Mapping[str, Any], feed: Feed, run: Run
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """F of the forget and of the retain rows, each (out, in), by name of the layers `parts`."""
        subject.module.requires_grad_(False)
        for part in parts.values():
            part.weight.requires_grad_(True)
        n, size = len(feed.encoded["forget"]), len(feed.encoded["retain"])
        order = {"forget": torch.randperm(n, generator=run.rng("fila", "forget"))}
        passes = [torch.randperm(size, generator=run.rng("fila", "retain", k)) for k in range(-(-n // size))]
        order["retain"] = torch.cat(passes)[:n]
        found = {}
        for split, rows in order.items():
            found[split] = {name: torch.zeros_like(part.weight, dtype=torch.float32) for name, part in parts.items()}
            total = 0
            with processes.agreed() as here:
                for batch in (feed.batch(split, some.tolist()) for some in processes.share(rows.split(self.settings.batch_size))):
                    with run.autocast(lifted=False):
                        nll = Batches({split: batch}).nll(subject.module, split).values
                    gradients = torch.autograd.grad(nll.mean(), [part.weight for part in parts.values()])
                    for name, gradient in zip(parts, gradients, strict=True):
                        found[split][name] += len(nll) * gradient.float() ** 2
                    total += len(nll)
                here.value = total
            total = sum(here.all)
            processes.summed(list(found[split].values()))
            for name, part in parts.items():
                found[split][name] = (found[split][name].T if is_transposed(part) else found[split][name]) / total
        return found["forget"], found["retain"]

    def derived(self) -> dict[str, Tensor]:
        """The start, which decides the frozen weights."""
        return {f"{name}/{which}": tensor for name, both in self.found.items() for which, tensor in zip("BA", both, strict=True)}

    def open(self, subject: Subject, run: Run) -> Subject:
        """Wrap the module and move the start from the weights into the adapters; only these require a gradient."""
        return opened(subject, self.settings, run, "fila", self.found)

    def close(self, subject: Subject, run: Run) -> Subject:
        """Merge the adapters into the weights, or keep them, with the changed weights as their base."""
        return handed_out(subject, self.settings)


def row_weights(forget: Tensor, retain: Tensor, floor: float, normalise: bool) -> Tensor:
    """d of every output row, (out,), from two importances (out, in); 1 where the forget rows use none of the matrix."""
    weights = (forget / (floor + retain)).sum(1).sqrt()
    mean = weights.mean()
    if mean == 0:
        return torch.ones_like(weights)
    return weights / mean if normalise else weights


@torch.no_grad()
def weighted_start(weight: Tensor, weights: Tensor, rank: int, scale: float, iterations: int, seed: int) -> tuple[Tensor, Tensor]:
    """B (out, k) and A (k, in), such that scale B A is the best approximation of `weight` (out, in) in rows weighted by `weights` (out,).

    k is `rank`, or less where the matrix is smaller. A small matrix is cut up exactly, a large one by a randomised SVD with that seed.
    """
    w, d = weight.detach().float().cpu(), weights.float().cpu()
    k, width = min(rank, *w.shape), rank + OVERSAMPLED
    if 2 * width >= min(w.shape):
        _, s, vt = torch.linalg.svd(d[:, None] * w, full_matrices=False)
        v = vt.T
    else:
        with torch.random.fork_rng(devices=[]):  # draws from the global generator of the CPU
            torch.manual_seed(seed)
            _, s, v = torch.svd_lowrank(d[:, None] * w, q=width, niter=iterations)
    s, v = s[:k].clamp(min=max(1e-6 * float(s[0]), 1e-30)), v[:, :k]
    b = (d / (d + EPSILON * d.mean()))[:, None] * (w @ v) / (scale * s).sqrt()
    a = (s / scale).sqrt()[:, None] * v.T
    return b.to(weight.device), a.to(weight.device)
