"""What a person is told about one measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measure:
    """Facts about one measure.

    `knows` is +1 where a larger value means that the model knows the rows better, -1 where it means the reverse, 0 where neither.
    `scale` is the axis it is drawn on: "unit" from 0 to 1, "log" in powers of ten, "free" from the smallest to the largest value.
    """

    title: str
    tests: str
    read: str
    knows: int = 0
    scale: Literal["unit", "log", "free"] = "unit"
    attack: str = ""  # "after ...", "under ...": what was done to bring it back; empty where the model is asked as it is
    curve: str = ""  # what runs along the `curve` in `extra`: "optimiser steps", "block"
    derived: bool = False  # computed from other findings: not one more witness for the verdict
