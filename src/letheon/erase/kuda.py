"""KUDA: turn hidden states of forget answers away, along weights that retain inputs do not use.

Pushing outputs to noise leaves the knowledge inside or breaks the rest. Here the change is made where the facts are fetched, and only in
directions in which the retain rows have almost no energy, so that the two gradients cannot conflict.

    L = -(2 / beta) mean_j mean_l log sigmoid(beta d_jl),   d = 1 - cos(h, h0)        h: output of block l of the window, h0: incoming
    W = W0 + D P,   P onto the directions with at most the share gamma of mean_k |a_k|^2     a: retain inputs of that matrix

The window are the `window` neighbouring feed-forward layers whose restored outputs bring back most of a fact when its name is hidden. Only
their matrices move, whatever the parameter space. States are those that predict an answer token. At d = 0 L is (2 / beta) ln 2, with slope
-1 in d; its size does not matter, only its direction. At h = h0 the gradient of the cosine is exactly 0: h0 gets a little noise to break
the tie. At gamma 0 nothing moves unless retain inputs leave directions unused, at 1 nothing is protected. Find the largest gamma that
the retain rows bear first, then set beta or the steps.

RECONSTRUCTION: an abstract and summaries name the ingredients; formulas, tie-break and defaults are ours. arXiv:2602.19275. Card: kuda.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from letheon.core.batching import Batch
from letheon.core.forward import Batches, unwrapped
from letheon.core.run import Run
from letheon.core.settings import Choice
from letheon.core.subject import Subject
from letheon.maths.likelihood import scored_positions
from letheon.maths.null_space import null_projector
from letheon.maths.preference import preference_loss
from letheon.train.feed import Feed, Rows
from letheon.train.frozen import Placed
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term
from letheon.train.taps import block_at, block_names

from ._confined import Confined
from ._linears import chosen, linear_layers, watched
from ._states import block_states, only, read_rows, terms_apart
from ._tracing import best_window, causal_effects

log = logging.getLogger("letheon")


class KUDASettings(ObjectiveSettings):
    """Places to start from; the paper's values are not known."""

    beta: float = Field(1.0, gt=0, description="inverse temperature of the deviation: a small one pushes states further")
    gamma: float = Field(0.01, ge=0, le=1, description="share of the energy of retain inputs that may be touched")
    window: int = Field(3, ge=1, description="neighbouring blocks that change; fewer where the model has fewer")
    layer: int | None = Field(None, ge=0, description="index of the first of them; unset: found by causal tracing")
    reach: int = Field(1, ge=0, description="layers restored on either side of the traced one")
    traced: int = Field(64, ge=1, description="forget rows that are traced, at most")
    measured: int = Field(2048, ge=1, description="retain rows whose inputs are measured, at most")
    cap: float = Field(2.0, gt=0, le=2, description="deviation beyond which nothing is pushed; 1 stops at a right angle")
    noise: float = Field(1e-2, ge=0, description="size of the noise on the incoming states, in units of their norm")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of matrices; it pulls on held weights too")
    parameters: Choice = Field("layers", description="parameter space; of its weights those of the window move")  # type: ignore[assignment]
    retain: Choice = Field("kl", description="retain term: what holds the rest in place")  # type: ignore[assignment]


def deviations(now: Tensor, then: Tensor) -> Tensor:
    """1 - cosine over the last axis, in [0, 2]."""
    return 1 - F.cosine_similarity(now, then, dim=-1)


