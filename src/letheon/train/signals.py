"""Ctrl-C, and a request to end, wait while weights move or are saved: a checkpoint written on the way out never holds half a step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def whole_step() -> Iterator[None]:
    """An interrupt that arrives inside the block is raised after it. Only the main thread receives interrupts.

    A signal that Python does not handle (SIGTERM, unless somebody has asked for it) still ends the process at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    handled = {number: before for number in SIGNALS if callable(before := signal.getsignal(number))}
    for number in handled:
        signal.signal(number, lambda number, frame: caught.append(number))
    try:
        yield
    finally:
        for number, before in handled.items():
            signal.signal(number, before)
        if caught:
            signal.raise_signal(caught[0])
