"""Plug-ins found by file: `erase/npo.py` is `npo`. Listing reads files as text and imports nothing.

A role is a folder of one-file plug-ins. Files that begin with an underscore are shared parts, not plug-ins. Other packages join
through the entry point group `letheon.methods`, where an entry is named `role:name` and points to a class. Files of one's own that the
environment variable `LETHEON_PLUGINS` names (`letheon --plugin FILE` sets it) are plug-ins too; these are imported to see their kind.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import logging
import os
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import MethodError, did_you_mean
from .settings import Choice

log = logging.getLogger("letheon")
_PACKAGE = Path(__file__).resolve().parent.parent

# Folder below the package -> what a person calls its plug-ins. A folder that does not exist yet has no plug-ins.
ROLES = {
    "data": "data source",
    "subjects": "subject",
    "shield": "shield",
    "select": "selector",
    "erase": "erasing method",
    "keep": "continual-learning method",
    "adapt": "adapter",
    "compress": "compressor",
    "guard": "guard",
    "audit": "audit",
    "train/retain": "retain term",
    "train/rules": "gradient rule",
    "train/parameters": "parameter space",
    "train/samplers": "sampler",
}
OWN = "LETHEON_PLUGINS"  # files of plug-ins, with what separates folders in PATH between them
# Kind of class -> the role of a file that lies in no role folder.
_HOMES = {
    "Guard": "guard", "Change": "erase", "RetainTerm": "train/retain", "Rule": "train/rules", "ParameterSpace": "train/parameters",
    "Sampler": "train/samplers", "Source": "data", "Maker": "subjects", "Loader": "subjects", "Curator": "select", "Audit": "audit",
}  # fmt: skip


@dataclass(frozen=True)
class Plugin:
    """A plug-in that has been found but not imported."""

    name: str
    role: str
    target: str  # "package.module" or "package.module:Class"
    path: Path | None

    @property
    def docstring(self) -> str:
        """The module docstring, read from the file without importing it."""
        if self.path is None:
            return f"from the package {self.target.split('.')[0]}"
        return ast.get_docstring(ast.parse(self.path.read_text(encoding="utf-8"))) or ""

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (self.docstring.splitlines() or [""])[0]


def called(role: str) -> str:
    """What a plug-in of a role is called, with its article: "an erasing method"."""
    return f"{'an' if ROLES[role][0] in 'aeiou' else 'a'} {ROLES[role]}"


def role_named(name: str) -> str:
    """A role by its name or its last part: `retain` is `train/retain`.

    Raises:
        MethodError: there is none of that name; the hint gives the nearest.
    """
    found = [role for role in ROLES if name in (role, role.rsplit("/", 1)[-1])]
    if not found:
        raise MethodError(f"There is no role `{name}`", did_you_mean(name, ROLES))
    return found[0]


def role_folder(role: str) -> Path:
    """The folder that holds the plug-ins of one role."""
    return _PACKAGE / role


@functools.cache
def plugins(role: str) -> dict[str, Plugin]:
    """All plug-ins of one role by name, sorted by name."""
    found = {}
    for path in sorted(role_folder(role).glob("*.py")):
        if not path.name.startswith("_"):
            name = path.stem.replace("_", "-")
            found[name] = Plugin(name, role, ".".join(["letheon", *role.split("/"), path.stem]), path)
    for entry in entry_points(group="letheon.methods"):
        where, _, name = entry.name.partition(":")
        if where == role and name in found:
            log.warning("%s offers a second %s called `%s`; letheon's own is used", entry.value, ROLES[role], name)
        elif where == role and name:
            found[name] = Plugin(name, role, entry.value, None)
    for plugin in _own(os.environ.get(OWN, "")):
        if plugin.role == role and plugin.name in found:
            raise MethodError(f"There is already {called(role)} called `{plugin.name}`", "Rename the file")
        if plugin.role == role:
            found[plugin.name] = plugin
    return dict(sorted(found.items()))


@functools.cache
def _own(files: str) -> tuple[Plugin, ...]:
    return tuple(from_file(Path(file)) for file in files.split(os.pathsep) if file)


def use(file: str | Path) -> None:
    """Make the plug-in in a file of one's own known by name, in this process and in those that it starts.

        lt.use("my_method.py")
        after = lt.method("my-method", learning_rate=1e-4).apply(subject, data, run)

    Raises:
        MethodError: the file is missing, cannot be imported, holds no plug-in, or one of its name is there already.
    """
    plugin = from_file(Path(file))
    known = plugins(plugin.role).get(plugin.name)
    if known is not None and known != plugin:
        raise MethodError(f"There is already {called(plugin.role)} called `{plugin.name}`", "Rename the file")
    if known is None:
        os.environ[OWN] = os.pathsep.join(part for part in (os.environ.get(OWN), str(plugin.path)) if part)
        plugins.cache_clear()


def from_file(path: Path) -> Plugin:
    """The plug-in in a file that lies anywhere, which is imported under the name of the file.

    Raises:
        MethodError: the file is missing, cannot be imported, or holds no plug-in class.
    """
    path = path.resolve()
    if not path.is_file():
        raise MethodError(f"There is no file {path}", "`letheon new` writes one")
    inside = next((role for role in ROLES if path.parent == role_folder(role)), None)
    if inside:
        return find(path.stem, inside)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise MethodError(f"{path} is not a Python file")
    module = sys.modules.get(path.stem)
    if module is not None and getattr(module, "__file__", None) != str(path):
        raise MethodError(f"`{path.stem}` is also the name of an installed module", "Rename the file")
    if module is None:
        module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # somebody's unfinished file may raise anything
            del sys.modules[path.stem]
            raise MethodError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    cls, above = public_class(module), path.parent.as_posix()
    homes = [role for role in ROLES if above.endswith(f"/{role}")]
    homes += [_HOMES[base.__name__] for base in cls.__mro__ if base.__name__ in _HOMES]
    if not homes:
        raise MethodError(f"`{cls.__name__}` is no plug-in", f"Derive it from one of {', '.join(_HOMES)}")
    return Plugin(path.stem.replace("_", "-"), homes[0], f"{path.stem}:{cls.__name__}", path)


def all_plugins() -> list[Plugin]:
    """Every plug-in of every role."""
    return [plugin for role in ROLES for plugin in plugins(role).values()]


def find(name: str, role: str | None = None) -> Plugin:
    """The plug-in called `name`, in one role or in all of them.

    Raises:
        MethodError: nothing has that name (the hint gives the nearest), or two roles have it and no role was given.
    """
    candidates = list(plugins(role).values()) if role else all_plugins()
    wanted = name.replace("_", "-")
    hits = [plugin for plugin in candidates if plugin.name == wanted or f"{plugin.role}/{plugin.name}" == wanted]
    if len(hits) == 1:
        return hits[0]
    if not hits:
        kind = ROLES[role] if role else "method"
        hint = did_you_mean(name, [p.name for p in candidates], f"`letheon methods{f' {role}' if role else ''}` lists them")
        if name.endswith(".py"):
            hint = f"`letheon --plugin {name} ...` makes `{Path(name).stem.replace('_', '-')}` known"
        raise MethodError(f"There is no {kind} called `{name}`", hint)
    full = ", ".join(f"`{plugin.role}/{plugin.name}`" for plugin in hits)
    raise MethodError(f"`{name}` is the name of {len(hits)} things: {full}", "Give the longer name")


def load(name: str, role: str | None = None) -> type:
    """Import the plug-in called `name` and return its one public class."""
    plugin = find(name, role)
    module_name, _, class_name = plugin.target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "letheon":
            raise
        raise MethodError(f"`{plugin.name}` cannot be imported: {error}", "Install the package that is missing") from error
    if not class_name:
        return public_class(module)
    if not hasattr(module, class_name):
        what = f"`{plugin.name}` points to `{plugin.target}`, but the module has no `{class_name}`"
        raise MethodError(what, "The package that offers it names it wrongly")
    found: type = getattr(module, class_name)
    return found


def public_class(module: ModuleType) -> type:
    """The one public class with `Settings` that a plug-in file defines.

    Raises:
        MethodError: there is none, or more than one.
    """
    classes = [
        value
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not key.startswith("_") and hasattr(value, "Settings")
    ]
    if len(classes) != 1:
        names = ", ".join(cls.__name__ for cls in classes) or "none"
        raise MethodError(f"`{module.__name__}` must hold one public class with `Settings`, found {names}")
    return classes[0]


def make(choice: Choice, role: str) -> Any:
    """Build the plug-in that a `Choice` names, with the choice's own settings."""
    return load(choice.name, role)(**choice.settings)
