"""Does it come back when the weights are rounded, as before deployment?

Erasing that moves every weight a little can be undone by what everybody does before deployment: where the original and the changed weight
round to the same code, the deployed model is the original one. All weight matrices of the blocks are rounded in groups of `group` inputs,
stacked experts one by one (to nearest under GPTQ too); embeddings, norms and the output head stay. There is no value where too many weights
would stay as they are: experts that do not say which of their dimensions is the input. No training is needed, and no data but for GPTQ,
which sees the first `calibration` rows of `retain` (else `retain-check`).

    probability-int8, -int4, -nf4   as `probability` (the plain one), of the rounded model; any intN from 2 to 16
    probability-gptq4, -gptq8       the same with GPTQ: later columns of a weight take up the rounding error of earlier ones
    recovery-int8, ...              R = (m(Q(u)) - m(u)) / max(m(Q(o)) - m(u), eps) of the forget split: 0 nothing returns, 1 all of it

m is the probability, u the audited model, o the original. Read the forget split against the rounded original and the rounded retrain; the
other splits say what rounding alone does. `bnb-nf4`, `bnb-fp4` (bitsandbytes) and `torchao-int8` round by these libraries where they are
installed. `extra` holds the value before rounding. arXiv:2410.16454; GPTQ: arXiv:2210.17323. Card: quantization-attack.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from letheon.core.data import Data, Split
from letheon.core.errors import DataError
from letheon.core.findings import Finding
from letheon.core.forward import unwrapped
from letheon.core.method import Audit
from letheon.core.run import Run, kept_as_found
from letheon.core.settings import Field
from letheon.core.shards import Shards
from letheon.core.subject import Subject
from letheon.erase._linears import linear_layers
from letheon.maths.quantise import normal_float, rounded

from ._gptq import calibration_rows, round_blocks, why_not
from ._parts import ProbeSettings, finding, missing, nothing, over_splits, row_finding, toward

if TYPE_CHECKING:
    from letheon.core.readings import Readings

Scheme = Annotated[str, Field(pattern=r"^(int([2-9]|1[0-6])|gptq[48]|nf4|bnb-nf4|bnb-fp4|torchao-int8)$")]
LEAST = 1e-6  # room below which there is nothing to recover
WHOLE = 0.1  # share of the matrices that may stay as they are
BROKEN = 0.9  # share of the rounded original's value on rows to keep, below which rounding itself has done the damage


class QuantisedSettings(ProbeSettings):
    """How coarse."""

    schemes: tuple[Scheme, ...] = Field(("int8", "int4", "nf4"), min_length=1, description="ways to round, one probe each")
    group: int = Field(64, ge=1, description="input weights that share a step size")
    calibration: int = Field(64, ge=1, description="rows to keep that GPTQ takes the inputs of each layer from")


class Quantised(Audit):
    """Probability after rounding the weights."""

    Settings, tiny = QuantisedSettings, {"limit": 4, "group": 8, "calibration": 4, "schemes": ["int4", "nf4", "gptq4"]}
    version = "3"

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """For each scheme a probability on every split, and the recovery on the forget split."""
        found, rows, whole = [], calibration_rows(data, self.settings.calibration), left_whole(readings.subject.module)
        stays = f"{whole:.0%} of the matrices of the model have a form that cannot be rounded" if whole > WHOLE else ""

        @functools.cache
        def coarse(scheme: str, model: Readings) -> Readings:
            subject = quantised(model.subject, scheme, self.settings.group, rows)
            return type(readings)(subject, run, tokens_per_batch=readings.tokens_per_batch)

        def mean(model: Readings, split: Split) -> float:
            return float(np.exp(-model.answers(split).nll()).mean())

        for scheme in self.settings.schemes:
            name = f"probability-{scheme}"
            absent = stays or (why_not(readings.subject.module, rows) if scheme.startswith("gptq") else _absent(scheme))
            learned = f"{len(rows)} rows of {rows.name}" if scheme.startswith("gptq") and rows is not None else None

            def one(where: str, split: Split, name=name, scheme=scheme, absent=absent, learned=learned) -> list[Finding]:
                if absent:
                    return [nothing(self, name, absent, where)]
                values = np.exp(-coarse(scheme, readings).answers(split.bare).nll())
                extra = {"scheme": scheme, "before_rounding": mean(readings, split), "calibrated_on": learned}
                return [row_finding(self, name, where, values, run, direction=toward(where), why="no answer token to score", **extra)]

            probabilities = over_splits(self, data, [name], one)
            found += [*probabilities, self._recovery(scheme, probabilities, data, readings, original, absent, coarse, mean)]
        return found

    def _recovery(
        self,
        scheme: str,
        probabilities: list[Finding],
        data: Data,
        readings: Readings,
        original: Readings | None,
        absent: str,
        coarse: Callable[[str, Readings], Readings],
        mean: Callable[[Readings, Split], float],
    ) -> Finding:
        """How much of what the rounded original knows the rounding brings back."""
        name = f"recovery-{scheme}"
        forget = next((one for one in probabilities if one.split == "forget" and one.value is not None), None)
        if absent or original is None or original is readings or forget is None:
            unknown = "there is no model from before the change" if original is None else "the audited model is the original"
            return nothing(self, name, absent or missing(data, "forget") or unknown, "forget", "lower")
        rows = data["forget"][: forget.n]
        plain, whole = forget.extra["before_rounding"], mean(coarse(scheme, original), rows.bare)
        if whole - plain < LEAST:
            return nothing(self, name, "the rounded original knows the rows no better than the audited model", "forget", "lower")
        value = (forget.value - plain) / (whole - plain)
        kept = {one.split: one for one in probabilities if not one.split.startswith(("forget", "holdout")) and one.value is not None}
        worst = min((one.value / mean(coarse(scheme, original), data[where][: one.n].bare) for where, one in kept.items()), default=None)
        note = "inconclusive: the rounded model lost more than a tenth on rows to keep" if worst is not None and worst < BROKEN else ""
        extra = {"plain": plain, "rounded": forget.value, "rounded_original": whole, "kept": worst}
        return finding(self, name, "forget", value, n=forget.n, direction="lower", note=note, extra=extra)


def _absent(scheme: str) -> str:
    """Why a library's scheme cannot run here, or an empty text."""
    from importlib.util import find_spec

    package = {"bnb": "bitsandbytes", "torchao": "torchao"}.get(scheme.split("-")[0])
    return f"the package {package} is not installed" if package and find_spec(package) is None else ""


