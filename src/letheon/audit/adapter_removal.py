"""What returns when the adapter is switched off, or weights go part of the way back?

An adapter that forgets is a layer of paint: who removes it has the base. Without an adapter, a public sibling of the model allows the same
in part: f_u the weights of this model, f_o those of the original.

    adapters         adapted layers that the model carries (a fact; 0: there is nothing to switch off)
    adapter-off      as `probability` (the plain one), with all adapters switched off
    interpolated     the same for f_u + amount (f_o - f_u), all weights together, at `amount`; `extra` has the curve over `amounts`
    block-restored   max over blocks of the same with one block's weights set back to the original's, all others left

An amount of 0 is the model itself and 1 the original. adapter-off is an attack: who has the files has the base. The other two are a
diagnosis of how near the original is and where the change sits: with the original at hand nothing has to be brought back, and a model near
it comes back part of the way whatever it has forgotten. Adapters are merged before weights are compared. arXiv:2409.18025 (its D6 moves
toward a public sibling).
Card: relearning-and-extraction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch

from letheon.core.adapter import is_adapted
from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run, kept_as_found
from letheon.core.settings import Field
from letheon.core.subject import Subject
from letheon.train.taps import block_names

from ._inside import NO_ORIGINAL, answer_nll, merged, unlike
from ._parts import ProbeSettings, finding, nothing, over_splits, row_finding, toward

if TYPE_CHECKING:
    from letheon.core.readings import Readings

NAMES = ("adapter-off", "interpolated", "block-restored")


class AdapterRemovalSettings(ProbeSettings):
    """How far back."""

    splits: tuple[str, ...] = Field(("forget",), min_length=1, description="splits whose true answers are scored")
    limit: int | None = Field(200, ge=1, description="rows per split, the first ones in their order; None: all")
    amount: float = Field(0.5, ge=0, le=1, description="share of the way to the original at which `interpolated` is taken")
    amounts: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field((0.25, 0.5, 0.75), description="further shares for the curve")


class AdapterRemoval(Audit):
    """Adapters off, weights part of the way back."""

    Settings, tiny = AdapterRemovalSettings, {"limit": 4, "amounts": [0.5]}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """The number of adapted layers, and three findings per split; what cannot be measured says why."""
        subject = readings.subject
        count = adapted_layers(subject)
        bare = type(readings)(switched_off(subject), run) if is_adapted(subject.module) else None
        note = NO_ORIGINAL if original is None else unlike(subject, original.subject)

        def one(where: str, split: Split) -> list[Finding]:
            before = float(np.exp(-readings.answers(split).nll()).mean())
            found = [nothing(self, NAMES[0], "the model has no adapter to switch off", where)]
            if bare is not None:
                values = np.exp(-bare.answers(split.bare).nll())
                found = [row_finding(self, NAMES[0], where, values, run, direction=toward(where), before=before)]
            if note or original is None:
                return found + [nothing(self, name, note, where, "none") for name in NAMES[1:]]
            return found + self._restored(readings, original, where, split, before, run)

        own = finding(self, "adapters", "", float(count), n=1, direction="none")
        return [own, *over_splits(self, data, NAMES, one)]

    def _restored(self, readings: Readings, original: Readings, where: str, split: Split, before: float, run: Run) -> list[Finding]:
        amounts = tuple(sorted({*self.settings.amounts, self.settings.amount}))

        def measured() -> np.ndarray:
            return restored(readings.subject, original.subject, split, amounts)

        values = readings.numbers("restored", split, measured, original=original.digest, amounts=amounts)
        curve = {f"{amount:g}": float(row.mean()) for amount, row in zip(amounts, values, strict=False)}
        blocks = values[len(amounts) :]
        best = int(blocks.mean(1).argmax())
        known = {"before": before, "original": float(np.exp(-original.answers(split).nll()).mean())}
        halfway = values[amounts.index(self.settings.amount)]
        amount = {"amount": self.settings.amount, "curve": curve}
        return [
            row_finding(self, NAMES[1], where, halfway, run, direction="none", **amount, **known),
            row_finding(self, NAMES[2], where, blocks[best], run, direction="none", block=best, curve=blocks.mean(1).tolist(), **known),
        ]


def adapted_layers(subject: Subject) -> int:
    """How many layers carry an adapter."""
    return sum(hasattr(part, "base_layer") for part in subject.module.modules()) if is_adapted(subject.module) else 0


def switched_off(subject: Subject) -> Subject:
    """A copy without its adapters: the base alone."""
    with kept_as_found(subject.module):
        copy = Subject(subject.module, subject.encoder, subject.lineage, subject.name).fork()
    return Subject(copy.module.unload(), subject.encoder, subject.lineage, f"{subject.name}, adapter off")


@torch.no_grad()
def restored(subject: Subject, original: Subject, split: Split, amounts: tuple[float, ...]) -> np.ndarray:
    """Probabilities (amounts + blocks, n) of true answers with all weights moved by an amount, then with one block at a time set back."""
    copy, encoded = merged(subject), subject.encoder.encode(split)
    now = dict(copy.module.named_parameters())
    then = {name: weight.detach().to(now[name]) for name, weight in merged(original).module.named_parameters()}
    start = {name: weight.detach().clone() for name, weight in now.items()}
    out = []
    for amount in amounts:
        for name, weight in now.items():
            weight.copy_(torch.lerp(start[name], then[name], amount))
        out.append(np.exp(-answer_nll(copy, encoded)))
    for block in block_names(copy.module):
        for name, weight in now.items():
            weight.copy_(then[name] if name.startswith(f"{block}.") else start[name])
        out.append(np.exp(-answer_nll(copy, encoded)))
    return np.stack(out)
