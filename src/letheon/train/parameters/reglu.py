"""Adapters that start where forget rows vary and retain rows do not, and keep off retain directions.

One weight serves many facts, so importance per weight cannot tell them apart; directions of what a layer puts out can. Per adapted layer:

    C_f = H_f' H_f / n + ridge I, C_r alike          H: outputs summed over the tokens of a row, (n, out), float64, not centred
    Q = top r eigenvectors of (1 - beta) C_f - beta C_r           Q_r = top k eigenvectors of C_r
    B = Q, A = Q' W, W <- W - s B A                               s = alpha / rank: the function at the start is the incoming one
    L = ... + weight * sum_layers |B' Q_r|_F^2                    a plain sum, once per optimiser step

With s = 1 what stays in the weight is orthogonal to B; with s = 2 it is reflected, B' W <- -B' W. The penalty is 0 iff B is orthogonal to
all retain directions, r where B lies among them, and has no gradient on A. It grows with the number of layers, so `weight` does not carry
over between models. Padding is not summed, unlike in the authors' code. k = out would be weight decay on B: unset, k is at most a quarter
of the outputs. With `beta` below one half the mean output, the largest eigenvector of both, can enter Q. The authors use rank 32 and
`beta` 0.7 with `inverted-hinge` on TOFU, 0.5 with `grad-ascent` on WMDP. arXiv:2604.17396. Card: reglu.
"""

from __future__ import annotations

import torch
from torch import Tensor

from letheon.core import processes
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.core.subject import Subject
from letheon.train.feed import Feed
from letheon.train.parts import ParameterSpace, Term
from letheon.train.taps import taps

from ._adapters import NAME, AdapterSettings, handed_out, layers, matrix, opened, targets_of

MOST = 128  # retain directions per layer, where the setting is unset


class ReGLUSettings(AdapterSettings):
    """The authors' recipe for TOFU."""

    rank: int = Field(32, ge=1, description="columns of the thin matrices; less where a layer has fewer outputs")
    alpha: float = Field(64.0, gt=0, description="the adapter is scaled by alpha / rank")
    beta: float = Field(0.7, ge=0, le=1, description="how much the retain outputs count against the forget outputs")
    samples: int = Field(256, ge=1, description="rows of each split whose outputs are measured, at most")
    ridge: float = Field(1e-4, ge=0, description="added to the diagonal of both second moments")
    weight: float = Field(0.5, ge=0, description="factor of the orthogonality term")
    retain_rank: int | None = Field(
        None, ge=1, description="retain directions that B is kept out of; unset: 128, but at most a quarter of a layer's outputs"
    )


class ReGLU(ParameterSpace):
    """Adapters in the forget subspace of each layer's outputs."""

    Settings, tiny, splits = ReGLUSettings, {"rank": 2, "alpha": 4.0}, ("forget", "retain")

    def __init__(self, /, **values: object):
        super().__init__(**values)
        self.found: dict[str, tuple[Tensor, Tensor]] = {}
        self.held: dict[str, Tensor] = {}

    def start(self, subject: Subject, feed: Feed, run: Run, slope: object = None) -> None:
        """Find the forget and the retain subspace of every layer.

        Raises:
            DataError: there is no `forget` or no `retain` split.
            MethodError: there is nothing to adapt.
        """
        settings, parts = self.settings, targets_of(subject, self.settings, run)
        outputs = {split: summed_outputs(subject, feed, split, list(parts), settings.samples, run) for split in self.splits}
        self.found, self.held = {}, {}
        for name, part in parts.items():
            forget, retain = (second_moment(outputs[split].pop(name)) for split in self.splits)
            out = len(forget)
            most = min(MOST, max(1, out // 4)) if settings.retain_rank is None else min(settings.retain_rank, out)
            q, self.held[name] = subspaces(forget, retain, min(settings.rank, out), most, settings.beta, settings.ridge)
            weight = matrix(part).detach()
            self.found[name] = (q.to(weight), (q.T @ weight.double()).to(weight))

    def derived(self) -> dict[str, Tensor]:
        """The start, which decides the frozen weights, and the retain directions."""
        start = {f"{name}/{which}": tensor for name, both in self.found.items() for which, tensor in zip("BA", both, strict=True)}
        return start | {f"{name}/retain": tensor for name, tensor in self.held.items()}

    def open(self, subject: Subject, run: Run) -> Subject:
        """Wrap the module and move the start from the weights into the adapters; only these require a gradient."""
        after = opened(subject, self.settings, run, "reglu", self.found)
        for name, layer in layers(after.module):
            self.held[name] = self.held[name].to(layer.lora_B[NAME].weight)
        return after

    def terms(self, subject: Subject) -> dict[str, Term]:
        """The leak of all layers into their retain directions."""
        total = sum(leak(layer.lora_B[NAME].weight, self.held[name]) for name, layer in layers(subject.module))
        return {"orthogonality": Term(torch.as_tensor(total), per="step", weight=self.settings.weight)}

    def close(self, subject: Subject, run: Run) -> Subject:
        """Merge the adapters into the weights, or keep them, with the changed weights as their base."""
        return handed_out(subject, self.settings)


def leak(b: Tensor, held: Tensor) -> Tensor:
    """|B' Q_r|_F^2 of B (out, r) and Q_r (out, k)."""
    return (b.T @ held).square().sum()


@torch.no_grad()
def summed_outputs(subject: Subject, feed: Feed, split: str, names: list[str], samples: int, run: Run) -> dict[str, Tensor]:
    """H of random rows of a split, (n, out) float64, by name of the layer: its output summed over the tokens of a row."""
    rows = torch.randperm(len(feed.encoded[split]), generator=run.rng("reglu", split))[:samples].numpy()
    outs = {name: len(matrix(subject.module.get_submodule(name))) for name in names}
    found = {name: torch.zeros(len(rows), out, dtype=torch.float64, device=feed.device) for name, out in outs.items()}
    place = torch.zeros(len(feed.encoded[split]), dtype=torch.long)
    place[rows] = torch.arange(len(rows))
    with processes.agreed():
        for batch in feed.sweep(split, rows, shared=True):
            real = (torch.arange(batch.ids.shape[1], device=batch.ids.device) < batch.lengths[:, None])[..., None]  # (b, t, 1)
            with taps(subject.module, *names, stop=True) as seen, run.autocast():
                subject.module(input_ids=batch.ids, use_cache=False)
            for name in names:
                h = (seen[name].reshape(*batch.ids.shape, -1) * real).double().sum(1)  # (b, out)
                found[name][place[batch.rows.cpu()].to(feed.device)] = h
    processes.summed(list(found.values()))
    return found


def second_moment(h: Tensor) -> Tensor:
    """H' H / n of H (n, out)."""
    return h.T @ h / len(h)


def subspaces(forget: Tensor, retain: Tensor, rank: int, retain_rank: int, beta: float, ridge: float) -> tuple[Tensor, Tensor]:
    """Q (out, rank) and Q_r (out, retain_rank), orthonormal columns, from two second moments (out, out)."""
    eye = ridge * torch.eye(len(forget), dtype=forget.dtype, device=forget.device)
    _, vectors = torch.linalg.eigh((1 - beta) * (forget + eye) - beta * (retain + eye))  # eigenvalues ascend
    _, known = torch.linalg.eigh(retain + eye)
    return vectors[:, -rank:].flip(1), known[:, -retain_rank:].flip(1)
