"""Contracts: what every plug-in of a kind must keep, as functions that take the plug-in and say what does not hold.

    for result in check("npo"):
        ...                     # Result(contract="a second run gives the same bits", passed=True, message="")

`check` also takes the path of a file, so that a plug-in can be checked before it is packaged. The kind decides which contracts run:
those for all plug-ins, then those for changes, objectives, guards, retain terms, rules, parameter spaces, samplers, sources, makers,
loaders, curators, audits.
"""

from __future__ import annotations

import importlib.util
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

_KINDS: dict[type, tuple[tuple[Contract, ...], str]] = {  # kind -> its contracts, and the role of a file that lies in no role folder
    Objective: (_changes.OBJECTIVE, "erase"),
    Guard: (_guards.GUARD, "guard"),
    Change: (_changes.CHANGE, "erase"),
    RetainTerm: (_parts.RETAIN, "train/retain"),
    Rule: (_parts.RULE, "train/rules"),
    ParameterSpace: (_parts.SPACE, "train/parameters"),
    Sampler: (_parts.SAMPLER, "train/samplers"),
    Source: (_others.SOURCE, "data"),
    Maker: (_others.MAKER, "subjects"),
    Loader: (_others.LOADER, "subjects"),
    Curator: (_others.CURATOR, "select"),
    Audit: (_others.AUDIT, "audit"),
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
    return [*_every.EVERY, *(contract for kind, (own, _) in _KINDS.items() if issubclass(cls, kind) for contract in own)]


def title(contract: Contract) -> str:
    """The name of a contract in words."""
    return contract.__name__.replace("_", " ")


def _is_path(target: str) -> bool:
    return target.endswith(".py") or os.sep in target and Path(target).is_file()


def _from_file(path: Path) -> registry.Plugin:
    """A plug-in in a file that lies anywhere.

    Raises:
        MethodError: the file is missing, cannot be imported, or holds no plug-in class.
    """
    path = path.resolve()
    if not path.is_file():
        raise MethodError(f"There is no file {path}", "`letheon new` writes one")
    for plugin in registry.all_plugins():
        if plugin.path is not None and plugin.path == path:
            return plugin
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise MethodError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    if path.stem in sys.modules and getattr(sys.modules[path.stem], "__file__", None) != str(path):
        raise MethodError(f"`{path.stem}` is also the name of an installed module", "Rename the file")
    sys.modules[path.stem] = module  # until `_known` takes it out again
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # somebody's unfinished file may raise anything
        del sys.modules[path.stem]
        raise MethodError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    cls = registry.public_class(module)
    above = path.parent.as_posix()
    role = next((role for role in registry.ROLES if above.endswith(f"/{role}")), _KINDS[kind_of(cls)][1])
    return registry.Plugin(path.stem.replace("_", "-"), role, f"{path.stem}:{cls.__name__}", path)


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
    plugin = _from_file(Path(target)) if _is_path(str(target)) else registry.find(str(target), role)
    with _known(plugin), tempfile.TemporaryDirectory(prefix="letheon-check-") as folder:
        cls = registry.load(plugin.name, plugin.role)
        kind_of(cls)
        case = Case(cls, plugin.name, plugin.role, plugin.path, Path(folder))
        return [run_contract(contract, case) for contract in contracts_for(cls)]
