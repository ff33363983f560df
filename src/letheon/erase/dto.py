"""Direct token optimisation: find the answer tokens that carry the memory, push those, hold the rest.

Retain data or a list of secret words may not be at hand. The model itself tells which tokens matter, and the other tokens of the same
answers are the anchor.

    delta_r = mean_v B(x_r := v) - B         B: nll of the end of the answer in the incoming model, v: random token in the place of x_r
    L = -(1 / |T|) sum_{j in T} nll_j + retain_weight (1 / |N|) sum_{j in N} KL(frozen_j || now_j)

Answers are cut in two: the last `suffix` of their tokens is the end that is looked at, each token before it has a delta. T holds the
`targets` share of those with the largest delta in each answer, N all other answer tokens, so the end itself is never pushed; an answer
too short to cut has targets only. Scores are taken once; a model that does not read x_r gives delta 0. `targets` 1 with `retain_weight` 0
is ascent on the scored tokens, `targets` 0 has no gradient at the start. Where the two gradients conflict the first gives way, which is a
gradient rule. The KL is the retain term and no other data is read: it protects only what stands in the forget answers, and facts kept by
the same machinery suffer.

RECONSTRUCTION: abstract, a summary and reviews fix the structure; the formulas, all defaults, the direction of the KL and the answer-only
cut are ours. The frozen side is cached: masks, and final hidden states. arXiv:2510.00125. Card: dto.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from letheon.core.answers import sums_of_ends
from letheon.core.encode import Encoded
from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.settings import Choice
from letheon.core.subject import Subject
from letheon.maths.divergence import kl_to_frozen
from letheon.train.feed import Feed, Rows
from letheon.train.frozen import FrozenStates
from letheon.train.objective import Field, Objective, Term, TrainSettings


class DTOSettings(TrainSettings):
    """Places to start from; the paper's values are not known."""

    targets: float = Field(0.3, ge=0, le=1, description="share of the tokens before the end of an answer that are pushed")
    suffix: float = Field(0.5, gt=0, lt=1, description="share of the answer tokens that make its end")
    draws: int = Field(8, ge=1, description="random replacements of each token before the end")
    forget_weight: float = Field(1.0, ge=0, description="factor of the ascent on the targets")
    retain_weight: float = Field(1.0, ge=0, description="factor of the KL on all other answer tokens")
    rule: Choice = Field("pcgrad:yields=forget", description="gradient rule: by default the ascent gives way")  # type: ignore[assignment]


class DTO(Objective):
    """Ascent on the tokens that the end of the answer leans on, KL on the others."""

    Settings, tiny = DTOSettings, {"steps": 3, "draws": 1}
    shares: tuple[float, float] = (1.0, 1.0)  # answer tokens of the step per target and per other: the loop divides by all of them

    def start(self, subject: Subject, feed: Feed, run: Run) -> None:
        """Score the tokens of every forget answer, choose the targets, cache the incoming distributions."""
        settings, encoded = self.settings, feed.encoded["forget"]
        self.frozen = FrozenStates(subject, feed, "forget", run)
        self.is_target = torch.zeros(int(self.frozen.offsets[-1]), dtype=torch.bool, device=feed.device)
        self.counted = np.zeros(len(encoded), dtype=np.int64)  # targets of each row
        generator = run.rng("replacements")
        for row in feed.used("forget"):
            scored = int(encoded.scored[row])
            before = math.floor((1 - settings.suffix) * scored + 1e-9)  # (1 - 0.8) * 5 is just below 1
            if before:
                delta = leaning(subject, feed, int(row), before, settings.draws, generator)
                chosen = delta.argsort(descending=True, stable=True)[: math.ceil(settings.targets * before)]
            else:
                chosen = torch.arange(scored if settings.targets else 0)
            self.is_target[int(self.frozen.offsets[row]) + chosen.to(feed.device)] = True
            self.counted[row] = len(chosen)

    def drawn(self, subject: Subject, feed: Feed, rows: Rows, run: Run) -> Rows:
        """Count the targets of the step and the other tokens."""
        tokens, targets = int(feed.encoded["forget"].scored[rows["forget"]].sum()), int(self.counted[rows["forget"]].sum())
        self.shares = tokens / max(1, targets), tokens / max(1, tokens - targets)
        return rows

    def loss(self, subject: Subject, batches: Batches) -> dict[str, Term]:
        """Minus the nll of the targets, and the KL of all other forget answer tokens."""
        target = self.is_target[self.frozen.places(batches["forget"])]  # (m,)
        nll = batches.nll(subject.module, "forget").values
        hidden, head = batches.hidden(subject.module)
        now, then = hidden["forget"].states[~target], self.frozen.of(batches["forget"])[~target]
        held = kl_to_frozen(now, head, then, self.frozen.head).sum()
        return {
            "forget": Term(-self.shares[0] * nll[target].sum(), per="token", weight=self.settings.forget_weight),
            "retain": Term(self.shares[1] * held, per="token", of="forget", weight=self.settings.retain_weight),
        }


def leaning(subject: Subject, feed: Feed, row: int, before: int, draws: int, generator: torch.Generator) -> Tensor:
    """How much the end of a forget answer leans on each of its first `before` scored tokens, (before,) in nats.

    The mean rise of the summed nll of the tokens after them when one is replaced by a token drawn evenly from all other plain tokens.
    """
    encoded = feed.encoded["forget"]
    own = encoded.row(row).astype(np.int64)
    first = max(int(encoded.starts[row]), 1)
    special = set(subject.encoder.tokenizer.all_special_ids)
    allowed = torch.tensor([token for token in range(len(subject.encoder.tokenizer)) if token not in special])
    variants = [own]
    for at in range(first, first + before):
        fitting = allowed[allowed != int(own[at])]
        for k in torch.randint(len(fitting), (draws,), generator=generator):
            variants.append(own.copy())
            variants[-1][at] = fitting[k]
    rows = Encoded.from_rows(variants, [first + before] * len(variants))
    nll = torch.from_numpy(sums_of_ends(subject, rows, np.zeros(len(variants)), tokens_per_batch=2 * feed.budget)).float()
    return nll[1:].view(before, draws).mean(-1) - nll[0]
