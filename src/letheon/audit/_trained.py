"""Rows of a training run and when each was trained, as far as the rows are at hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from letheon.core.data import Data, Example, Split
from letheon.train.order import Order, row_digest

from ._parts import missing


@dataclass(frozen=True)
class Trained:
    """Rows with the time of their last visit, `when` (n,), and what is to be told about them."""

    rows: Split
    when: np.ndarray
    note: str = ""
    about: dict[str, Any] = field(default_factory=dict)

    def sample(self, most: int | None) -> Trained:
        """At most `most` rows, evenly over the split: a choice that does not depend on the order."""
        if most is None or len(self.rows) <= most:
            return self
        chosen = np.linspace(0, len(self.rows) - 1, most).round().astype(int)
        return Trained(Split([self.rows[i] for i in chosen], self.rows.name), self.when[chosen], self.note, self.about)


def from_rows(data: Data, where: str) -> Trained | str:
    """The rows of a split, which stand in the order of training; or why there are none."""
    note = missing(data, where)
    if note:
        return note
    digests = [row_digest(row) for row in data[where]]
    return _single(list(data[where]), digests, np.arange(len(digests)), where, {"order": "rows"}, Counter(digests))


def from_run(order: Order, data: Data, split: str | None, first_step: int) -> Trained | str:
    """The rows of one split of a run that stand in any split of the data, drawn last at `first_step` or later; or why there are none.

    Args:
        split: None takes the leading split of the run.
    """
    where = split or order.about.get("lead", "")
    if where not in order.rows:
        return f"the training run drew from {', '.join(f'`{name}`' for name in order.rows)}, not from `{where}`"
    at_hand: dict[str, Example] = {}
    own = [name for name in data if name == where]
    for name in (*own, *(name for name in data if name != where)):
        for row in data[name]:
            at_hand.setdefault(row_digest(row), row)
    digests, when = order.rows[where], order.last_steps(where)
    known = [i for i, digest in enumerate(digests) if digest in at_hand and when[i] >= first_step]
    if not known:
        return f"no row that the run drew from `{where}` stands in the data `{data.name}`"
    about = {"order": {key: order.about.get(key) for key in ("method", "seed", "data", "before", "steps")}}
    gone = int((when >= first_step).sum()) - len(known)
    rows = [at_hand[digests[i]] for i in known]
    return _single(rows, [digests[i] for i in known], when[known], where, about, Counter(digests), gone)


def _single(
    rows: list[Example], digests: list[str], when: np.ndarray, where: str, about: dict[str, Any], count: Counter[str], gone: int = 0
) -> Trained:
    """Without the rows whose text stands twice: their last visit is later than that of others."""
    kept = [i for i, digest in enumerate(digests) if count[digest] == 1]
    notes = [f"{gone} rows of the run are not in the data"] if gone else []
    notes += [f"{len(rows) - len(kept)} rows that stand twice are left out"] if len(kept) < len(rows) else []
    split = Split([_renamed(rows[i], digests[i]) for i in kept], where)
    return Trained(split, when[kept], "; ".join(notes), about)


def _renamed(row: Example, digest: str) -> Example:
    """Only what is scored, under the digest as its id: rows of several splits may share an id."""
    return Example(digest, row.answer, row.prompt)
