"""Readings that several processes measure together: the first one audits, the others read their share of the rows that it asks for.

    with together(models, run) as leads:
        if leads:                               # the first process; the others are inside `together` until it is done
            findings = audited(...)

Every process holds the same models. Where the first one has to measure answers, generations or gradient norms of one of them, rows are
dealt by length, and what the processes found is put in the order of the rows. All else (copies that an attack has changed, models with
hooks, what an audit measures in its own way) it does alone, and nobody waits for time to run out meanwhile. Rows are batched otherwise than
by one process: in float32 log-probabilities agree to 1e-5, and greedy answers but for ties.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from . import processes
from .answers import Answers
from .data import Split
from .errors import LetheonError
from .subject import Subject

if TYPE_CHECKING:
    from .run import Run

LEAST = 2  # rows for each process, below which one reads them alone
LONG = timedelta(days=30)  # how long the others may wait for a question; a process that ends is noticed at once
T = TypeVar("T")
Measured = Callable[..., Any]  # (subject, split, **parameters) -> a reading
_CREW: contextvars.ContextVar[Crew | None] = contextvars.ContextVar("crew", default=None)


def read(
    subject: Subject, split: Split, measured: Callable[..., T], along: Mapping[str, Sequence[Any]] | None = None, **parameters: Any
) -> T:
    """`measured(subject, split, **parameters)`, by all processes of the crew where there is one and it knows the subject.

    Args:
        measured: a function of a module, which gives a list of texts, an array (n,), or answers with their parts.
        along: parameters with one value for each row.
    """
    crew = _CREW.get()
    label = None if crew is None or len(split) < LEAST * crew.size else crew.label(subject)
    if crew is None or label is None:
        return measured(subject, split, **parameters, **(along or {}))
    found: T = crew.asked(label, split, measured, along or {}, parameters)
    return found


@contextlib.contextmanager
def together(models: Mapping[str, Subject | None], run: Run) -> Iterator[bool]:
    """Whether this process leads: inside the block it works alone but for readings of `models`. The others read until the block ends.

    Raises:
        RunError: another process has ended.
    """
    if processes.size() == 1:
        yield True
        return
    crew = Crew({label: model for label, model in models.items() if model is not None}, run)
    if not processes.first():
        crew.follow()
        yield False
        return
    token = _CREW.set(crew)
    try:
        with processes.alone():
            yield True
    finally:
        _CREW.reset(token)
        crew.dismiss()


class Crew:
    """All processes, and the models that each of them holds."""

    def __init__(self, models: Mapping[str, Subject], run: Run):
        from torch import distributed

        processes.join()
        self.size, self.leads = processes.size(), processes.first()
        self.models = {label: model.to(run.device) for label, model in models.items()}
        marks = processes.exchanged({label: _mark(model) for label, model in self.models.items()})
        self.marks = {label: mark for label, mark in marks[0].items() if all(other.get(label) == mark for other in marks)}
        with processes.answered():
            self.group = distributed.new_group(backend="gloo", timeout=LONG)

    def label(self, subject: Subject) -> str | None:
        """What all processes call a subject, or None where they do not hold it, as it is now."""
        label = next((label for label, model in self.models.items() if model is subject), None)
        return label if label in self.marks and _mark(subject) == self.marks[label] else None

    def asked(self, label: str, split: Split, measured: Measured, along: Mapping[str, Sequence[Any]], parameters: dict[str, Any]) -> Any:
        """Deal the rows, read our share, and put all shares together."""
        dealt = _dealt(split, self.size)
        questions = []
        for rows in dealt:
            share = Split([split[i] for i in rows], split.name)
            questions.append((label, measured, share, parameters | {key: [values[i] for i in rows] for key, values in along.items()}))
        found = self._gathered(self._answer(self._scattered(questions)))
        failed = next((error for _, error in found if error is not None), None)
        if failed is not None:
            raise failed
        return _joined([value for value, _ in found], dealt, len(split))

    def follow(self) -> None:
        """Answer questions until the first process has no more."""
        while (question := self._scattered(None)) is not None:
            self._gathered(self._answer(question))

    def dismiss(self) -> None:
        """Let the others go."""
        with contextlib.suppress(processes.Lost):
            self._scattered([None] * self.size)

    def _answer(self, question: Any) -> tuple[Any, Exception | None]:
        label, measured, share, parameters = question
        try:
            with processes.alone():
                return measured(self.models[label], share, **parameters), None
        except LetheonError as error:
            return None, error
        except Exception as error:
            return None, processes.told(error)

    def _scattered(self, questions: list[Any] | None) -> Any:
        from torch import distributed

        found: list[Any] = [None]
        with processes.answered():
            distributed.scatter_object_list(found, questions, src=0, group=self.group)
        return found[0]

    def _gathered(self, value: Any) -> list[Any]:
        from torch import distributed

        found: list[Any] = [None] * self.size
        with processes.answered():
            distributed.gather_object(value, found if self.leads else None, dst=0, group=self.group)
        return found


def _mark(subject: Subject) -> tuple[str, str, int]:
    """What a reading of a subject depends on that an audit might change for a moment."""
    hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in subject.module.modules())
    return subject.digest, subject.encoder.digest, hooks


def _dealt(split: Split, world: int) -> list[np.ndarray]:
    """Rows for each process, ascending: of every length as many as the others have."""
    order = np.argsort([-len(row.prompt_text) - len(row.answer) - sum(map(len, row.wrong)) for row in split], kind="stable")
    return [np.sort(order[rank::world]) for rank in range(world)]


def _joined(shares: list[Any], dealt: list[np.ndarray], n: int) -> Any:
    """Readings of shares as the reading of all rows."""
    if isinstance(shares[0], tuple):
        return _answers(shares, dealt, n)
    back = np.argsort(np.concatenate(dealt), kind="stable")
    if isinstance(shares[0], np.ndarray):
        return np.concatenate(shares)[back]
    texts = [text for share in shares for text in share]
    return [texts[i] for i in back]


def _answers(shares: list[tuple[Answers, np.ndarray]], dealt: list[np.ndarray], n: int) -> tuple[Answers, np.ndarray]:
    """Answers row by row; those of one row come from one process, and keep their order."""
    owner = np.concatenate([rows[found.owner] for (found, _), rows in zip(shares, dealt, strict=True)]).astype(np.int32)
    order = np.argsort(owner, kind="stable")
    counts = np.concatenate([found.counts for found, _ in shares])
    begins = np.cumsum(counts) - counts
    offsets = np.concatenate([[0], np.cumsum(counts[order])])
    tokens = np.repeat(begins[order] - offsets[:-1], counts[order]) + np.arange(offsets[-1])
    names = ("log_probability", "rank", "top", "target", "mean", "variance")
    columns = {name: [getattr(found, name) for found, _ in shares] for name in names}
    joined: dict[str, Any] = {name: None if parts[0] is None else np.concatenate(parts)[tokens] for name, parts in columns.items()}
    return Answers(**joined, offsets=offsets, owner=owner[order], n_rows=n), np.concatenate([part for _, part in shares])[order]
