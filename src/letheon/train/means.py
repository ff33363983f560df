"""What a term's sum is divided by; the mean of the retain term and the slope of the others where no step is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from letheon.core import processes
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

    It is divided as in a step, by what the objective counts there.

    Raises:
        MethodError: the objective has no retain term.
    """
    retain = objective.retain
    if retain is None or not retain.splits:
        raise MethodError(f"`{objective.name()}` has no retain term to measure", "Give one, as in `retain=nll`")
    steps, seen = [], 0
    for step in feed.plan:
        steps.append(objective.drawn(subject, feed, step, run))
        seen += max(len(step[split]) for split in retain.splits)
        if seen >= rows:
            break
    total, counted = 0.0, 0
    with processes.agreed() as here:
        for drawn in processes.share(steps):
            counts = feed.counts(drawn)
            held = {split: drawn[split] for split in retain.splits}
            for k, piece in enumerate(feed.micro_steps(held, objective.tied)):
                with run.autocast():
                    term = objective.terms(subject, feed.batches(piece)).get("retain")
                if term is not None:
                    total += float(term.total)
                    counted += count_of(objective.name(), counts, "retain", term) if k == 0 else 0
        here.value = total, counted
    total, counted = map(sum, zip(*here.all, strict=True))
    return total / max(1, counted)


def forget_slope(objective: Objective, subject: Subject, feed: Feed, run: Run) -> dict[str, Tensor]:
    """Gradient of the objective's own terms, weighted, without the retain term, at the weights as they are.

    It is the mean over the steps of the plan, by their leading rows, until every leading row that is ever drawn has come up; where the
    objective puts rows of its own in their place, until as many of those have.

    Returns:
        Name of a floating-point weight -> its gradient; all of them count, whether or not they are marked as trainable.
    """
    named = {name: parameter for name, parameter in subject.module.named_parameters() if parameter.is_floating_point()}
    for parameter in named.values():
        parameter.requires_grad_(True)
    total = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    own = {objective.lead, *objective.tied, *objective.reads}
    others = set(objective.retain.splits) - own if objective.retain else set()
    lead = next(split for split in (objective.lead, *objective.reads) if split in feed.plan[0])
    left, seen = set(feed.used(lead).tolist()), 0
    for k, step in enumerate(feed.plan):
        rows = objective.drawn(subject, feed, {split: at for split, at in step.items() if split not in others}, run)
        counts, leading = feed.counts(rows), len(step[lead])
        ours = k % processes.size() == processes.rank()
        for piece in feed.micro_steps(rows, objective.tied) if ours else ():
            with run.autocast(lifted=False):
                terms = objective.loss(subject, feed.batches(piece))
            loss = sum(term.weight * term.total / max(1, count_of(objective.name(), counts, name, term)) for name, term in terms.items())
            if not isinstance(loss, Tensor) or not loss.requires_grad:
                continue
            for name, part in zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True):
                if part is not None:
                    total[name] += leading * part
        seen += leading
        left -= set(step[lead].tolist())
        if not left or (lead != objective.lead and seen >= len(feed.data[objective.lead])):
            break
    processes.summed(list(total.values()))
    return {name: gradient / max(1, seen) for name, gradient in total.items()}
