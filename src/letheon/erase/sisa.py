"""SISA: sharded training, so that forgetting a row retrains one shard, from the slice it lies in.

Retraining without the rows is the yardstick of every erasure and costs a whole training. Here it costs a part of one, and is exact.

    shard s, slice r of a row     by the hash of its `group` (else its id) and the seed, whatever other rows there are
    w(s, r) = train(w(s, r - 1), rows of slices 1..r of shard s, e_r epochs),          w(s, 0): the start
    e_r = floor(2 e r / (R + 1)) - floor(2 e (r - 1) / (R + 1)),   so that sum_r e_r r / R is about e
    p(token | text) = mean_s p_s(token | text)                                          w(s, R): the models that answer

On a plain model it builds S models anew from what it is to know: `split`, or `kept`, else `retain`. On a model that it has built (same
settings and seed) every w(s, r) whose rows are unchanged is taken over and the rest is trained again, which gives the weights of a fresh
build on the remaining rows to the bit (CPU, float32). Nothing else decides what is reused: a state is found by a hash over the start, the
seed, the inner method and all rows it has seen, so data that still holds a forgotten row finds the old states, and rows that are added are
learned. States that saw a forgotten row are not carried on. Uniform deletion of one row costs about (2/3 + 1/(3R)) / S of a training.

Every slice is a training run of its own with a fresh optimiser and the same draws whenever its rows are the same, so no optimiser state is
kept; the paper's code resumes with weights alone what was trained in one go, and differs from an uninterrupted run. A shard without rows
has no voice. Exactness holds for requests that do not depend on the published model. The result is a folder with one model folder per
shard; plain transformers reads each of them. arXiv:1912.03817. Card: exact-unlearning.
"""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError
from letheon.core.forward import unwrapped
from letheon.core.method import Change
from letheon.core.registry import make
from letheon.core.run import Run
from letheon.core.settings import Choice, Field, Settings
from letheon.core.shards import Shards, Slices, State, state_of
from letheon.core.subject import Subject
from letheon.train.checkpoint import fingerprint

from ._start import fresh, loaded

log = logging.getLogger("letheon")
ROWS = "rows"  # what a shard's rows are called, so that their names in the data make no difference


class SisaSettings(Settings):
    """How the data is cut and how each piece is learned."""

    shards: int = Field(5, ge=1, description="models, each with its share of the rows")
    slices: int = Field(5, ge=1, description="parts of a shard that are learned one after the other")
    epochs: int = Field(10, ge=1, description="passes over the data in all, e; the slices share them")
    split: str | None = Field(None, min_length=1, description="rows to know; unset: `kept`, else `retain`")
    together: Literal["group", "id"] = Field("group", description="rows of one group share shard and slice, or each is placed by itself")
    base: str = Field("scratch", min_length=1, description="model to start from: a folder or hub name, or `scratch` for fresh weights")
    inner: Choice = Field("finetune", description="the method that trains, with its own settings")  # type: ignore[assignment]


