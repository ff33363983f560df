"""Toys and contracts, shipped so that anyone can check a plug-in: `letheon check my-method` or `check("my-method")`."""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "Result": "contracts",
    "check": "contracts",
    "toy_data": "toys",
    "toy_subject": "toys",
    "toy_tokenizer": "toys",
    "write": "scaffold",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'letheon.testing' has no attribute '{name}'")
    return getattr(importlib.import_module(f"letheon.testing.{_WHERE[name]}"), name)
