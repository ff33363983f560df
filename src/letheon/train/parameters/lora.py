"""Low-rank adapters: the weights stay, a product of two thin matrices is added to chosen layers.

    W x + (alpha / rank) B A x          A (rank, in) random, B (out, rank) zero at the start

At the start B = 0, so the adapted model says exactly what the given one says. Made by peft. arXiv:2106.09685.
"""

from __future__ import annotations

from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.train.parts import ParameterSpace

from ._adapters import AdapterSettings, adapted, handed_out


class LoRA(ParameterSpace):
    """Adapters instead of the weights themselves."""

    Settings, tiny = AdapterSettings, {"rank": 2}

    def open(self, subject: Subject, run: Run) -> Subject:
        """Wrap the module; only the adapters require a gradient."""
        return adapted(subject, self.settings, run, "lora")

    def close(self, subject: Subject, run: Run) -> Subject:
        """Merge the adapters into the weights, or keep them as an adapter."""
        return handed_out(subject, self.settings)
