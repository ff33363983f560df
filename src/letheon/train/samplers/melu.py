"""Pairs forget and retain rows entity by entity: a forget row meets neighbours of whom it is about.

What suffers first when a person is forgotten are the people and things next to them. A random or cycling partner hardly ever is one.

    a   for every forgotten entity e with rows F_e and neighbour rows R_e: the shorter is cycled to the length of the longer, and zipped
    b   every other retain row (general knowledge) meets a forget row drawn from the pairs of a
    an epoch = sum_e max(|F_e|, |R_e|) + |general| pairs, in an order that is shuffled anew

Every retain row comes up once in an epoch where |R_e| >= |F_e|, and the rows of F_e equally often up to one. The pairs are fixed by the
seed, only their order changes; with `order` = by-entity all pairs of one entity follow one another. An epoch is longer than one over the
forget rows, by |retain| / |forget| and more: give `steps` to compare at equal work.

A retain row is a neighbour of e if its `group` is that of forget rows of e. Where no row is marked so, `near` retain entities are its
neighbours, those whose words (TF-IDF of prompts and answers, cosine) are most like those of e; entities choose in turn and nobody is
chosen twice. The published sets come from page links and a language model. A forget row without neighbours, which the published table
leaves out, meets general rows first of all. Splits besides the leading one and `retain` are walked in shuffled passes.
arXiv:2509.05316. Card: melu.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch

from letheon.core.data import Data, Split
from letheon.core.errors import DataError, MethodError
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.train.parts import Sampler

from ._passes import stream

Sets = dict[str, tuple[np.ndarray, np.ndarray]]  # entity -> its forget rows and its neighbours' rows


class MELUSettings(Settings):
    """Who is a neighbour, and in which order pairs come."""

    near: int = Field(2, ge=1, description="neighbours of each forgotten entity by likeness of words, where no row marks any")
    order: Literal["shuffled", "by-entity"] = Field("shuffled", description="order of the pairs in an epoch")


class MELU(Sampler):
    """Modular pairs of forget and retain rows."""

    Settings, tiny, repeats = MELUSettings, {}, True

    def __init__(self, /, **values: object):
        super().__init__(**values)
        self.data: Data | None = None
        self._sets: dict[tuple[str, str], Sets] = {}

    def start(self, data: Data) -> None:
        """Take the rows in."""
        self.data, self._sets = data, {}

    def epoch(self, sizes: Mapping[str, int], lead: str, rows: int, run: Run, epoch: int) -> list[dict[str, np.ndarray]]:
        """Steps of one epoch over the table of pairs; the last one may be smaller.

        Raises:
            DataError: no forget row says what it is about, or none has a neighbour.
            MethodError: the sampler has not seen the rows.
        """
        partner = "retain" if "retain" in sizes else next((split for split in sizes if split != lead), None)
        pairs, entities = self._pairs(sizes, lead, partner, run)
        rng = run.rng("order", lead, epoch)
        order = torch.randperm(len(pairs), generator=rng).numpy()
        if self.settings.order == "by-entity":
            turn = torch.randperm(int(entities.max()) + 1, generator=rng).numpy()
            order = order[np.argsort(turn[entities[order]], kind="stable")]
        drawn = {lead: pairs[order, 0]} | ({partner: pairs[order, 1]} if partner else {})
        n = len(order)
        drawn |= {split: stream(size, epoch * n, n, run, split) for split, size in sizes.items() if split not in drawn}
        return [{split: drawn[split][i : i + rows] for split in sizes} for i in range(0, n, rows)]

    def _pairs(self, sizes: Mapping[str, int], lead: str, partner: str | None, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """The table, (pairs, 2), and the number of the entity of each pair's forget row, (pairs,)."""
        if self.data is None:
            raise MethodError("`melu` has not seen any rows", "Call `start` before `epoch`")
        number = {group: k for k, group in enumerate(dict.fromkeys(row.group for row in self.data[lead]))}
        entity = np.array([number[row.group] for row in self.data[lead]])
        if partner is None:  # nothing to pair with
            alone = np.arange(sizes[lead])
            return np.stack([alone, alone], 1), entity
        if (lead, partner) not in self._sets:
            self._sets[lead, partner] = neighbour_sets(self.data[lead], self.data[partner], self.settings.near)
        pairs = table(self._sets[lead, partner], sizes[lead], sizes[partner], run)
        return pairs, entity[pairs[:, 0]]


def neighbour_sets(forget: Split, retain: Split, near: int) -> Sets:
    """The forget rows and the neighbours' rows of every entity that has both, in the order of the forget split.

    Raises:
        DataError: no forget row has a `group`, or no entity has a neighbour.
    """
    own, other = _by_group(forget), _by_group(retain)
    if not own:
        raise DataError("`melu` pairs rows by what they are about, and no forget row has a `group`", "Give rows a group, or use `cyclic`")
    sets = {group: (rows, other[group]) for group, rows in own.items() if group in other}
    if not sets and other:
        taken = _nearest([_text(forget, rows) for rows in own.values()], [_text(retain, rows) for rows in other.values()], near)
        groups = list(other)
        sets = {
            group: (rows, np.sort(np.concatenate([other[groups[k]] for k in chosen])))
            for (group, rows), chosen in zip(own.items(), taken, strict=True)
            if chosen
        }
    if not sets:
        raise DataError("`melu` finds no neighbour of any forgotten entity in the retain rows", "Give rows a `group`, or use `cyclic`")
    return sets


def _by_group(split: Split) -> dict[str, np.ndarray]:
    found: dict[str, list[int]] = {}
    for i, row in enumerate(split):
        if row.group is not None:
            found.setdefault(row.group, []).append(i)
    return {group: np.array(rows) for group, rows in found.items()}


def _text(split: Split, rows: np.ndarray) -> str:
    return "\n".join(f"{split[int(i)].prompt_text} {split[int(i)].answer}" for i in rows)


def _nearest(forgotten: Sequence[str], others: Sequence[str], near: int) -> list[list[int]]:
    """For each forgotten text the numbers of the others that are most like it, at most `near`; they choose in turn."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True).fit_transform([*forgotten, *others])
    alike = (words[: len(forgotten)] @ words[len(forgotten) :].T).toarray().round(9)  # rows of length 1; ties go to the first
    found: list[list[int]] = [[] for _ in forgotten]
    for _ in range(min(near, len(others))):
        for e, chosen in enumerate(found):
            best = int(alike[e].argmax())
            if alike[e, best] > 0:
                chosen.append(best)
                alike[:, best] = 0
    return found


def table(sets: Sets, forget: int, retain: int, run: Run) -> np.ndarray:
    """Pairs (forget row, retain row), (pairs, 2), of splits with `forget` and `retain` rows."""
    zipped = []
    for mine, theirs in sets.values():
        longest = np.arange(max(len(mine), len(theirs)))
        zipped.append(np.stack([mine[longest % len(mine)], theirs[longest % len(theirs)]], 1))
    pairs = np.concatenate(zipped)
    lone = np.setdiff1d(np.arange(forget), pairs[:, 0])
    general = np.setdiff1d(np.arange(retain), pairs[:, 1])
    n = max(len(general), len(lone))
    general = general if len(general) else np.arange(retain)
    drawn = pairs[torch.randint(len(pairs), (max(0, n - len(lone)),), generator=run.rng("melu", "general")).numpy(), 0]
    shuffled = general[torch.randperm(len(general), generator=run.rng("melu", "partners")).numpy()]
    left = np.concatenate([lone, drawn])
    return np.concatenate([pairs, np.stack([left, np.resize(shuffled, n)], 1)])
