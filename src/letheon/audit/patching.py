"""Where was it cut off? Inner states of the original put into this model block by block, and back.

The same rows with their true answers run through both models. In a second pass the output of block l of one model is replaced, at all
tokens, by what the other model has there; the blocks above go on from it.

    P(l)    probability of the true answer (geometric mean over its tokens) with block l patched; mean over rows
    patched          mean over all blocks but the last of P(l), states of the original inside this model
    patched-back     the same, states of this model inside the original: what the original's upper blocks still find in them

Patched into itself a model keeps its probability. States of early blocks hold little but the question, so the host's blocks above do the
work; states of late blocks bring the donor's knowledge with them. So both are a diagnosis of where and no witness of what is left: a model
whose change sits in few blocks is like the original on one side of them, and the curve in `extra` jumps there. Blocks of models that were
trained apart do not understand each other, and both values are low. `extra` also has the probability unpatched and that of the original.

Both models must have the same architecture and tokens. Without an original the retrained model takes its place; this says where the two
differ, not what returns. Reconstruction: patching whole residual streams is a plain form of the activation patching that the literature on
editing and unlearning uses (arXiv:2202.05262, arXiv:2406.11614). Card: relearning-and-extraction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from letheon.core.data import Data, Split
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.core.subject import Subject
from letheon.erase._tracing import probability, replaced
from letheon.train.taps import block_names, taps, unwrapped

from ._inside import NO_ORIGINAL, batches, reading, unlike
from ._parts import ProbeSettings, nothing, over_splits, row_finding

if TYPE_CHECKING:
    from letheon.core.readings import Readings

NAMES = ("patched", "patched-back")


class PatchingSettings(ProbeSettings):
    """Which rows."""

    splits: tuple[str, ...] = Field(("forget",), min_length=1, description="splits whose true answers are read")
    limit: int | None = Field(200, ge=1, description="rows per split, the first ones in their order; None: all")


class Patching(Audit):
    """Activation patching between a model and its original."""

    Settings, tiny = PatchingSettings, {"limit": 4}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """Two findings per split, or findings without a value and the reason."""
        other = original or reference
        note = NO_ORIGINAL if other is None else unlike(readings.subject, other.subject)
        stands_in = "" if original else f"{NO_ORIGINAL}: the retrained model takes its place"

        def one(where: str, split: Split) -> list[Finding]:
            if note or other is None:
                return [nothing(self, name, note, where, "none") for name in NAMES]
            ends = [float(np.exp(-model.answers(split).nll()).mean()) for model in (readings, other)]
            found = []
            for name, host, donor in ((NAMES[0], readings, other), (NAMES[1], other, readings)):
                values = patched(host, donor, split)
                curve = values.mean(1)
                extra = {"curve": curve.tolist(), "unpatched": ends[0], "original": ends[1]}
                means = values[: max(1, len(values) - 1)].mean(0)
                found.append(row_finding(self, name, where, means, run, direction="none", note=stands_in, **extra))
            return found

        return over_splits(self, data, NAMES, one)


def patched(host: Readings, donor: Readings, split: Split) -> np.ndarray:
    """Probabilities (blocks, n) of true answers by `host` when the output of one block is that of `donor`."""
    return host.numbers("patched", split, lambda: _patched(host.subject, donor.subject, split), donor=donor.digest)


def _patched(host: Subject, donor: Subject, split: Split) -> np.ndarray:
    blocks, theirs, encoded = block_names(host.module), block_names(donor.module), host.encoder.encode(split)
    out = np.zeros((len(blocks), len(split)))
    with reading(host) as inner, reading(donor):
        for batch in batches(host, encoded):
            with taps(donor.module, *theirs, stop=True) as seen:
                unwrapped(donor.module)(input_ids=batch.ids.to(donor.device), use_cache=False)
            for k, (block, name) in enumerate(zip(blocks, theirs, strict=True)):
                with replaced({inner.get_submodule(block): lambda out, name=name: seen[name].to(out)}):
                    out[k, batch.rows.cpu().numpy()] = probability(host.module, batch).cpu().numpy()
    return out
