"""Adds the gradients of all terms.

    g = sum_k weight_k g_k

The plain choice, and the only one that needs a single backward pass.
"""

from __future__ import annotations

from letheon.core.settings import Settings
from letheon.train.parts import Rule


class Sum(Rule):
    """Plain sum; the loop adds the terms before its one backward pass."""

    Settings, tiny = Settings, {}
