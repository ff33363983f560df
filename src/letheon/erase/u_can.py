"""Turn down units of an adapter that fire for forget rows and not for the rest, unless useful.

An adapter has stored what it was trained on; its units serve many rows at once, so cutting them off costs more than turning them down.

    a_j(D) = mean over tokens of |u_j|,   u = s B A x                     what the adapter alone adds to output j
    risk_j = max(0, (a_j(F) - a_j(R)) / (a_j(F) + a_j(R)))                divided by the largest of the layer; 0 where the gap is small
    utility_j = sum_i |(s B A)_ji| sqrt(mean x_i^2 over R)                divided by the largest of the layer
    gamma_j = exp(-steepness max(0, risk_j (1 - fusion utility_j) - threshold)),   B_j <- gamma_j B_j

Two forward sweeps over at most `rows` forget and retain rows, no gradient. With `unit=rank` the units are the r coordinates of A x, and
rows of A are scaled. Without an adapter the same is done to linear layers of the blocks (u = W x + b; rows of W and b are scaled), which
reaches knowledge of the base model too. An adapter edit cannot: what the base knew before the adapter stays. In the lineage, `risk` is
the mean of |a(F) - a(R)| / (a(F) + a(R)) and `noise` the same between as many random retain rows and the others: a risk that is not well
above it picks units at random. One value that must hold: steepness = 0 changes nothing.

A reconstruction: the paper's exact scores were not available, its description and ablations were. arXiv:2602.23400. Card: u-can.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from letheon.core.adapter import is_adapted
from letheon.core.data import Data, Split
from letheon.core.errors import DataError, SettingsError, SubjectError
from letheon.core.method import Change
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject
from letheon.train.guarded import unguarded

from ._activations import Tokens, adapters, drawn, sweep
from ._linears import check_editable, linear_layers, matrix

log = logging.getLogger("letheon")
ROUNDING = 1e-6  # a gap below this share of the layer's mean is none
BLOCK = 1024  # rows of B A that are held at once
FEWEST = 2  # retain rows: they are cut in two to see how large a risk is by chance


class UCanSettings(Settings):
    """Which units are turned down, and how far."""

    where: Literal["auto", "adapters", "linear"] = Field("auto", description="what is edited; auto: the adapter where there is one")
    part: Literal["mlp", "attention", "all"] = Field("all", description="linear layers that are edited where there is no adapter")
    unit: Literal["output", "rank"] = Field("output", description="units of an adapter: its outputs, or its rank coordinates")
    threshold: float = Field(0.1, ge=0, description="calibrated risk up to which a unit stays as it is, from 0 to 1")
    fusion: float = Field(0.5, ge=0, le=1, description="how much the most useful unit of a layer is spared, from 0 to 1")
    steepness: float = Field(8.0, ge=0, description="how fast a unit fades with its risk above the threshold")
    hard: bool = Field(False, description="cut off units above the threshold instead (ablation)")
    floor: float = Field(0.05, ge=0, description="smallest gap of activations that counts, in units of the layer's mean on retain rows")
    tokens: Tokens = Field("all", description="tokens that count: all, or where the answer is predicted")
    rows: int = Field(512, ge=2, description="rows of each split that are looked at, at most")


def contrast(forget: Tensor, retain: Tensor, floor: float = 0.0) -> Tensor:
    """Risk of each unit from its mean activations, (n,) in [0, 1]; the largest is 1 unless all are 0."""
    gap = forget - retain
    risk = torch.where(gap > max(floor, ROUNDING) * retain.mean(), gap / (forget + retain).clamp(min=torch.finfo(gap.dtype).tiny), 0.0)
    return risk / risk.max().clamp(min=torch.finfo(gap.dtype).tiny)


def usefulness(sizes: Tensor, up: Tensor, down: Tensor | None = None) -> Tensor:
    """Utility of each row of `up @ down` (of `up` where there is no `down`) for inputs of these sizes (i,): (n,) in [0, 1]."""
    rows = [(part if down is None else part @ down).abs() @ sizes for part in up.split(BLOCK)]
    found = torch.cat(rows)
    return found / found.max().clamp(min=torch.finfo(found.dtype).tiny)


def attenuation(risk: Tensor, utility: Tensor, *, threshold: float, fusion: float, steepness: float, hard: bool = False) -> Tensor:
    """gamma of each unit, (n,) in [0, 1]."""
    over = (risk * (1 - fusion * utility) - threshold).clamp(min=0)
    return (over == 0).to(risk) if hard else torch.exp(-steepness * over)


class UCan(Change):
    """Utility-aware contrastive attenuation."""

    Settings, tiny = UCanSettings, {"threshold": 0.0, "rows": 8}

    def __init__(self, /, **values: Any):
        super().__init__(**values)
        if self.settings.unit == "rank" and self.settings.where == "linear":
            raise SettingsError("`unit` of `u-can` can be rank only in adapters, and `where` is linear", "Use `unit=output`")

    @torch.no_grad()
    @unguarded
    def apply(self, subject: Subject, data: Data, run: Run) -> Subject:
        """Turn down units of the adapter, or of linear layers.

        Raises:
            DataError: no forget rows, or fewer than two retain rows.
            SubjectError: there is no adapter, or there is one and linear layers are to be edited; or weights are damaged.
            SettingsError: rank units are asked for where there is no adapter.
        """
        data.need("forget", "retain", why="`u-can`")
        if len(data["retain"]) < FEWEST:
            raise DataError(f"`u-can` needs {FEWEST} `retain` rows to see what chance does, got {len(data['retain'])}", "Add rows to keep")
        subject.check_finite()
        settings, given = self.settings, subject.digest
        adapted = settings.where == "adapters" or (settings.where == "auto" and is_adapted(subject.module))
        if adapted:
            adapters(subject, self.name())
        else:
            check_editable(subject, self.name())
            if settings.unit == "rank":
                raise SettingsError("`unit` of `u-can` is rank, and the model has no adapter", "Use `unit=output`")
        after = subject.fork()
        units = _of_adapters(after, settings.unit) if adapted else _of_layers(after, settings.part)
        forget, retain = (drawn(data[split], settings.rows, run, "u-can") for split in ("forget", "retain"))
        splits = (forget, *_cut(retain, min(len(forget), len(retain) // 2), run))
        means = [self._means(after, split, units) for split in splits]
        notes: dict[str, Any] = {"edited": "adapters" if adapted else "linear", "layers": {}}
        for name, unit in units.items():
            notes["layers"][name] = self._edited(name, unit, [mean[name] for mean in means], run)
        risks, chances = ([layer[key] for layer in notes["layers"].values()] for key in ("risk", "noise"))
        notes |= {"risk": sum(risks) / len(risks), "noise": sum(chances) / len(chances)}
        if notes["risk"] <= 1.5 * notes["noise"]:
            log.warning("Forget rows excite the units of `%s` no more than chance does: `u-can` turned down units at random", subject.name)
        return subject.changed(after.module, self, data=data.digest, before=given, seed=run.seed, notes=notes)

    def _means(self, subject: Subject, split: Split, units: Mapping[str, _Unit]) -> dict[str, _Mean]:
        """Mean activations of all units on one split."""
        found = {name: _Mean() for name in units}
        parts = {f"{name}:{end}": part for name, unit in units.items() for end, part in (("x", unit.reads), ("u", unit.tells))}

        def visit(key: str, x: Tensor, out: Tensor) -> None:
            name, _, end = key.rpartition(":")
            found[name].add(end, x if end == "x" else out)

        sweep(subject, split, parts, visit, self.settings.tokens)
        silent = next((name for name, mean in found.items() if not mean.tokens), None)
        if silent is not None:
            raise SubjectError(f"The layer `{silent}` was not used in a forward pass", "`u-can` cannot edit this network")
        return found

    def _edited(self, name: str, unit: _Unit, means: list[_Mean], run: Run) -> dict[str, Any]:
        settings, (forget, some, rest) = self.settings, means
        tokens = some.tokens + rest.tokens
        retain, sizes = (some.u + rest.u) / tokens, ((some.x + rest.x) / tokens).sqrt()
        fires = forget.u / forget.tokens
        risk = contrast(fires, retain, settings.floor)
        utility = usefulness(sizes, *unit.product())
        how = {"threshold": settings.threshold, "fusion": settings.fusion, "steepness": settings.steepness, "hard": settings.hard}
        gamma = attenuation(risk, utility, **how)
        for tensor in unit.scaled:
            tensor.mul_(gamma.to(tensor).reshape(-1, *[1] * (tensor.ndim - 1)))
        run.record(layer=name, gamma=gamma.tolist(), risk=risk.tolist(), utility=utility.tolist())
        raw = [_raw(fires, retain), _raw(some.u / some.tokens, rest.u / rest.tokens)]
        return {"units": len(gamma), "turned_down": int((gamma < 1).sum()), "least": float(gamma.min()), "risk": raw[0], "noise": raw[1]}


def _cut(split: Split, count: int, run: Run) -> tuple[Split, Split]:
    """`count` random rows of a split, and the others."""
    taken = set(torch.randperm(len(split), generator=run.rng("u-can", "chance"))[:count].tolist())
    some, rest = ([row for i, row in enumerate(split) if (i in taken) == part] for part in (True, False))
    return Split(some, split.name), Split(rest, split.name)


def _raw(one: Tensor, two: Tensor) -> float:
    """Mean of |a - b| / (a + b), before a layer's largest risk is set to 1."""
    return float(((one - two).abs() / (one + two).clamp(min=torch.finfo(one.dtype).tiny)).mean())


