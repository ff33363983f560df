"""Objective: a change made by gradient steps. A method file gives its loss; this file and `loop.py` do the rest."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import model_validator

from letheon.core.data import Data
from letheon.core.errors import MethodError
from letheon.core.forward import Batches
from letheon.core.method import Change
from letheon.core.registry import make
from letheon.core.run import Run
from letheon.core.settings import Choice, Field, Settings
from letheon.core.subject import Subject

from .feed import Feed, Rows
from .guarded import unguarded
from .parts import ParameterSpace, RetainTerm, Term

__all__ = ["Field", "Objective", "ObjectiveSettings", "Term", "TrainSettings"]


Decay = Annotated[float, Field(ge=0, lt=1)]


class TrainSettings(Settings):
    """How any training goes, whatever its loss."""

    epochs: int = Field(5, ge=1, description="passes over the leading split")
    steps: int | None = Field(None, ge=1, description="optimiser steps in all; given, it replaces `epochs`")
    batch_size: int = Field(32, ge=1, description="rows of each split per optimiser step")
    learning_rate: float = Field(1e-5, gt=0, description="peak step size of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay of matrices; vectors have none")
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="decay rates of AdamW's two moments")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of all steps in which the step size rises from 0")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="how the step size falls after the warm-up")
    clip: float = Field(1.0, ge=0, description="largest gradient norm; 0 leaves it as it is")
    runaway: float = Field(1e4, gt=0, description="stop as diverged when a term's mean is larger than this (nats per token or row)")
    tokens_per_batch: int | None = Field(
        None, ge=16, description="padded tokens in one forward pass: changes memory and speed, not the result; none: what suits the device"
    )
    parameters: Choice = Field("all", description="parameter space: which weights may move")  # type: ignore[assignment]
    rule: Choice = Field("sum", description="gradient rule: how the terms' gradients become one step")  # type: ignore[assignment]
    sampler: Choice = Field("paired", description="sampler: which rows meet in one step")  # type: ignore[assignment]

    @model_validator(mode="before")
    @classmethod
    def _epochs_given(cls, values: dict[str, Any]) -> dict[str, Any]:
        """`epochs` without `steps` takes the place of the steps that a method has by itself."""
        own = cls.model_fields["steps"].default is not None
        return {**values, "steps": None} if own and "epochs" in values and "steps" not in values else values


class ObjectiveSettings(TrainSettings):
    """Settings of an erasing objective with a retain term."""

    forget_weight: float = Field(1.0, ge=0, description="factor of the forget term")
    retain: Choice = Field("nll", description="retain term: what holds the rest in place")  # type: ignore[assignment]
    retain_weight: float = Field(1.0, ge=0, description="factor of the retain term")


class Objective(Change):
    """A change made by gradient steps.

    A subclass defines `loss`. `lead` is the split that an epoch walks through, `splits` all that the loss reads, `tied` those that
    are row-aligned and must stay together. Everything in `start` sees the subject as it came in.
    """

    Settings: ClassVar[type[TrainSettings]] = ObjectiveSettings
    lead: str = "forget"
    tied: ClassVar[tuple[str, ...]] = ("forget",)

    def __init__(self, /, **values: Any):
        super().__init__(**values)
        make(self.settings.sampler, "train/samplers")  # a wrong name or value shows now, not after everything has been read
        self.space: ParameterSpace = make(self.settings.parameters, "train/parameters")
        self.retain: RetainTerm | None = make(self.settings.retain, "train/retain") if hasattr(self.settings, "retain") else None
        rule = make(self.settings.rule, "train/rules")
        if rule.protects and (self.retain is None or not self.retain.splits):
            what = f"The rule `{rule.name()}` protects what a retain term measures, and this `{self.name()}` has none"
            raise MethodError(what, "Give one, as in `retain=nll`, or use the rule `sum`")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the loss reads and the sampler draws from."""
        return tuple(dict.fromkeys((self.lead, *(self.retain.splits if self.retain else ()))))

    @property
    def reads(self) -> tuple[str, ...]:
        """The splits that `loss` itself reads. It is called for a piece of the step that holds one of them."""
        return (self.lead,)

    def prepare(self, subject: Subject, data: Data, run: Run) -> Data:
        """The data to train on; a subclass may add splits. Called before anything is encoded."""
        return data

    def planned(self, rows: Rows, epoch: int) -> Rows:
        """One step of the plan; a subclass may add rows of splits that it made itself."""
        return rows

    def start(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Called once with the subject as it came in: the place to cache its numbers."""

    def drawn(self, subject: Subject, feed: Feed, rows: Rows, run: Run) -> Rows:
        """Called before each optimiser step with all its rows; returns those that `loss` will read.

        The place for a number that depends on the whole step, so that it does not change with how the step is cut.
        """
        return rows

    @abstractmethod
    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """The terms of one micro-step, without the retain term. Each is a sum; the loop divides."""

    def stepped(self, subject: Subject, step: int) -> None:
        """Called after each optimiser step."""

    def done(self, values: Mapping[str, float]) -> bool:
        """Whether to end here. Called after each step with the numbers it logs, the mean of every term among them."""
        return False

    def finish(self, subject: Subject) -> dict[str, Any]:
        """Called after the last step; what it returns goes into the lineage."""
        return {}

    def terms(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """All terms of one micro-step, weighted."""
        found = self.loss(subject, batches) if any(split in batches for split in self.reads) else {}  # some pieces hold only partners
        if self.retain is not None and any(split in batches for split in self.retain.splits):
            term = self.retain.term(subject, batches)
            if term is not None:
                found["retain"] = Term(term.total, term.per, term.of, term.weight * self.settings.retain_weight)
        return found

    @unguarded
    def apply(self, subject: Subject, data: Data, run: Run) -> Subject:
        """Train. Returns a new subject; the given one does not change (unless it is disposable)."""
        from .loop import train

        return train(self, subject, data, run)


def row_numbers(rows: np.ndarray, epoch: int, n: int) -> np.ndarray:
    """Row numbers in a split that holds one copy of n rows per epoch."""
    return rows + epoch * n
