"""letheon decides what a neural network learns, keeps and forgets, and proves it.

    import letheon as lt

    data = lt.data("authors", people=40)
    run = lt.Run(seed=0, out="runs/npo")
    after = lt.method("npo", beta=0.2).apply(subject, data, run)

Importing this package imports neither torch nor transformers; the first use does.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "audit": "letheon.api",
    "data": "letheon.api",
    "method": "letheon.api",
    "report": "letheon.api",
    "subject": "letheon.api",
    "methods": "letheon.api",
    "use": "letheon.core.registry",
    "Run": "letheon.core.run",
    "Subject": "letheon.core.subject",
    "Data": "letheon.core.data",
    "Example": "letheon.core.data",
    "Finding": "letheon.core.findings",
    "Findings": "letheon.core.findings",
    "LetheonError": "letheon.core.errors",
}
__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'letheon' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


class _Package(types.ModuleType):
    """Importing the subpackage `letheon.report` must not hide the function `lt.report`; the same for `data` and `audit`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _WHERE and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted(__all__)
