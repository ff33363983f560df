"""Every weight may move."""

from __future__ import annotations

from letheon.core.run import Run
from letheon.core.settings import Settings
from letheon.core.subject import Subject
from letheon.train.parts import ParameterSpace


class All(ParameterSpace):
    """Full fine-tuning."""

    Settings, tiny = Settings, {}

    def open(self, subject: Subject, run: Run) -> Subject:
        """Let every floating-point weight move."""
        for parameter in subject.module.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        return subject
