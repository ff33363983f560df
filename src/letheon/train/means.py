"""What a term's sum is divided by, and the mean of the retain term where no step is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from letheon.core.errors import MethodError
from letheon.core.run import Run
from letheon.core.subject import Subject

from .feed import Feed
from .parts import Term

if TYPE_CHECKING:
    from .objective import Objective


def count_of(owner: str, counts: Mapping[tuple[str, str], int], name: str, term: Term) -> int:
    """How many tokens or rows the term called `name` counts.

    Args:
        owner: name of the objective, for the message.
        counts: (split, unit) -> tokens or rows of the step, as `Feed.counts` gives them.

    Raises:
        MethodError: the term counts a split that is not part of the step.
    """
    of = term.of or name
    keys = [(split, term.per) for split in ((of,) if isinstance(of, str) else of)]
    unread = [f"`{split}`" for split, _ in keys if (split, term.per) not in counts]
    if unread:
        what = f"counts {term.per}s of {', '.join(unread)}"
        raise MethodError(f"The term `{name}` of `{owner}` {what}, which it does not read")
    return sum(counts[key] for key in keys)


@torch.no_grad()
def retain_mean(objective: Objective, subject: Subject, feed: Feed, run: Run, rows: int) -> float:
    """Mean of the retain term over the first steps of the plan, as many as hold `rows` retain rows, with the weights as they are.

    Raises:
        MethodError: the objective has no retain term.
    """
    retain = objective.retain
    if retain is None or not retain.splits:
        raise MethodError(f"`{objective.name()}` has no retain term to measure", "Give one, as in `retain=nll`")
    total, counted, seen = 0.0, 0, 0
    for step in feed.plan:
        drawn = {split: step[split] for split in retain.splits}
        counts = feed.counts(drawn)
        for k, piece in enumerate(feed.micro_steps(drawn, objective.tied)):
            with run.autocast():
                term = retain.term(subject, feed.batches(piece))
            if term is not None:
                total += float(term.total)
                counted += count_of(objective.name(), counts, "retain", term) if k == 0 else 0
        seen += max(map(len, drawn.values()))
        if seen >= rows:
            break
    return total / max(1, counted)
