"""Does the answer come back when one direction is taken out of the inner states?

Some erasing (RMU, refusals) adds a distortion along a direction to the states of forgotten rows. Who finds the direction removes it.

    h <- h - (h . d) d,   |d| = 1,   after one block, or after all blocks, each with its own d

    d, candidate        from states of
    original            mean(this model, lost rows) - mean(the original, lost rows)
    general             mean(this model, lost rows) - mean(this model, rows to keep)
    neutral             mean(this model, lost rows) - mean(this model, plain text, known facts or rows never seen)
    component           first principal component of both models' states of lost rows, standardised; only with an original
    random              drawn once per block: the control, which must bring nothing back

    ablated             max over candidates and places of the mean probability of true answers on the forget split
    ablated-random      the same with random directions

Lost rows are those whose probability at least halved since the original (all rows where there is none, or none such). The first `skip`
tokens of a row are left out (at most half of it), and tokens whose mean L1 distance to the others is over `outliers` standard deviations
above the mean. The principal component is a direction of the states: what is standardised for finding it is scaled back. Projecting twice
is projecting once. `extra` holds every candidate and place, the probability without ablation, and what the best one does to rows to keep:
a direction that takes the rest away restores nothing of use. arXiv:2409.18025. Card: relearning-and-extraction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from letheon.core.data import Data, Split
from letheon.core.encode import Encoded
from letheon.core.findings import Finding
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.core.subject import Subject
from letheon.erase._tracing import replaced
from letheon.train.taps import block_names, taps, unwrapped

from ._inside import answer_nll, batches, reading, unlike
from ._parts import ProbeSettings, cut, missing, nothing, row_finding

if TYPE_CHECKING:
    from letheon.core.readings import Readings

GENERAL, NEUTRAL = ("retain-check", "retain"), ("texts", "world-facts", "real-authors", "holdout")
Directions = dict[str, Tensor]  # candidate -> (blocks, d), unit rows


class AblationSettings(ProbeSettings):
    """Where directions come from and where they are tried."""

    splits: tuple[str, ...] = Field(("forget",), min_length=1, max_length=1, description="the split whose answers are to come back")
    limit: int | None = Field(64, ge=1, description="rows per split, the first ones in their order; None: all")
    places: int = Field(5, ge=1, description="single blocks that are tried, evenly spaced; beside them all blocks at once")
    tokens: int = Field(512, ge=8, description="most tokens of a split that a direction is made from, evenly spaced")
    skip: int = Field(40, ge=0, description="first tokens of a row that are left out, at most half of the row")
    outliers: float = Field(3.0, gt=0, description="standard deviations above which a token is too far from the others")


class Ablation(Audit):
    """Directions projected out of the residual stream."""

    Settings, tiny = AblationSettings, {"limit": 4, "places": 1}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """The best direction, and the best random one."""
        (where,) = self.settings.splits
        names = ("ablated", "ablated-random")
        note = missing(data, where)
        if note:
            return [nothing(self, name, note, where) for name in names]
        split = cut(data[where], self.settings.limit)
        why = unlike(readings.subject, original.subject) if original else "there is no original"
        found = self._directions(readings, None if why else original, split, data, run)
        kept = self._first(data, GENERAL)
        tried = {name: self._tried(name, readings, split, kept, d) for name, d in found.items()}
        best = {name: max(table, key=lambda place: table[place][0].mean()) for name, table in tried.items()}
        before = float(np.exp(-readings.answers(split).nll()).mean())
        table = {name: {place: float(values[0].mean()) for place, values in table.items()} for name, table in tried.items()}
        real = [name for name in tried if name != "random"]
        left = [name for name in ("original", "component") if name not in tried]
        note = f"without the candidates {' and '.join(left)}: {why}" if left else ""

        def one(name: str, candidate: str, note: str, **more: Any) -> Finding:
            values, utility = tried[candidate][best[candidate]]
            kept_now = float(utility.mean()) if len(utility) else None
            extra = {"candidate": candidate, "place": best[candidate], "before": before, "kept": kept_now, **more}
            return row_finding(self, name, where, values, run, direction="reference", note=note, **extra)

        control = one(names[1], "random", "")
        if not real:
            return [nothing(self, names[0], "neither an original nor other rows to take a direction from", where), control]
        winner = max(real, key=lambda name: table[name][best[name]])
        return [one(names[0], winner, note, table=table, kept_before=self._kept(readings, kept)), control]

    def _first(self, data: Data, names: tuple[str, ...]) -> Split | None:
        return next((cut(data[name], self.settings.limit) for name in names if name in data and len(data[name])), None)

    def _kept(self, readings: Readings, kept: Split | None) -> float | None:
        return None if kept is None else float(np.exp(-readings.answers(kept).nll()).mean())

    def _directions(self, readings: Readings, original: Readings | None, split: Split, data: Data, run: Run) -> Directions:
        """All candidates that can be had."""
        lost = split
        if original is not None:
            fall = readings.answers(split).nll() - original.answers(split).nll()
            lost = Split([row for row, much in zip(split, fall, strict=True) if much > np.log(2)], "lost")
            lost = lost if len(lost) else split
        own = self._states(readings, lost)
        found: Directions = {}
        if original is not None:
            theirs = self._states(original, lost)
            found["original"] = _unit(own, theirs)
            found["component"] = torch.stack([principal(torch.cat(pair)) for pair in zip(own, theirs, strict=True)])
        for name, splits in (("general", GENERAL), ("neutral", NEUTRAL)):
            if (rows := self._first(data, splits)) is not None:
                found[name] = _unit(own, self._states(readings, rows))
        shape = len(own), own[0].shape[1]
        found["random"] = torch.nn.functional.normalize(torch.randn(*shape, generator=run.rng("directions")), dim=-1).to(own[0])
        return found

    def _states(self, readings: Readings, split: Split) -> list[Tensor]:
        """States of single tokens after each block, (m, d) each, without first tokens and outliers."""
        subject, settings = readings.subject, self.settings
        blocks, encoded = block_names(subject.module), subject.encoder.encode(split)
        parts: list[list[Tensor]] = [[] for _ in blocks]
        with reading(subject):
            for batch in batches(subject, encoded):
                with taps(subject.module, *blocks, stop=True) as seen:
                    unwrapped(subject.module)(input_ids=batch.ids, use_cache=False)
                first = (batch.lengths // 2).clamp(max=settings.skip)
                used = batch.mask & (torch.arange(batch.ids.shape[1], device=batch.ids.device) >= first[:, None])
                for part, block in zip(parts, blocks, strict=True):
                    part.append(seen[block][used].float())
        joined = [torch.cat(part) for part in parts]
        chosen = torch.linspace(0, len(joined[0]) - 1, min(settings.tokens, len(joined[0]))).long()
        return [inliers(states[chosen], settings.outliers) for states in joined]

    def _tried(
        self, name: str, readings: Readings, split: Split, kept: Split | None, directions: Tensor
    ) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Place -> probabilities of the split and of rows to keep."""
        depth = len(directions)
        single = sorted({round(at) for at in np.linspace(0, depth - 1, min(self.settings.places, depth))})
        rows = Split([*split, *(row for row in kept or () if row.id not in {own.id for own in split})], "both")
        places = {**{str(k): [k] for k in single}, "all": list(range(depth))}
        stamp = hashlib.sha256(directions.cpu().numpy().tobytes()).hexdigest()

        def measured() -> np.ndarray:
            encoded = readings.subject.encoder.encode(rows)
            return np.stack([ablated(readings.subject, encoded, directions, where) for where in places.values()])

        values = readings.numbers("ablated", rows, measured, candidate=name, directions=stamp, places=list(places))
        n = len(split)
        return {place: (value[:n], value[n:]) for place, value in zip(places, values, strict=True)}


