"""Title, meaning and direction of every measure, one file for each family; the order here is that of tables."""

from __future__ import annotations

from . import attacks, basics, choices, forms, inside, provenance, returned, tasks, texts
from ._measure import Measure

FAMILIES = (basics, choices, attacks, returned, texts, inside, forms, provenance, tasks)
KNOWN: dict[str, Measure] = {name: about for family in FAMILIES for name, about in family.KNOWN.items()}