class _Mean:
    """Sums over tokens, float64: |u| (n,) and x^2 (i,)."""

    def __init__(self) -> None:
        self.u: Any = 0.0
        self.x: Any = 0.0
        self.tokens = 0

    def add(self, end: str, values: Tensor) -> None:
        if end == "u":
            self.u = self.u + values.double().abs().sum(0)
            self.tokens += len(values)
        else:
            self.x = self.x + values.double().square().sum(0)


class _Unit:
    """Units of one layer: what reads x, what tells u, the tensors whose first axis is scaled, and the factors of the matrix of u."""

    def __init__(self, reads: nn.Module, tells: nn.Module, scaled: list[Tensor], up: Tensor, down: Tensor | None = None):
        self.reads, self.tells, self.scaled, self.up, self.down = reads, tells, scaled, up, down

    def product(self) -> tuple[Tensor, ...]:
        """The factors in float64."""
        return tuple(part.double() for part in (self.up, self.down) if part is not None)


def _of_adapters(subject: Subject, unit: str) -> dict[str, _Unit]:
    found = {}
    for name, (a, b, factor) in adapters(subject, "u-can").items():
        if unit == "rank":  # |B_k| is part of how much a coordinate counts
            found[name] = _Unit(a, a, [a.weight], b.weight.abs().sum(0)[:, None] * a.weight)
        else:
            found[name] = _Unit(a, b, [b.weight, *([] if b.bias is None else [b.bias])], factor * b.weight, a.weight)
    return found


def _of_layers(subject: Subject, part: str) -> dict[str, _Unit]:
    layers = linear_layers(subject.module, part)
    return {n: _Unit(p, p, [matrix(p), *([] if p.bias is None else [p.bias])], matrix(p)) for n, p in layers.items()}
