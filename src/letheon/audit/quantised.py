"""Does it come back when the weights are rounded to 8 or 4 bits?

Erasing that moves every weight a little can be undone by what everybody does before deployment: where the original and the changed weight
round to the same code, the deployed model is the original one. All weight matrices of the blocks are rounded to the nearest of 2^bits steps
in groups of `group` inputs; embeddings, norms and the output head stay. No data and no training are needed.

    probability-int8, probability-int4      as `probability` (the plain one), of the rounded model

Read the forget split against the rounded original and the rounded retrain; the other splits say what rounding alone does. `extra` holds the
value before rounding. arXiv:2410.16454. Card: quantization-attack.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.forward import unwrapped
from letheon.core.method import Audit
from letheon.core.run import Run, kept_as_found
from letheon.core.settings import Field
from letheon.core.subject import Subject
from letheon.maths.quantise import rounded

from ._parts import ProbeSettings, over_splits, row_finding, toward

if TYPE_CHECKING:
    from letheon.core.readings import Readings


class QuantisedSettings(ProbeSettings):
    """How coarse."""

    bits: tuple[Annotated[int, Field(ge=2, le=16)], ...] = Field((8, 4), min_length=1, description="bits of a weight, one probe each")
    group: int = Field(64, ge=1, description="input weights that share a step size")


class Quantised(Audit):
    """Probability after rounding the weights."""

    Settings, tiny = QuantisedSettings, {"limit": 4, "group": 8}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """One finding for each number of bits and split."""
        found = []

        @functools.cache
        def coarse(bits: int) -> Readings:
            subject = quantised(readings.subject, bits, self.settings.group)
            return type(readings)(subject, run, tokens_per_batch=readings.tokens_per_batch)

        for bits in self.settings.bits:
            name = f"probability-int{bits}"

            def one(where: str, split: Split, name=name, bits=bits) -> list[Finding]:
                values, before = (np.exp(-r.answers(split).nll()) for r in (coarse(bits), readings))
                extra = {"bits": bits, "before_rounding": float(before.mean())}
                return [row_finding(self, name, where, values, run, direction=toward(where), why="no answer token to score", **extra)]

            found += over_splits(self, data, [name], one)
        return found


@torch.no_grad()
def quantised(subject: Subject, bits: int, group: int) -> Subject:
    """A copy with rounded weight matrices; adapters are merged first, or the attack would miss them."""
    with kept_as_found(subject.module):
        copy = Subject(subject.module, subject.encoder, subject.lineage, subject.name).fork()
    module = copy.module.merge_and_unload() if hasattr(copy.module, "merge_and_unload") else copy.module
    head = unwrapped(module).get_output_embeddings()
    for part in unwrapped(module).modules():
        weight = getattr(part, "weight", None)
        if part is head or not isinstance(weight, torch.Tensor) or weight.ndim != 2 or isinstance(part, torch.nn.Embedding):
            continue
        if type(part).__name__ == "Conv1D":  # its inputs are the first dimension
            weight.copy_(rounded(weight.t(), bits, group).t())
        elif weight.is_floating_point():
            weight.copy_(rounded(weight, bits, group))
    return Subject(module, subject.encoder, subject.lineage, f"{subject.name}, {bits} bits")
