"""Delete the weights that alone reproduce what a layer says about the forget rows.

For Lipschitz networks the error of a layer bounds the error of the output, so what reproduces a layer's output on the forget rows best is
what carries them. phi: input of a linear layer, Y_c = sum_i W_ci phi_i, A_ci = W_ci phi_i, E: mean over tokens of the forget rows.

    s_ci = (E<Y_c, A_ci>)^2 / (E|Y_c|^2 E|A_ci|^2) = (W G)_ci^2 / ((W G W^T)_cc G_ii),   G = E[phi phi^T]
    W_ci <- 0 for the share `fraction` of all pairs (c, i) of a layer with the largest s_ci(F) - contrast s_ci(R)

Scores of the forget rows alone (contrast = 0, the paper) also hit weights that serve all rows; in the last blocks the fewest. One forward
sweep, no gradient, nothing is compensated. In an adapter the layer is B with the inputs A x. The down projections of the last `blocks`
blocks are edited, as in the paper's language models. Meant for whole classes: in weights that all facts share, single people do not go
before the rest does (card); in an adapter they do. One value that must hold: s_ci does not change when a row of W is multiplied by a
number.

A reconstruction for language models: the score is the paper's definition, its heuristic for language models stands in an appendix that was
not available, and class unlearning was published for images. arXiv:2511.19566. Card: modhifi.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from letheon.core.adapter import is_adapted
from letheon.core.data import Data, Split
from letheon.core.method import Change
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject
from letheon.maths.fidelity import fidelity
from letheon.train.guarded import unguarded
from letheon.train.taps import block_names

from ._activations import Tokens, adapters, drawn, sweep
from ._linears import check_editable, down_projections, linear_layers, matrix


class ModHiFiUSettings(Settings):
    """Which weights are deleted."""

    where: Literal["auto", "adapters", "linear"] = Field("auto", description="what is edited; auto: the adapter where there is one")
    part: Literal["down", "mlp", "attention", "all"] = Field(
        "down", description="linear layers that are edited where there is no adapter; down: back to the model's width"
    )
    blocks: int = Field(2, ge=1, description="how many blocks, counted back from the last one")
    fraction: float = Field(0.05, gt=0, le=1, description="share of the weights of each layer that are set to 0")
    contrast: float = Field(0.0, ge=0, description="how much of the score on retain rows is subtracted; 0 looks at forget rows only")
    tokens: Tokens = Field("answer", description="tokens that count: all, or where the answer is predicted")
    rows: int = Field(512, ge=1, description="rows of each split that are looked at, at most")


def deleted(weight: Tensor, scores: Tensor, fraction: float) -> Tensor:
    """(o, i), true on the share `fraction` of all pairs with the largest scores, at least one; never on a score of 0 or less."""
    most = max(1, round(fraction * weight.numel()))
    best = scores.flatten().topk(most).indices
    chosen = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    chosen[best] = True
    return chosen.reshape(weight.shape) & (scores > 0)


class ModHiFiU(Change):
    """Deletion of components of high fidelity."""

    Settings, tiny = ModHiFiUSettings, {"rows": 8}

    @torch.no_grad()
    @unguarded
    def apply(self, subject: Subject, data: Data, run: Run) -> Subject:
        """Set weights to zero.

        Raises:
            DataError: no forget rows, or no retain rows where their score is subtracted.
            SubjectError: there is no adapter, or there is one and linear layers are to be edited; or weights are damaged.
        """
        settings = self.settings
        splits = ("forget", "retain") if settings.contrast else ("forget",)
        data.need(*splits, why="`modhifi-u`")
        subject.check_finite()
        adapted = settings.where == "adapters" or (settings.where == "auto" and is_adapted(subject.module))
        if adapted:
            adapters(subject, self.name())
        else:
            check_editable(subject, self.name())
        given, after = subject.digest, subject.fork()
        layers = self._layers(after, adapted)
        grams = [_grams(after, drawn(data[split], settings.rows, run, "modhifi-u"), layers, settings.tokens) for split in splits]
        notes: dict[str, Any] = {"edited": "adapters" if adapted else "linear", "layers": {}}
        for name, part in layers.items():
            weight = matrix(part)
            scores = [fidelity(weight.double(), gram[name]) for gram in grams]
            gone = deleted(weight, scores[0] - (settings.contrast * scores[1] if settings.contrast else 0.0), settings.fraction)
            weight.masked_fill_(gone, 0.0)
            share = float(scores[0][gone].sum() / scores[0].sum().clamp(min=torch.finfo(torch.float64).tiny))
            notes["layers"][name] = {"weights": weight.numel(), "deleted": int(gone.sum()), "fidelity": share}
        return subject.changed(after.module, self, data=data.digest, before=given, seed=run.seed, notes=notes)

    def _layers(self, subject: Subject, adapted: bool) -> dict[str, nn.Module]:
        """The layers that are edited, by name."""
        settings = self.settings
        if adapted:
            found: Mapping[str, nn.Module] = {name: up for name, (_, up, _) in adapters(subject, self.name()).items()}
        elif settings.part == "down":
            found = down_projections(subject.module)
        else:
            found = linear_layers(subject.module, settings.part)
        last = tuple(f"{block}." for block in block_names(subject.module)[-settings.blocks :])
        return {name: part for name, part in found.items() if name.startswith(last)} or dict(found)


def _grams(subject: Subject, split: Split, layers: Mapping[str, nn.Module], tokens: Tokens) -> dict[str, Tensor]:
    """E[phi phi^T] of the input of each layer, (i, i) float64."""
    sums: dict[str, Any] = dict.fromkeys(layers, 0.0)
    count = dict.fromkeys(layers, 0)

    def visit(name: str, given: Tensor, out: Tensor) -> None:
        sums[name] = sums[name] + given.double().T @ given.double()
        count[name] += len(given)

    sweep(subject, split, layers, visit, tokens)
    return {name: sums[name] / max(1, count[name]) for name in layers}
