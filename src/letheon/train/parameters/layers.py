"""Only the weights whose names match a pattern may move: some layers, or some of their parts.

A pattern is a regular expression that is searched in the parameter's name, as in `model.layers.3.mlp.down_proj.weight`.
"""

from __future__ import annotations

import re

from pydantic import field_validator

from letheon.core.errors import SettingsError
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject
from letheon.train.parts import ParameterSpace


class LayersSettings(Settings):
    """Which weights."""

    pattern: str = Field(r"\.mlp\.", min_length=1, description="regular expression searched in parameter names")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value


class Layers(ParameterSpace):
    """Part of the weights, chosen by name."""

    Settings, tiny = LayersSettings, {"pattern": "."}

    def open(self, subject: Subject, run: Run) -> Subject:
        """Let the matching weights move.

        Raises:
            SettingsError: no weight matches; the hint gives some names.
        """
        names = [name for name, parameter in subject.module.named_parameters() if parameter.is_floating_point()]
        chosen = {name for name in names if re.search(self.settings.pattern, name)}
        if not chosen:
            some = ", ".join(names[:: max(1, len(names) // 4)][:4])
            what = f"`pattern` of `layers` matches none of {len(names)} weights, got {self.settings.pattern!r}"
            raise SettingsError(what, f"Names look like {some}")
        for name, parameter in subject.module.named_parameters():
            parameter.requires_grad_(name in chosen)
        return subject