def _rounding(scheme: str, group: int) -> Callable[[Tensor], Tensor]:
    """What a scheme makes of a weight (o, i)."""
    if scheme.startswith(("int", "gptq")):
        return functools.partial(rounded, bits=int(scheme.removeprefix("int").removeprefix("gptq")), group=group)
    if scheme == "nf4":
        return functools.partial(normal_float, group=group)
    if scheme.startswith("bnb"):
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        def by_bnb(weight: Tensor) -> Tensor:
            return dequantize_4bit(*quantize_4bit(weight.contiguous(), quant_type=scheme[4:])).to(weight.dtype)

        return by_bnb

    def by_torchao(weight: Tensor) -> Tensor:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        layer = torch.nn.Sequential(torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype))
        layer[0].weight.copy_(weight)
        quantize_(layer, Int8WeightOnlyConfig())
        return layer[0].weight.dequantize().to(weight.dtype)

    return by_torchao


@torch.no_grad()
def quantised(subject: Subject, scheme: str, group: int = 64, calibration: Split | None = None) -> Subject:
    """A copy with rounded weight matrices; adapters are merged first, or the attack would miss them.

    Args:
        subject: the model, left as it is.
        scheme: one of the names in the setting `schemes`.
        group: input weights that share a step size.
        calibration: rows that GPTQ takes the inputs of each layer from; the other schemes need none.

    Raises:
        DataError: GPTQ has no rows, or one that is longer than the context.
        SubjectError: GPTQ finds no blocks of ordinary linear layers, or inputs that are not finite.
    """
    by_columns = scheme.startswith("gptq")
    if by_columns and not calibration:
        raise DataError(f"`{scheme}` needs rows to calibrate on", "Give rows that are not about what was forgotten")
    with kept_as_found(subject.module):
        copy = Subject(subject.module, subject.encoder, subject.lineage, subject.name).fork()
    module = copy.module.merge_and_unload() if hasattr(copy.module, "merge_and_unload") else copy.module
    coarse, later = _rounding(scheme, group), set(linear_layers(module, "all").values()) if by_columns else ()
    for weight in _matrices(module, later):
        weight.copy_(coarse(weight))
    if by_columns:
        round_blocks(module, subject.encoder, calibration, int(scheme[4:]), group)
    return Subject(module, subject.encoder, subject.lineage, f"{subject.name}, {scheme}")


def left_whole(module: nn.Module) -> float:
    """The share of the entries of all matrices, embeddings and head apart, that no scheme rounds."""
    others = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ParameterDict)  # no matrices, and adapters of embeddings, which are merged
    named = [pair for part in _inside(module) if not isinstance(part, others) for pair in part.named_parameters(recurse=False)]
    sizes = [w.numel() for name, w in named if w.ndim in (2, 3) and w.is_floating_point() and min(w.shape[-2:]) > 1 and "bias" not in name]
    return max(0.0, 1 - sum(weight.numel() for weight in _matrices(module)) / sum(sizes)) if sizes else 0.0


def _inside(module: nn.Module) -> list[nn.Module]:
    """All parts of a model but embeddings and output heads."""
    inner = unwrapped(module)
    models: Any = inner.models if isinstance(inner, Shards) else [inner]
    heads = {model.get_output_embeddings() for model in models}
    return [part for part in inner.modules() if part not in heads and not isinstance(part, nn.Embedding)]


def _matrices(module: nn.Module, without: Collection[nn.Module] = ()) -> Iterator[Tensor]:
    """The weights that are rounded, each as (o, i) in the memory of the model; of stacked experts one after another."""
    for part in _inside(module):
        weight, turned = getattr(part, "weight", None), getattr(part, "is_transposed", None)
        if part not in without and isinstance(weight, Tensor) and weight.ndim == 2 and weight.is_floating_point():
            yield weight.detach().t() if type(part).__name__ == "Conv1D" else weight.detach()  # the inputs of Conv1D come first
        for stack in part.parameters(recurse=False) if turned is not None else ():  # transformers says it of all experts it can exchange
            if stack.ndim == 3 and stack.is_floating_point():
                yield from (one.t() if turned else one for one in stack.detach())
