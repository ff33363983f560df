"""Can a linear probe on inner states tell true answers from wrong ones, or seen rows from new ones?

h_l is the residual stream after block l, of length sqrt(d); e_t the output embedding of token t, of the same length. A probe is a logistic
regression on standardised features, fitted on other people's rows and never on those it judges.

    probe-truth   features h_l * e_t (entry by entry, (d,)), h_l at the token before the deciding one, t the true token or a wrong one
                  max_l mean_i share of wrong tokens of row i that the probe puts below the true one (ties half)      0.5: chance
    probe-seen    features h_l at the last token of the true answer, which was read
                  max_l mean_i share of holdout rows that the probe puts below forget row i (ties half)               0.5: chance

With all weights 1 probe-truth is the logit lens (see `logit-lens`, also for the deciding token); the probe learns on rows to keep how each
block writes down what it will say. For the forget split it is fitted on the rows to keep, which an attacker has; rows to keep are judged
in folds of whole groups, and so is the forget split where no other rows have wrong answers. probe-seen is fitted in folds of whole groups
of both splits and judged within each fold. The best block counts, as an attacker takes it; `extra` holds chance, the curve, and that of a
probe fitted on shuffled labels: selectivity is what the true labels add at the same block. Rows may differ in kind, and wrong answers by
their form: the same probe on the retrained model is the control. arXiv:2409.18025, arXiv:1909.03368. Card: relearning-and-extraction.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from letheon.core.data import Data, Split
from letheon.core.encode import Encoded
from letheon.core.findings import Finding
from letheon.core.forward import head_of
from letheon.core.method import Audit
from letheon.core.run import Run
from letheon.core.settings import Field
from letheon.core.subject import Subject

from ._inside import deciding, last_states
from ._parts import ProbeSettings, cut, missing, nothing, row_finding, toward

if TYPE_CHECKING:
    from letheon.core.readings import Readings

KEPT = ("retain-check", "retain")  # rows that an attacker has, the first that have wrong answers


class ProbingSettings(ProbeSettings):
    """The probe and its folds."""

    splits: tuple[str, ...] = Field(("forget", "retain-check"), min_length=1, description="splits whose answers are judged")
    holdout: str = Field("holdout", description="rows that nobody trained on, for probe-seen; it is asked of the first of `splits`")
    limit: int | None = Field(200, ge=1, description="rows per split, the first ones in their order; None: all")
    folds: int = Field(4, ge=2, description="parts into which the groups are cut where a probe is fitted on the split that it judges")
    strength: float = Field(0.1, gt=0, description="inverse of the L2 penalty of the logistic regression")


class Probing(Audit):
    """Linear probes, layer by layer."""

    Settings, tiny = ProbingSettings, {"limit": 4, "folds": 2}

    def measure(
        self, readings: Readings, data: Data, run: Run, reference: Readings | None = None, original: Readings | None = None
    ) -> list[Finding]:
        """`probe-truth` of every split and `probe-seen` of the first."""
        where, holdout = self.settings.splits[0], self.settings.holdout
        found = [self._truth(name, readings, data, run) for name in self.settings.splits]
        note = missing(data, where) or missing(data, holdout)
        if note:
            return [*found, nothing(self, "probe-seen", note, where)]
        sides = [cut(data[name], self.settings.limit) for name in (where, holdout)]
        both = Split([replace(row, id=f"{k}/{row.id}") for k, side in enumerate(sides) for row in side], "both")

        def measured() -> np.ndarray:
            return self._seen(readings.subject, *sides, run)

        curves = readings.numbers("probe_seen", both, measured, cut=len(sides[0]), **self._depends(run))
        return [*found, self._best("probe-seen", where, curves, run, "fewer than two groups on a side")]

    def _truth(self, where: str, readings: Readings, data: Data, run: Run) -> Finding:
        note = missing(data, where)
        if note:
            return nothing(self, "probe-truth", note, where)
        split = Split([row for row in cut(data[where], self.settings.limit) if row.wrong], where)
        kept = () if where in KEPT else tuple([row for row in data[name] if row.wrong] for name in KEPT if name in data)
        pool = cut(Split(next((rows for rows in kept if rows), split), "pool"), self.settings.limit)
        if not len(split):
            return nothing(self, "probe-truth", "no wrong answer beside the true one", where)

        def measured() -> np.ndarray:
            return self._judge_truth(readings.subject, split, pool, run)

        curves = readings.numbers("probe_truth", split, measured, pool=pool.digest, **self._depends(run))
        return self._best("probe-truth", where, curves, run, "too few groups to fit on some and judge others")

    def _depends(self, run: Run) -> dict[str, Any]:
        return {"folds": self.settings.folds, "strength": self.settings.strength, "seed": run.seed}

    def _best(self, name: str, where: str, curves: np.ndarray, run: Run, why: str) -> Finding:
        """The finding of (2, blocks, n) shares: with true labels, and the same with shuffled ones."""
        true, shuffled = curves
        if np.isnan(true).all():
            return nothing(self, name, why, where)
        curve, control = (np.nanmean(part, 1) for part in (true, shuffled))
        best = int(curve.argmax())
        extra = {"curve": curve.tolist(), "shuffled": control.tolist(), "block": best, "selectivity": float(curve[best] - control[best])}
        return row_finding(self, name, where, true[best], run, direction=toward(where), why=why, chance=0.5, **extra)

    def _judge_truth(self, subject: Subject, split: Split, pool: Split, run: Run) -> np.ndarray:
        features, owner, true = candidates(subject, split)
        same = pool.digest == split.digest
        known = (features, owner, true) if same else candidates(subject, pool)
        groups, others = ([row.group or row.id for row in rows] for rows in (split, pool))
        folds = list(_folds(groups, self.settings.folds)) if same else [np.ones(len(split), dtype=bool)]
        coin = np.random.default_rng(run.derived_seed("shuffled", split.digest))
        out = np.full((2, features.shape[1], len(split)), np.nan)
        for judged in folds:
            held = {group for group, mine in zip(groups, judged, strict=True) if mine}
            free = np.array([group not in held for group in others])[known[1]]
            if not free.any():
                continue
            x, y, rows = known[0][free], known[2][free], known[1][free]
            lie = _one_of_each(rows, coin)
            for k in range(features.shape[1]):
                for which, labels in enumerate((y, lie)):
                    score = fitted(x[:, k], labels, self.settings.strength)(features[:, k])
                    for i in np.flatnonzero(judged):
                        wrong = score[(owner == i) & ~true]
                        if len(wrong):
                            out[which, k, i] = _below(score[(owner == i) & true][0], wrong)
        return out

    def _seen(self, subject: Subject, members: Split, others: Split, run: Run) -> np.ndarray:
        states = [_after(subject, side) for side in (members, others)]
        groups = [[row.group or row.id for row in side] for side in (members, others)]
        x, y = np.concatenate(states), np.repeat([True, False], [len(members), len(others)])
        coin = np.random.default_rng(run.derived_seed("shuffled", "seen"))
        out = np.full((2, x.shape[1], len(members)), np.nan)
        parts = min(self.settings.folds, *(len(set(side)) for side in groups))
        if parts < 2:
            return out
        for mine, theirs in zip(*(_folds(side, parts) for side in groups), strict=True):
            judged = np.concatenate([mine, theirs])
            lie = coin.permutation(y[~judged])
            for k in range(x.shape[1]):
                for which, labels in enumerate((y[~judged], lie)):
                    score = fitted(x[~judged, k], labels, self.settings.strength)(x[:, k])
                    out[which, k, mine] = [_below(value, score[judged & ~y]) for value in score[judged & y]]
        return out


def candidates(subject: Subject, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (m, blocks, d) of each row's true and wrong tokens, their rows (m,) and whether the token is true (m,).

    Rows whose wrong answers never part from the true one have the true token alone.
    """
    places = deciding(subject, split)
    tokens = [(right, *wrong) for right, wrong in zip(places.right.tolist(), places.wrong, strict=True)]
    owner = np.repeat(np.arange(len(split)), [len(own) for own in tokens])
    true = np.concatenate([np.arange(len(own)) == 0 for own in tokens])
    states = _scaled(last_states(subject, places.encoded))
    embedding = _scaled(head_of(subject.module).weight.detach()[[token for own in tokens for token in own]])
    return states[owner] * embedding[:, None], owner, true


