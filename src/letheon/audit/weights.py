"""Which weights changed, by how much, and would 4-bit rounding undo it? Facts, without a better side.

w a weight tensor of this model, o the same tensor of the original, Q rounding to `bits` bits in groups of `group` inputs.

    weight-distance     ||w - o|| / ||o||, all weights as one vector
    weight-cosine       w . o / (||w|| ||o||)
    weights-changed     share of entries with w != o
    code-collision      share of entries of the blocks' weight matrices with the same code under Q(w) and Q(o)
    quantised-distance  ||Q(w) - Q(o)|| / ||w - o|| over the same matrices: below 1 rounding brings the models together
    blocks-changed      least share of the blocks that holds `mass` of the blocks' squared change

The same of every block, split into attention, feed-forward and norm, and of what lies outside the blocks, stands in `extra` of
weight-distance, and the blocks in order of their distance. A model compared with itself has distance 0, cosine 1, no change and the same
codes. Nearly all codes alike means that rounding gives the original back where the change was to forget (see `quantised`). A large distance
is no proof: weights can move without effect. Adapters are merged first. Without an original the retrained model takes its place, and the
note says so. arXiv:2410.16454. Cards: quantization-attack, conceptvectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from letheon.core.data import Data
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject
from letheon.erase._linears import ATTENTION, is_linear
from letheon.maths.quantise import codes, rounded
from letheon.train.taps import block_names, unwrapped

from ._inside import NO_ORIGINAL, merged, unlike
from ._parts import finding, nothing

if TYPE_CHECKING:
    from letheon.core.readings import Readings

NAMES = ("weight-distance", "weight-cosine", "weights-changed", "code-collision", "quantised-distance", "blocks-changed")


class WeightsSettings(Settings):
    """How coarse the rounding is that codes are compared under, and what counts as most of a change."""

    bits: int = Field(4, ge=2, le=16, description="bits of a code")
    group: int = Field(64, ge=1, description="input weights that share a step size")
    mass: float = Field(0.9, gt=0, le=1, description="share of the squared change that `blocks-changed` accounts for")


@dataclass
class Sums:
    """Sums over entries that distances are made of; sums of parts add up."""

    entries: int = 0
    changed: int = 0
    squared: float = 0.0  # of w - o
    now: float = 0.0  # of w
    then: float = 0.0  # of o
    product: float = 0.0  # of w o
    rounded: int = 0  # entries that have a code
    same: int = 0  # of these with the same code
    gap: float = 0.0  # squared distance of the rounded weights
    moved: float = 0.0  # squared distance of the weights that have a code

    def add(self, other: Sums) -> None:
        """Count another part in."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def facts(self) -> dict[str, float | None]:
        """The measures by name; None where there is nothing to divide by."""

        def root(over: float, under: float) -> float | None:
            return (over / under) ** 0.5 if under else None

        norms = (self.now * self.then) ** 0.5
        return {
            "weight-distance": root(self.squared, self.then),
            "weight-cosine": min(1.0, self.product / norms) if norms else None,
            "weights-changed": self.changed / self.entries if self.entries else None,
            "code-collision": self.same / self.rounded if self.rounded else None,
            "quantised-distance": root(self.gap, self.moved),
        }


class Weights(Audit):
    """Parameter distance, layer by layer."""

    Settings, tiny = WeightsSettings, {"group": 8}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Six facts; without a value where there is nothing to compare with."""
        other = original or reference
        note = NO_ORIGINAL if other is None else unlike(readings.subject, other.subject)
        if note or other is None:
            return [nothing(self, name, note, direction="none") for name in NAMES]
        parts = self.compared(readings.subject, other.subject)
        total, blocks = Sums(), {}
        for (block, _), sums in parts.items():
            total.add(sums)
            if block:
                blocks[block] = blocks.get(block, 0.0) + sums.squared
        table = [
            {"part": block or "outside the blocks", "kind": kind, **sums.facts, "entries": sums.entries}
            for (block, kind), sums in parts.items()
        ]
        order = sorted((block for block in blocks if blocks[block]), key=lambda block: -blocks[block])
        facts: dict[str, float | None] = {**total.facts, "blocks-changed": self._share(sorted(blocks.values(), reverse=True))}
        said = "" if original else f"{NO_ORIGINAL}: the retrained model takes its place"
        more: dict[str, dict[str, Any]] = {
            "weight-distance": {"table": table, "most_changed": order},
            "code-collision": {"bits": self.settings.bits, "group": self.settings.group},
            "blocks-changed": {"most_changed": order, "blocks": len(blocks)},
        }
        why = {"weight-cosine": "a model is all 0"}
        found = []
        for name in NAMES:
            if facts[name] is None:
                found.append(nothing(self, name, why.get(name, "no weight has changed"), direction="none"))
            else:
                found.append(finding(self, name, "", facts[name], n=total.entries, direction="none", note=said, extra=more.get(name, {})))
        return found

    def _share(self, squared: list[float]) -> float | None:
        """The least share of blocks, largest change first, that holds `mass` of the change."""
        whole, held = sum(squared), 0.0
        for k, part in enumerate(squared, 1):
            held += part
            if whole and held >= self.settings.mass * whole * (1 - 1e-12):
                return k / len(squared)
        return None

    @torch.no_grad()
    def compared(self, subject: Subject, original: Subject) -> dict[tuple[str, str], Sums]:
        """Sums by block ("" outside of them) and kind of part, in the order of the network."""
        now, then = merged(subject), dict(merged(original).module.named_parameters())
        found: dict[tuple[str, str], Sums] = {}
        for place, name, weight, owner in _weights(now.module):
            found.setdefault(place, Sums()).add(self._sums(weight, then[name].to(weight.device), owner if place[0] else None))
        return found

    def _sums(self, weight: Tensor, old: Tensor, owner: nn.Module | None) -> Sums:
        w, o = weight.double(), old.double()
        squares = ((x * y).sum() for x, y in ((w - o, w - o), (w, w), (o, o), (w, o)))
        sums = Sums(w.numel(), int((w != o).sum()), *(float(total) for total in squares))
        if owner is not None and is_linear(owner) and weight is owner.weight:
            one, two = (x if type(owner) is nn.Linear else x.T for x in (weight, old))
            bits, group = self.settings.bits, self.settings.group
            filled = -one.shape[1] % group * len(one)  # what a last group is filled up with has equal codes
            sums.rounded = one.numel()
            sums.same = int((codes(one, bits, group) == codes(two, bits, group)).sum()) - filled
            sums.gap = float((rounded(one, bits, group).double() - rounded(two, bits, group).double()).square().sum())
            sums.moved = sums.squared
        return sums


def _weights(module: nn.Module) -> Iterator[tuple[tuple[str, str], str, Tensor, nn.Module]]:
    """Each weight once: (block, kind), name, tensor and the part that holds it."""
    inner, blocks = unwrapped(module), block_names(module)
    for name, weight in inner.named_parameters():
        block = next((block for block in blocks if name.startswith(f"{block}.")), "")
        owner = inner.get_submodule(name.rpartition(".")[0])
        kind = name.rpartition(".")[0] or name
        if block:
            inside = name.removeprefix(f"{block}.")
            flat = weight.ndim < 2 and not is_linear(owner)
            kind = "norm" if flat else "attention" if any(word in inside for word in ATTENTION) else "feed-forward"
        yield (block, kind), name, weight, owner
