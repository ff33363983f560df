"""Title, meaning and direction of every measure, one file for each family; the order here is that of tables."""

from __future__ import annotations

from . import basics, returned
from ._measure import Measure

FAMILIES = (basics, returned)
KNOWN: dict[str, Measure] = {name: about for family in FAMILIES for name, about in family.KNOWN.items()}