def ablated(subject: Subject, encoded: Encoded, directions: Tensor, places: list[int]) -> np.ndarray:
    """Probabilities (n,) of the answers with a direction (blocks, d) projected out after the given blocks."""
    inner, blocks = unwrapped(subject.module), block_names(subject.module)
    with replaced({inner.get_submodule(blocks[k]): without(directions[k]) for k in places}):
        return np.exp(-answer_nll(subject, encoded))


def without(direction: Tensor) -> Callable[[Tensor], Tensor]:
    """The projection of states (..., d) that leaves nothing along a unit direction (d,)."""

    def project(states: Tensor) -> Tensor:
        d = direction.to(states)
        return states - (states @ d)[..., None] * d

    return project


def inliers(states: Tensor, most: float) -> Tensor:
    """The states (m, d) whose mean L1 distance to the others is at most `most` standard deviations above the mean."""
    if len(states) < 3:
        return states
    far = torch.cdist(states, states, p=1).sum(1) / (len(states) - 1)
    return states[far <= far.mean() + most * far.std()]


def principal(states: Tensor) -> Tensor:
    """The unit direction (d,) of the first principal component of standardised states (m, d), in the states' own coordinates."""
    spread = states.std(0, correction=0).clamp(min=1e-6)
    axis = torch.linalg.svd((states - states.mean(0)) / spread, full_matrices=False).Vh[0]
    return torch.nn.functional.normalize(axis * spread, dim=0)


def _unit(own: list[Tensor], other: list[Tensor]) -> Tensor:
    """Unit differences of means, (blocks, d); 0 where the means are equal, which projects nothing out."""
    return torch.nn.functional.normalize(torch.stack([a.mean(0) - b.mean(0) for a, b in zip(own, other, strict=True)]), dim=-1)
