"""Every contract on every plug-in of the registry, and proof that none was left out."""

from __future__ import annotations

import ast
import functools
import tempfile
from pathlib import Path

import pytest

import letheon
from letheon.core import registry
from letheon.testing._cases import Case
from letheon.testing.contracts import contracts_for, run_contract, title

PACKAGE = Path(letheon.__file__).parent
SWEPT = [(plugin, registry.load(plugin.name, plugin.role)) for plugin in registry.all_plugins() if plugin.path is not None]


@functools.cache
def folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="letheon-sweep-")


@functools.cache
def case(role: str, name: str) -> Case:
    """One case per plug-in, so that contracts share the result that they look at."""
    plugin = registry.find(name, role)
    return Case(registry.load(name, role), name, role, plugin.path, Path(folder().name))


@pytest.mark.parametrize(
    ("role", "name", "contract"),
    [
        pytest.param(plugin.role, plugin.name, contract, id=f"{plugin.role}/{plugin.name}: {title(contract)}")
        for plugin, cls in SWEPT
        for contract in contracts_for(cls)
    ],
)
def test_contract(role, name, contract):
    result = run_contract(contract, case(role, name))
    assert result.passed, f"`{name}`: {result.message}"


def plugins_on_disk() -> set[str]:
    """Files that define a public class with `tiny` settings, found without the registry."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE)
        if relative.parts[0] in ("core", "testing") or path.name.startswith("_"):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                targets = [name.id for part in node.body for name in ast.walk(part) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)]
                if "Settings" in targets and "tiny" in targets:
                    found.add(f"{relative.parent.as_posix()}/{path.stem.replace('_', '-')}")
    return found


def test_the_sweep_left_nothing_out():
    swept = {f"{plugin.role}/{plugin.name}" for plugin, _ in SWEPT}
    on_disk = plugins_on_disk()
    assert swept == on_disk
    assert len(SWEPT) == len(on_disk) >= 13  # the spine began with 13 plug-ins; a broken search would find fewer
    assert all(len(contracts_for(cls)) >= 17 for _, cls in SWEPT)
