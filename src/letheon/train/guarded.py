"""Changes of weights are made without guards: a guard spoils the very prompts that a change has to read."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from letheon.core.data import Data
from letheon.core.guard import guard, unguard, watches
from letheon.core.run import Run
from letheon.core.subject import Subject

Apply = Callable[[Any, Subject, Data, Run], Subject]


def unguarded(apply: Apply) -> Apply:
    """`apply` of a change, which finds a guarded subject without its guards.

    They are put back when it is done, also after an exception, and the result gets guards of the same kind.
    """

    @functools.wraps(apply)
    def applied(self: Any, subject: Subject, data: Data, run: Run) -> Subject:
        module = subject.module
        held = watches(module)
        if not held:
            return apply(self, subject, data, run)
        before = subject.digest
        unguard(module)
        try:
            twins = copy.deepcopy(held)
            after = apply(self, subject, data, run)
        finally:
            for watch in held:
                guard(module, watch)
        for watch in () if watches(after.module) else twins:  # a disposable subject is handed on with those that it had
            guard(after.module, watch)
        after.lineage = (*after.lineage[:-1], replace(after.lineage[-1], before=before))
        return after

    return applied
