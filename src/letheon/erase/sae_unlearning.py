"""SAE unlearning: make a name look inside like one the model has never seen.

Muting the output leaves the states that recognise the name. Here a sparse autoencoder of the states after one block shows by which latents
known and unknown names differ, and those of the names to forget are moved from the known to the unknown side.

    L = mean_i (near_i - away min(far_i, margin)) + hold mean_k |x_k - x0_k|^2 / mean |x0|^2
    near = |z_J - u_J|^2 / v,  far = |z_J - c_J|^2 / v,  v = |u_J - c_J|^2        z: latents at the last token of a name in a template

c and u are the mean latents of known names (of the retain rows) and of unknown ones (of the split `unknown`, else invented from parts of
known names), J the latents whose frequencies of being active differ most between the two. A name at c scores 1, at u -away; progress
<z_J - c_J, u_J - c_J> / v is 0 and 1 there, and training ends when its mean reaches `progress`. The autoencoder is trained here on the
incoming model and stays fixed, as do c and u; of the model only the blocks up to that one move, whatever the parameter space. A gate may
flip while the facts stay readable elsewhere: audit those too.

RECONSTRUCTION: the aim is the paper's, loss, block, latents and constants are ours. arXiv:2509.15631. Card: sae-unlearning.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from letheon.core.batching import collate
from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError, MethodError
from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.settings import Choice
from letheon.core.subject import Subject
from letheon.maths.sparse import fit
from letheon.train.feed import Feed, Rows
from letheon.train.objective import Field, Objective, ObjectiveSettings, Term
from letheon.train.taps import block_at, block_names

from ._names import invented, name_rows, names_of, templates_of
from ._states import block_states, hold_all_but, only, read_rows, terms_apart

log = logging.getLogger("letheon")
TELLING = 0.75  # area under the curve from which a probe can be said to tell known from unknown names


class SAEUnlearningSettings(ObjectiveSettings):
    """Places to start from; the paper's values are not known."""

    layer: int | None = Field(None, ge=0, description="index of the block whose output is read; unset: the middle one")
    latents: int = Field(64, ge=1, description="latents that are moved")
    away: float = Field(1.0, ge=0, description="factor of the distance from known names (lambda)")
    margin: float = Field(1.0, gt=0, description="distance from known names beyond which nothing is pushed, in units of v")
    hold: float = Field(1.0, ge=0, description="factor of the term that holds the states at known names")
    leak: float = Field(0.1, ge=0, le=1, description="slope of gradients through latents that are not active")
    templates: int = Field(8, ge=1, description="texts around a name: the name alone, and questions of the data")
    unknown: str | None = Field(None, min_length=1, description="split whose names the subject never saw; unset: names are invented")
    invented: int = Field(64, ge=2, description="how many are invented")
    width: int = Field(8, ge=1, description="latents of the autoencoder per dimension of the states")
    active: int = Field(16, ge=1, description="latents above 0 at most")
    sae_steps: int = Field(1000, ge=1, description="steps in which the autoencoder is trained")
    sae_tokens: int = Field(65536, ge=64, description="states it is trained on, at most")
    progress: float = Field(0.9, gt=0, description="mean progress of the names of a step at which training ends")
    steps: int | None = Field(200, ge=1, description="optimiser steps at most; unset, `epochs` counts")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of matrices; it pulls on held weights too")
    retain: Choice = Field("kl", description="retain term: what holds the rest in place")  # type: ignore[assignment]


def pull(z: Tensor, unknown: Tensor, known: Tensor, away: float, margin: float) -> Tensor:
    """near - away min(far, margin) of latents (n, j), (n,)."""
    spread = (unknown - known).square().sum()
    near, far = ((z - goal).square().sum(-1) / spread for goal in (unknown, known))
    return near - away * far.clamp(max=margin)


def progressed(z: Tensor, unknown: Tensor, known: Tensor) -> Tensor:
    """How far latents (n, j) are on the way from known to unknown, (n,): 0 and 1 at the two."""
    return (z - known) @ (unknown - known) / (unknown - known).square().sum()


