"""RMU: push hidden states of forget text onto a random direction in one block, hold those of the rest.

Losses on the output leave the knowledge in the hidden states; here later blocks receive noise instead.

    L = forget_weight mean_i mean_t mean_d (H - v)^2 + hold mean_k mean_t mean_d (H - H0)^2
    v = c u / |u|,  u uniform in [0, 1)^d,  c = coefficient * mean |H0|           H: output of block `layer`, (b, t, d)

Means over the answer tokens of a row, then over rows; the paper writes a sum over d, its code takes the mean. At the start the second
term is 0. c means nothing without the size of the states, so it is given in units of their mean norm on the forget answers; both are
noted in the lineage. The pass ends after block `layer` unless a retain term needs the output. H0 is cached for every retain row that will
be drawn. The direction is easy to find and to undo: audit hidden states and relearning too. arXiv:2403.03218. Card: rmu.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from letheon.core.batching import Batch
from letheon.core.forward import Batches, unwrapped
from letheon.core.run import Run
from letheon.core.settings import Choice
from letheon.core.subject import Subject
from letheon.train.feed import Feed
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term
from letheon.train.taps import block_at, block_names, taps


class RMUSettings(ObjectiveSettings):
    """Length of the published runs; the strengths are in units that carry over between models."""

    layer: int | None = Field(None, ge=0, description="index of the steered block; unset: at 7/32 of the depth")
    coefficient: float = Field(1.0, gt=0, description="length of the direction, in units of the mean norm of the states")
    hold: float = Field(1.0, ge=0, description="factor of the term that holds the retain states (alpha of the paper)")
    steps: int | None = Field(150, ge=1, description="optimiser steps in all; unset, `epochs` counts")
    batch_size: int = Field(4, ge=1, description="rows of each split per optimiser step")
    learning_rate: float = Field(5e-5, gt=0, description="peak step size of AdamW")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of all steps in which the step size rises from 0")
    schedule: Literal["linear", "cosine", "constant"] = Field("constant", description="how the step size falls after the warm-up")
    parameters: Choice = Field("down-projections", description="parameter space: which weights may move")  # type: ignore[assignment]
    retain: Choice = Field("none", description="retain term on the output, beside or instead of `hold`")  # type: ignore[assignment]

    @model_validator(mode="before")
    @classmethod
    def _same_layer(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The down projections that move are those up to the steered block."""
        given = Choice.model_validate(values.get("parameters", "down-projections"))
        if values.get("layer") is None or given.name != "down-projections" or "layer" in given.settings:
            return values
        return {**values, "parameters": {"name": given.name, "layer": values["layer"], **given.settings}}


def answer_mask(batch: Batch) -> Tensor:
    """(b, t), true on answer tokens at their own position; on every token of plain text."""
    at = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    return (at >= batch.starts[:, None]) & (at < batch.lengths[:, None])


def _row_means(each: Tensor, counts: Tensor) -> Tensor:
    """Means over the tokens of each row: (m,) laid end to end, (b,) tokens per row -> (b,)."""
    row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return each.new_zeros(len(counts)).index_add(0, row, each) / counts.clamp(min=1)


class RMU(Objective):
    """Representation misdirection."""

    Settings, tiny = RMUSettings, {"steps": 3}

    @property
    def splits(self) -> tuple[str, ...]:
        """Retain rows are read for `hold`, and for a retain term."""
        return tuple(dict.fromkeys((*super().splits, *(("retain",) if self.settings.hold else ()))))

    @property
    def reads(self) -> tuple[str, ...]:
        """Both terms look at the same block."""
        return self.splits

    def states(self, subject: Subject, batches: Batches) -> dict[str, Tensor]:
        """Outputs of the steered block at the answer tokens of every split, (m, d) each, at least float32."""
        whole = bool(self.retain.splits) and not batches.apart
        with taps(subject.module, self.block, stop=not whole) as seen:
            if whole:
                batches.hidden(subject.module)  # the retain term reads the same pass
            else:
                unwrapped(subject.module)(input_ids=batches.ids, use_cache=False)
        found, top = {}, 0
        for split, batch in batches.items():
            states = seen[self.block][top : top + len(batch), : batch.ids.shape[1]][answer_mask(batch)]
            found[split] = states.float() if states.dtype in (torch.bfloat16, torch.float16) else states
            top += len(batch)
        return found

    @torch.no_grad()
    def start(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Draw the direction in units of the forget states' mean norm, and cache the retain states."""
        self.layer = block_at(subject.module, self.settings.layer)
        self.block = block_names(subject.module)[self.layer]
        norms = []
        for batch in feed.sweep("forget"):
            with run.autocast():
                norms.append(self.states(subject, Batches({"forget": batch}))["forget"].norm(dim=-1))
        self.size = float(torch.cat(norms).double().mean())
        direction = torch.rand(unwrapped(subject.module).config.hidden_size, generator=run.rng("rmu"))
        self.steer = (self.settings.coefficient * self.size * direction / direction.norm()).to(feed.device)  # (d,)
        self.held: dict[int, Tensor] = {}  # retain row -> (tokens, d)
        for batch in feed.sweep("retain") if self.settings.hold else ():
            with run.autocast():
                states = self.states(subject, Batches({"retain": batch}))["retain"]
            parts = states.split(answer_mask(batch).sum(1).tolist())
            self.held |= {row: part.clone() for row, part in zip(batch.rows.tolist(), parts, strict=True)}

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Sums over rows of the mean squared distances."""
        states, terms = self.states(subject, batches), {}
        if "forget" in states:
            each = (states["forget"] - self.steer).square().mean(-1)  # (m,)
            total = _row_means(each, answer_mask(batches["forget"]).sum(1)).sum()
            terms["forget"] = Term(total, per="sequence", weight=self.settings.forget_weight)
        if "retain" in states and self.settings.hold:
            then = torch.cat([self.held[row] for row in batches["retain"].rows.tolist()])
            each = (states["retain"] - then).square().mean(-1)
            total = _row_means(each, answer_mask(batches["retain"]).sum(1)).sum()
            terms["hold"] = Term(total, per="sequence", of="retain", weight=self.settings.hold)
        return terms

    def finish(self, subject: Subject) -> dict[str, Any]:
        """What is needed to find the direction again."""
        mark = hashlib.sha256(self.steer.cpu().numpy().tobytes()).hexdigest()
        return {"block": self.block, "activation_norm": self.size, "direction_norm": float(self.steer.norm()), "direction": mark}
