"""Threads take turns: at any time one thread of a process changes or measures models.

Much of what that needs belongs to the whole process or to a model that threads may share: the global random generator that transformers
and peft draw from, hooks, training flags and the attention of a module, what other libraries log. So the entry points of methods, the
audit and readings run one after another, each in the thread that called it, and a seed gives the same bits in any thread. Work that should
use more cores belongs into processes; a method must not wait for a thread of its own that takes readings.

`letheon serve` writes answers without a turn, and loads models in one: it touches nothing that is shared but its own module. A module that
an `Engine` serves may therefore not be changed or audited meanwhile; `Subject.fork` gives another one.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
TURN = threading.RLock()  # re-entrant: a method may call others


def in_turn(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which waits while another thread is inside any function of this kind."""

    @functools.wraps(function)
    def waits(*args: P.args, **kwargs: P.kwargs) -> T:
        with TURN:
            return function(*args, **kwargs)

    return waits
