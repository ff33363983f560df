"""Ctrl-C waits while weights move, so that a checkpoint written on the way out never holds half a step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def whole_step() -> Iterator[None]:
    """An interrupt that arrives inside the block is raised after it. Only the main thread receives interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[Any] = []
    before = signal.getsignal(signal.SIGINT)
    if before is None:  # set by something other than Python, which cannot be put back
        yield
        return
    signal.signal(signal.SIGINT, lambda *arguments: caught.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if caught:
            signal.raise_signal(signal.SIGINT)
