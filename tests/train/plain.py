"""The plainest objective and rules, for tests of the loop."""

from __future__ import annotations

import torch

from letheon.core.settings import Settings
from letheon.testing._changes import trainer_for
from letheon.testing.toys import toy_data, toy_subject
from letheon.train.objective import Objective, ObjectiveSettings, Term
from letheon.train.parts import Rule


class Ascent(Objective):
    """Ascent on forget answers."""

    Settings, tiny = ObjectiveSettings, {"steps": 3}
    per = "token"

    def loss(self, subject, batches):
        nll = batches.nll(subject.module, "forget")
        return {"forget": Term(-nll.sum(), per=self.per, weight=self.settings.forget_weight)}


class AscentPerRow(Ascent):
    """The same, divided by rows."""

    per = "sequence"


class SumOfParts(Rule):
    """What the plain sum does, the long way."""

    Settings, tiny, separate = Settings, {}, True

    def combine(self, parts, named, optimizer):
        weighted = [[part.weight * g for g in part.gradient] for part in parts.values()]
        return [torch.stack(each).sum(0) for each in zip(*weighted, strict=True)], {"parts": float(len(parts))}


def trainer(objective, run, seed: int = 0):
    return trainer_for(objective, toy_subject(seed), toy_data(), run)


def gradient(one) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in one.parameters])