def epochs_of(slices: int, epochs: int) -> list[int]:
    """Epochs of each slice: sum_r e_r r / R is about `epochs`."""
    until = [2 * epochs * r // (slices + 1) for r in range(slices + 1)]
    return [after - before for before, after in zip(until, until[1:], strict=False)]


@dataclass
class _Known:
    """States that an earlier build has left, by their keys."""

    slices: Slices
    finished: dict[str, nn.Module]

    def __contains__(self, key: str) -> bool:
        return key in self.finished or key in self.slices

    def __getitem__(self, key: str) -> State:
        return state_of(self.finished[key]) if key in self.finished else self.slices[key]


@dataclass
class _Shard:
    """A trained shard: its number, its model, the keys of its states, the new ones among these, and the work in row passes."""

    place: int
    module: nn.Module
    keys: list[str]
    states: dict[str, State]
    first: int  # slices that were taken over
    trained: int
    whole: int


class Sisa(Change):
    """Sharded, isolated, sliced, aggregated."""

    Settings, tiny = SisaSettings, {"shards": 2, "slices": 2, "epochs": 2, "together": "id"}

    def __init__(self, /, **values: Any):
        super().__init__(**values)
        self._inner(1)  # a wrong name or value shows now

    def _inner(self, epochs: int) -> Change:
        inner = self.settings.inner
        return make(Choice(name=inner.name, **{**inner.settings, "split": ROWS, "epochs": epochs}), "adapt")

    def place(self, row: Example, run: Run) -> tuple[int, int]:
        """Shard and slice of a row."""
        link = ("group", row.group) if self.settings.together == "group" and row.group is not None else ("id", row.id)
        shard, part = (run.derived_seed("sisa", what, *link) for what in ("shard", "slice"))
        return shard % self.settings.shards, part % self.settings.slices

    def apply(self, subject: Subject, data: Data, run: Run) -> Subject:
        """Build the shards, or bring those of the subject up to the rows that are to be known.

        Raises:
            DataError: those rows are missing, or some of them are to be forgotten and `split` was not given.
            SubjectError: the base has another tokenizer, or the subject's weights are damaged.
        """
        subject.check_finite()
        split = self._split(data)
        began = time.monotonic()
        module = unwrapped(subject.module)
        earlier = module if isinstance(module, Shards) else None
        known = _Known(Slices(), {})
        if earlier is not None:
            module = earlier.models[0]
            known = _Known(earlier.slices, dict(zip(earlier.config.keys, earlier.models, strict=True)))
        base = None if self.settings.base == "scratch" else loaded(subject, self.settings.base, data, run)
        parts: dict[int, list[list[Example]]] = {}
        for row in sorted(data[split], key=lambda row: row.id):
            place, part = self.place(row, run)
            parts.setdefault(place, [[] for _ in range(self.settings.slices)])[part].append(row)
        done = []
        for place in sorted(parts):
            start = fresh(module, subject, run.derived_seed("sisa", "weights", place)) if base is None else _copied(base)
            done.append(self._shard(place, parts[place], start, known, run))
        keys = {key for shard in done for key in shard.keys[1:-1]}
        slices = known.slices.kept(keys, {key: state for shard in done for key, state in shard.states.items()})
        if earlier is not None and not any(shard.first for shard in done):
            log.warning("No state of `%s` fits these settings, this seed and these rows: every shard was trained anew", subject.name)
        after = Shards([shard.module for shard in done], [shard.place for shard in done], [shard.keys[-1] for shard in done], slices)
        whole = sum(shard.whole for shard in done)
        notes = {
            **run.described(),
            "split": split,
            "learned": data[split].digest,
            "rows": len(data[split]),
            "shards": [shard.place for shard in done],
            "retrained": {str(shard.place): shard.first for shard in done if shard.first < self.settings.slices},
            "recomputed": sum(shard.trained for shard in done) / max(1, whole),
            "seconds": round(time.monotonic() - began, 1),
        }
        return subject.changed(after.eval(), self, data=data.digest, before=subject.digest, seed=run.seed, notes=notes)

    def _split(self, data: Data) -> str:
        """The name of the rows to know."""
        split = self.settings.split or ("kept" if "kept" in data else "retain")
        data.need(split, why="`sisa`")
        if self.settings.split is None and "forget" in data:
            known = {(row.prompt, row.answer) for row in data[split]}
            both = [row.id for row in data["forget"] if (row.prompt, row.answer) in known]
            if both:
                what = f"{len(both)} rows to forget are also among the rows of `{split}` that `sisa` is to know, first `{both[0]}`"
                raise DataError(what, f"Take them out of `{split}`, or give `split={split}` to build a model that knows them")
        return split

    def _shard(self, place: int, parts: list[list[Example]], start: Subject, known: _Known, run: Run) -> _Shard:
        """Train one shard from the last state that is known."""
        epochs = epochs_of(self.settings.slices, self.settings.epochs)
        inner = {"name": self.settings.inner.name, **self._inner(1).settings.model_dump(mode="json")}
        splits: list[Split] = []
        keys = [fingerprint(start=start.digest, inner=inner, dtype=str(run.compute_dtype))]
        for r, part in enumerate(parts):
            splits.append(Split(sorted([*(splits[-1] if splits else ()), *part], key=lambda row: row.id), ROWS))
            seed = run.derived_seed("sisa", "training", place, r)
            keys.append(fingerprint(before=keys[-1], seed=seed, epochs=epochs[r], rows=splits[-1].digest))
        first = max(r for r in range(len(keys)) if r == 0 or keys[r] in known)
        if first:
            start.module.load_state_dict(known[keys[first]])
        states, trained = {}, 0
        for r in range(first, len(parts)):
            if epochs[r] and len(splits[r]):
                seed = run.derived_seed("sisa", "training", place, r)
                part = Run(seed, device=str(run.device), dtype=run.dtype, progress=run.progress)
                found = self._inner(epochs[r]).apply(start, Data({ROWS: splits[r]}, ROWS), part)
                start = Subject(found.module, start.encoder, name=start.name, disposable=True)
                trained += epochs[r] * len(splits[r])
            if r + 1 < len(parts):
                states[keys[r + 1]] = state_of(start.module)
        whole = sum(e * len(split) for e, split in zip(epochs, splits, strict=True))
        return _Shard(place, start.module, keys, states, first, trained, whole)


def _copied(base: Subject) -> Subject:
    return Subject(copy.deepcopy(base.module), base.encoder, name=base.name, disposable=True)
