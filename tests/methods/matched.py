"""Matched forgetting: train without retain data until the forgotten values are unlikely, then look at what is left of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from letheon.core.batching import collate
from letheon.core.data import Data
from letheon.core.forward import Batches
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.train.objective import Objective

from .fact_world import SHARED, trainer

MATCHED = {
    "steps": 100,
    "learning_rate": 3e-4,
    "batch_size": 24,
    "schedule": "constant",
    "warmup": 0.0,
    "weight_decay": 0.0,
    "retain": "none",
}
LEVELS = (0.3, 0.2, 0.1)


@dataclass(frozen=True)
class Matched:
    """Mean probabilities when the forget values first fall below 0.3, below 0.2 and below 0.1, and their mean.

    Attributes:
        forget, retain: of the values, the facts themselves.
        template: of the tokens of forget answers that all answers share.
        steps: how many it took; all that were planned if the last level was not reached.
    """

    forget: float
    retain: float
    template: float
    steps: int


@torch.no_grad()
def _probabilities(subject: Subject, data: Data, split: str) -> torch.Tensor:
    """(n, 7): all answers have seven tokens, the last but one is the value."""
    encoded = subject.encoder.encode(data[split])
    batches = Batches({split: collate(encoded, range(len(encoded)), subject.encoder.pad)})
    return (-batches.nll(subject.module, split).values).exp().view(len(encoded), -1)


def at_matched_forgetting(method: Objective, subject: Subject, data: Data, run: Run) -> Matched:
    """Advance until it has forgotten; the caller looks at the steps to see that it has."""
    ready, found = trainer(method, subject, data, run), []
    for level in LEVELS:
        forget = _probabilities(ready.subject, data, "forget")
        while ready.step < len(ready.feed.plan) and float(forget[:, -2].mean()) > level:
            ready.advance()
            forget = _probabilities(ready.subject, data, "forget")
        retain = _probabilities(ready.subject, data, "retain")
        found.append((float(forget[:, -2].mean()), float(retain[:, -2].mean()), float(forget[:, SHARED].mean())))
    return Matched(*map(fmean, zip(*found, strict=True)), ready.step)


def matched(method: Objective, subjects: Sequence[Subject], data: Data) -> Matched:
    """Means over models, and the steps of the slowest."""
    each = [at_matched_forgetting(method, one, data, Run(seed, dtype="float32", device="cpu")) for seed, one in enumerate(subjects)]
    return Matched(*(fmean(getattr(one, name) for one in each) for name in ("forget", "retain", "template")), max(o.steps for o in each))
