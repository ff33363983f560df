"""Keep transformers and peft quiet while letheon loads or saves: what matters is raised as an error of one sentence instead."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from .turns import TURN


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, notes or warnings of transformers inside the block; its verbosity is put back afterwards. Threads take turns."""
    from transformers.utils import logging

    with TURN, warnings.catch_warnings():
        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        warnings.simplefilter("ignore")
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