class KUDA(Objective):
    """Deviation of states within the null space of retain inputs."""

    Settings, tiny = KUDASettings, {"steps": 3, "traced": 2}

    @property
    def splits(self) -> tuple[str, ...]:
        """Retain rows are always read once, for the projectors."""
        return tuple(dict.fromkeys((*super().splits, "retain")))

    def start(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Find the window, measure the inputs of its matrices, cache the incoming states."""
        settings, blocks, self.incoming = self.settings, block_names(subject.module), subject
        self.effects: list[float] | None = None
        if settings.layer is None:
            effects = causal_effects(subject, feed, feed.used("forget")[: settings.traced].tolist(), settings.reach, run)
            first, self.effects = best_window(effects, settings.window), effects.tolist()
        else:
            first = block_at(subject.module, settings.layer)
        self.blocks = blocks[first : first + settings.window]
        projectors = self._projectors(subject, feed, run)
        self.free = {name: round(float(p.trace())) for name, p in projectors.items()}
        self.confined = Confined(subject.module, projectors)
        self._cache(subject, feed, run)

    @torch.no_grad()
    def _projectors(self, subject: Subject, feed: Feed, run: Run) -> dict[str, Tensor]:
        """One for each feed-forward matrix of the window; matrices with the same input share theirs."""
        inside = tuple(f"{block}." for block in self.blocks)
        parts = {name: part for name, part in linear_layers(subject.module).items() if name.startswith(inside)}
        sums: dict[str, Tensor] = {}
        twin: dict[str, str] = {}
        tokens = 0
        for batch in feed.sweep("retain", np.arange(min(self.settings.measured, len(feed.encoded["retain"])))):
            with run.autocast(), watched(parts) as seen:
                unwrapped(subject.module)(input_ids=batch.ids, use_cache=False)
            tokens += int(batch.mask.sum())
            for name, (given, _) in seen.items():
                twin.setdefault(name, next((other for other in sums if seen[other][0] is given), name))
                if twin[name] == name:
                    a = chosen(given, batch.mask).double()
                    sums[name] = sums[name] + a.T @ a if name in sums else a.T @ a
        short = [name for name, total in sums.items() if tokens < 2 * len(total)]
        if short and self.settings.gamma < 1:
            log.warning("%d retain tokens say little about the %d inputs of `%s`", tokens, len(sums[short[0]]), short[0])
        found = {name: null_projector(total / tokens, self.settings.gamma).float() for name, total in sums.items()}
        return {name: found[other] for name, other in twin.items()}

    @torch.no_grad()
    def _cache(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Incoming states at all scored tokens, with the noise that breaks the tie, (tokens, blocks, d)."""
        self.placed, self.then = Placed(feed, "forget"), None
        for batch in feed.sweep("forget"):
            with run.autocast():
                states = self._states(subject, batch)
            if self.then is None:
                self.then = states.new_empty(int(self.placed.offsets[-1]), *states.shape[1:])
            self.then[self.placed.places(batch)] = states
        if self.then is not None and self.settings.noise:
            drawn = torch.randn(self.then.shape, generator=run.rng("tie")).to(self.then)
            self.then += self.settings.noise * self.then.norm(dim=-1, keepdim=True) * drawn / self.then.shape[-1] ** 0.5

    def _states(self, subject: Subject, batch: Batch) -> Tensor:
        row, at = scored_positions(batch.starts, batch.lengths)
        return block_states(subject.module, batch, self.blocks, (row, at - 1))

    def drawn(self, subject: Subject, feed: Feed, rows: Rows, run: Run) -> Rows:
        """Confine the network that is trained, and leave out rows that nothing reads."""
        if subject is not self.incoming:  # a parameter space may ask for the slope at the start
            self.confined.attach(subject.module)
        return read_rows(self, rows)

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Sum over answer tokens of the mean over blocks of the bounded losses of their deviations."""
        batch = batches["forget"]
        with only(subject.module, self.confined.moves, subject is self.incoming):
            now = self._states(subject, batch)
        d = deviations(now, self.then[self.placed.places(batch)])  # (m, blocks)
        each = preference_loss(d.clamp(max=self.settings.cap), self.settings.beta).mean(-1)
        return {"forget": Term(each.sum(), per="token", weight=self.settings.forget_weight)}

    def terms(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """The pass over forget rows ends after the window; the retain term has one of its own."""
        return terms_apart(self, subject, batches)

    def finish(self, subject: Subject) -> dict[str, Any]:
        """Fold the projectors into the weights; tell where the change was made, and how many input directions were free."""
        self.confined.fold(subject.module)
        return {"blocks": self.blocks, "effects": self.effects, "free_directions": self.free}
