"""Contracts: what every plug-in of a kind must keep, as functions that take the plug-in and say what does not hold.

    for result in check("npo"):
        ...                     # Result(contract="a second run gives the same bits", passed=True, message="")

`check` also takes the path of a file, so that a plug-in can be checked before it is packaged. The kind decides which contracts run:
those for all plug-ins, then those for changes, objectives, guards, retain terms, rules, parameter spaces, samplers, sources, makers,
loaders, curators, audits.
"""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from letheon.core import registry
from letheon.core.errors import LetheonError, MethodError
from letheon.core.guard import Guard
from letheon.core.method import Audit, Change, Curator, Loader, Maker, Source
from letheon.train.objective import Objective
from letheon.train.parts import ParameterSpace, RetainTerm, Rule, Sampler

from . import _changes, _every, _guards, _others, _parts
from ._cases import Broken, Case

Contract = Callable[[Case], None]

_KINDS: dict[type, tuple[Contract, ...]] = {  # the narrowest first
    Objective: _changes.OBJECTIVE,
    Guard: _guards.GUARD,
    Change: _changes.CHANGE,
    RetainTerm: _parts.RETAIN,
    Rule: _parts.RULE,
    ParameterSpace: _parts.SPACE,
    Sampler: _parts.SAMPLER,
    Source: _others.SOURCE,
    Maker: _others.MAKER,
    Loader: _others.LOADER,
    Curator: _others.CURATOR,
    Audit: _others.AUDIT,
}


@dataclass(frozen=True)
class Result:
    """What became of one contract: `message` says how it is broken."""

    contract: str
    passed: bool
    message: str = ""


def kind_of(cls: type) -> type:
    """The kind of a plug-in class, the narrowest that fits.

    Raises:
        MethodError: it is of no kind.
    """
    for kind in _KINDS:
        if issubclass(cls, kind):
            return kind
    kinds = ", ".join(kind.__name__ for kind in _KINDS)
    raise MethodError(f"`{cls.__name__}` is of no kind that has contracts", f"Derive it from one of {kinds}")


def contracts_for(cls: type) -> list[Contract]:
    """All contracts that a plug-in class must keep."""
    return [*_every.EVERY, *(contract for kind, own in _KINDS.items() if issubclass(cls, kind) for contract in own)]


def title(contract: Contract) -> str:
    """The name of a contract in words."""
    return contract.__name__.replace("_", " ")


def _is_path(target: str) -> bool:
    return target.endswith(".py") or os.sep in target and Path(target).is_file()


@contextmanager
def _known(plugin: registry.Plugin) -> Iterator[None]:
    """The registry finds the plug-in by name inside the block, so that objectives can be composed with it."""
    names = registry.plugins(plugin.role)
    if names.get(plugin.name) == plugin:
        yield
        return
    if plugin.name in names:
        raise MethodError(f"There is already {registry.called(plugin.role)} called `{plugin.name}`", "Rename the file")
    names[plugin.name] = plugin
    try:
        yield
    finally:
        del names[plugin.name]
        sys.modules.pop(plugin.target.partition(":")[0], None)


def run_contract(contract: Contract, case: Case) -> Result:
    """Run one contract; whatever it raises is its message."""
    try:
        contract(case)
    except Broken as error:
        return Result(title(contract), False, str(error))
    except LetheonError as error:
        return Result(title(contract), False, f"{type(error).__name__}: {error}")
    except Exception as error:  # a plug-in may raise anything, and that is a result
        frame = inspect.getinnerframes(error.__traceback__)[-1] if error.__traceback__ else None
        where = f" ({Path(frame.filename).name}:{frame.lineno})" if frame else ""
        return Result(title(contract), False, f"{type(error).__name__}: {error}{where}")
    return Result(title(contract), True)


def check(target: str | Path, role: str | None = None) -> list[Result]:
    """Run all contracts of one plug-in.

    Args:
        target: a name that the registry knows, or the path of a file with one plug-in.
        role: needed only where two roles have a plug-in of that name.

    Raises:
        MethodError: there is no such plug-in, or it cannot be imported.
    """
    plugin = registry.from_file(Path(target)) if _is_path(str(target)) else registry.find(str(target), role)
    with _known(plugin), tempfile.TemporaryDirectory(prefix="letheon-check-") as folder:
        cls = registry.load(plugin.name, plugin.role)
        kind_of(cls)
        case = Case(cls, plugin.name, plugin.role, plugin.path, Path(folder))
        return [run_contract(contract, case) for contract in contracts_for(cls)]
