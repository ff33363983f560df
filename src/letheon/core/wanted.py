"""What a function of the public interface wants, in one sentence, where it is given something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import DataError, LetheonError, MethodError, RunError, SubjectError


def check(where: str, given: Mapping[str, Any]) -> None:
    """Check the arguments of a call that are subjects, data, runs or readings; others are passed over.

    Args:
        where: what was called, as messages name it.
        given: name of an argument -> value.

    Raises:
        SubjectError: a subject is wanted, and a bare model, a path or something else was given.
        DataError: the same for data.
        RunError: the same for a run.
        MethodError: a subject was given for its readings.
    """
    from .data import Data
    from .run import Run
    from .subject import Subject

    def fault(kind: type[LetheonError], wants: str, value: Any, hint: str) -> LetheonError:
        return kind(f"{where} wants {wants}, got {'nothing' if value is None else type(value).__name__}", hint)

    for name, value in given.items():
        if name == "subject" and not isinstance(value, Subject):
            hint = "Make one with `lt.subject(model, tokenizer)`, or from a folder or hub name with `lt.subject(path)`"
            raise fault(SubjectError, "a subject", value, hint)
        if name == "data" and not isinstance(value, Data):
            raise fault(DataError, "data", value, 'Read some with `lt.data(name)`, or give rows as `lt.Data({"forget": rows})`')
        if name == "run" and not isinstance(value, Run):
            raise fault(RunError, "a run", value, "Make one with `lt.Run()`")
        if name == "readings" and isinstance(value, Subject):
            raise fault(MethodError, "the readings of a subject", value, "Call `lt.audit(name, subject, data, run)`, which takes them")