class SAEUnlearning(Objective):
    """Moves the latents of names from known to unknown."""

    Settings, tiny = SAEUnlearningSettings, {"steps": 3, "sae_steps": 5, "latents": 8, "templates": 2, "progress": 100.0}

    @property
    def splits(self) -> tuple[str, ...]:
        """Known names come from the retain rows."""
        more = ("retain", *([self.settings.unknown] if self.settings.unknown else []))
        return tuple(dict.fromkeys((*super().splits, *more)))

    @property
    def reads(self) -> tuple[str, ...]:
        """Texts that end with a name take the place of forget rows."""
        return ("target", "known")

    def prepare(self, subject: Subject, data: Data, run: Run) -> Data:
        """Find the names and make the texts that end with them.

        Raises:
            DataError: a split is missing, or there are too few names.
        """
        settings = self.settings
        data.need(*self.splits, why=f"`{self.name()}`")
        rows = [*data["forget"], *data["retain"]]
        names = names_of(rows)
        told = [[names[row.group] for row in data[split] if row.group in names] for split in ("forget", "retain")]
        self.targets, known = list(dict.fromkeys(told[0])), [name for name in dict.fromkeys(told[1]) if name not in told[0]]
        if not self.targets or len(known) < 2:
            what = f"`{self.name()}` moves names, and found {len(self.targets)} in `forget` and {len(known)} others in `retain`"
            raise DataError(what, "Rows need a `group`, and questions that name it; for others use `rmu` or `kuda`")
        if settings.unknown:
            strangers = [name for name in names_of(data[settings.unknown]).values() if name not in names.values()]
        else:
            strangers = invented([*self.targets, *known], settings.invented, run.rng("names"))
        if len(strangers) < 2:
            where = f"the split `{settings.unknown}` names" if settings.unknown else "parts of these names make"
            raise DataError(f"`{self.name()}` needs unknown names, and {where} {len(strangers)}", "Give a split of strangers as `unknown`")
        self.templates = templates_of(rows, names, settings.templates)
        self.target_of = [
            self.targets.index(names[row.group]) if row.group in names else i % len(self.targets) for i, row in enumerate(data["forget"])
        ]
        self.known_rows, self.unknown_rows = (name_rows(subject.encoder, who, self.templates) for who in (known, strangers))
        self.order = torch.randperm(len(self.known_rows), generator=run.rng("known")).numpy()
        data = data.with_split("target", name_rows(subject.encoder, self.targets, self.templates))
        return data.with_split("known", self.known_rows)

    def planned(self, rows: Rows, epoch: int) -> Rows:
        """For each forget row its name in the next template, and a known name."""
        at, count, n = rows["forget"], len(self.templates), len(self.target_of)
        target = np.array([self.target_of[row] * count + (row + epoch) % count for row in at], dtype=np.int64)
        return {**rows, "target": target, "known": self.order[(epoch * n + at) % len(self.order)]}

    @torch.no_grad()
    def start(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Train the autoencoder, find the latents and the two sides, cache the states at known names."""
        settings, blocks = self.settings, block_names(subject.module)
        at = round((len(blocks) - 1) / 2) if settings.layer is None else block_at(subject.module, settings.layer)
        self.block, self.moving, self.run = blocks[at], tuple(f"{block}." for block in blocks[: at + 1]), run
        self.feed, self.incoming = feed, subject
        known, unknown = (self._at_names(subject, rows, feed, run) for rows in (self.known_rows, self.unknown_rows))
        self.then, self.length = known, known.square().sum(-1).mean()
        corpus = torch.cat([self._corpus(subject, feed, run), known, unknown])
        with torch.enable_grad():
            m = settings.width * corpus.shape[1]
            self.sae = fit(corpus, m, settings.active, settings.sae_steps, run.rng("sae"))
        self.explained = self.sae.explained(corpus)
        self.sides = [self._by_name(states) for states in (known, unknown)]  # (names, templates, m) each
        first = [side[: (len(side) + 1) // 2] for side in self.sides]  # the other halves are for the audit
        often = [(side > 0).float().mean((0, 1)) for side in first]
        self.chosen = (often[0] - often[1]).abs().argsort(descending=True, stable=True)[: settings.latents]
        self.known, self.unknown = (side.mean((0, 1))[self.chosen] for side in first)
        if not float((self.unknown - self.known).square().sum()) > 0:
            what = f"No latent of `{self.block}` tells known names from unknown ones"
            raise MethodError(what, "Choose another `layer`, or train the autoencoder for more `sae_steps`")
        self.before = self._scores(subject, feed, run)
        if self.before["probe_auc"] < TELLING:
            log.warning("known and unknown names look alike in `%s` (AUC %.2f): little can be moved", self.block, self.before["probe_auc"])
        self.held: tuple[Any, list[Any]] = (None, [])

    def _at_names(self, subject: Subject, rows: list[Example], feed: Feed, run: Run) -> Tensor:
        """States of the block at the last token of each text, (n, d), in order."""
        encoded, found = subject.encoder.encode(Split(rows, "names")), []
        for some in np.array_split(np.arange(len(rows)), -(-len(rows) // 64)):
            with run.autocast():
                found.append(self._last(subject, collate(encoded, some, feed.pad, feed.device)))
        return torch.cat(found)

    def _last(self, subject: Subject, batch: Any) -> Tensor:
        at = torch.arange(len(batch), device=batch.ids.device), batch.lengths - 2  # the last one is the end token
        return block_states(subject.module, batch, [self.block], at)[:, 0]

    def _corpus(self, subject: Subject, feed: Feed, run: Run) -> Tensor:
        """States at tokens of retain and forget rows, drawn row by row, (n, d); begin tokens are left out."""
        found: list[Tensor] = []
        for split in ("retain", "forget"):
            rows, room = len(feed.encoded[split]), self.settings.sae_tokens // 2
            order = torch.randperm(rows, generator=run.rng("corpus", split)).numpy()
            fitting = np.cumsum(feed.encoded[split].lengths[order]) <= room
            for batch in feed.sweep(split, order[: max(1, int(fitting.sum()))]):
                mask = batch.mask
                mask[:, : len(subject.encoder.begin)] = False
                with run.autocast():
                    found.append(block_states(subject.module, batch, [self.block], mask.nonzero(as_tuple=True))[:, 0])
        return torch.cat(found)

    def _by_name(self, states: Tensor) -> Tensor:
        return self.sae.encode(states).unflatten(0, (-1, len(self.templates)))

    def _moves(self, name: str, parameter: Any) -> bool:
        return name.startswith(self.moving)

    def drawn(self, subject: Subject, feed: Feed, rows: Rows, run: Run) -> Rows:
        """Hold the blocks above, and leave out rows that nothing reads."""
        if subject is not self.incoming and self.held[0] is not subject.module:  # a parameter space may ask for the slope at the start
            where = f"the blocks up to `{self.block}`"
            self.held = subject.module, hold_all_but(subject.module, self._moves, where)
        self.reached = torch.zeros(2, dtype=torch.float64, device=feed.device)
        return read_rows(self, rows)

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Sums over names of the pull and of the movement at known names."""
        settings, found = self.settings, {}
        with only(subject.module, self._moves, subject is self.incoming):
            states = {split: self._last(subject, batches[split]) for split in self.reads if split in batches}
        if "target" in batches:
            z = self.sae.encode(states["target"], settings.leak)[:, self.chosen]
            each = pull(z, self.unknown, self.known, settings.away, settings.margin)
            found["forget"] = Term(each.sum(), per="sequence", of="target", weight=settings.forget_weight)
            done = progressed(z.detach(), self.unknown, self.known)
            self.reached += torch.stack([done.sum().double(), done.new_tensor(len(done), dtype=torch.float64)])
        if "known" in batches and settings.hold:
            moved = states["known"] - self.then[batches["known"].rows]
            total = (moved.square().sum(-1) / self.length).sum()
            found["hold"] = Term(total, per="sequence", of="known", weight=settings.hold)
        return found

    def terms(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """The passes over names end after the block; the retain term has one of its own."""
        return terms_apart(self, subject, batches)

    def done(self, values: Mapping[str, float]) -> bool:
        """Whether the names of this step have come far enough."""
        total, count = self.run.accelerator.reduce(self.reached, "sum") if self.run.distributed else self.reached
        return bool(count) and float(total / count) >= self.settings.progress

    @torch.no_grad()
    def _scores(self, subject: Subject, feed: Feed, run: Run) -> dict[str, float]:
        """Mean progress of the targets, and the share that a linear classifier of known and unknown names calls unknown."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score

        states = self._at_names(subject, list(feed.data["target"]), feed, run)
        z = self._by_name(states)
        sides = [side.mean(1).cpu().numpy() for side in self.sides]
        x, rest = (np.concatenate([side[part] for side in sides]) for part in (slice(0, None, 2), slice(1, None, 2)))
        y, others = (np.repeat([0, 1], [len(side[part]) for side in sides]) for part in (slice(0, None, 2), slice(1, None, 2)))
        probe = LogisticRegression(max_iter=1000).fit(x, y)
        return {
            "progress": float(progressed(z.mean(1)[:, self.chosen], self.unknown, self.known).mean()),
            "called_unknown": float(probe.predict(z.mean(1).cpu().numpy()).mean()),
            "probe_auc": float(roc_auc_score(others, probe.decision_function(rest))),
        }

    @torch.no_grad()
    def finish(self, subject: Subject) -> dict[str, Any]:
        """Scores before and after, and how good the autoencoder is."""
        for handle in self.held[1]:
            handle.remove()
        told = {"block": self.block, "targets": len(self.targets), "explained_variance": self.explained}
        return {**told, "before": self.before, "after": self._scores(subject, self.feed, self.run)}