def _scaled(x: Tensor) -> np.ndarray:
    """Vectors (..., d) with a mean square of 1."""
    x = x.float()
    return (x / x.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-12)).cpu().numpy()


def _after(subject: Subject, split: Split) -> np.ndarray:
    """States at the last token of each answer, without the end token, (n, blocks, d)."""
    encoded = subject.encoder.encode(split)
    return last_states(subject, Encoded.from_rows([encoded.row(i)[:-1] for i in range(len(encoded))], encoded.starts)).cpu().numpy()


def fitted(x: np.ndarray, y: np.ndarray, strength: float) -> Callable[[np.ndarray], np.ndarray]:
    """The decision function of a logistic regression on (m, d) with labels (m,); both classes weigh the same."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    centre, spread = x.mean(0), x.std(0) + 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that is not quite at its optimum is a probe
        probe = LogisticRegression(C=strength, class_weight="balanced", max_iter=100).fit((x - centre) / spread, y)
    return lambda z: probe.decision_function((z - centre) / spread)


def _below(true: float, wrong: np.ndarray) -> float:
    return float(((wrong < true) + 0.5 * (wrong == true)).mean())


def _one_of_each(rows: np.ndarray, coin: np.random.Generator) -> np.ndarray:
    """True on one answer of each row, drawn evenly, (m,)."""
    chosen = np.zeros(len(rows), dtype=bool)
    for row in np.unique(rows):
        chosen[coin.choice(np.flatnonzero(rows == row))] = True
    return chosen


def _folds(groups: list[str], parts: int) -> Iterator[np.ndarray]:
    """Masks (n,) of whole groups, dealt out in the order in which they turn up."""
    number = {group: k for k, group in enumerate(dict.fromkeys(groups))}
    for fold in range(min(parts, len(number))):
        yield np.array([number[group] % parts == fold for group in groups])
