"""What the tests of a checkout say for a plug-in: which files test it, on a model that they train, on what others have published.

Read from the tests as text, none of them is run. A file tests a plug-in if it imports the plug-in's file, names it with its role, as in
`load("npo", "erase")` or by a setting such as `retain="kl"`, or lies in `tests/audit` or `tests/data` and quotes the name of one of those.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from letheon.core.registry import all_plugins, plugins

from .cards import root

AXES = {"retain": "train/retain", "rule": "train/rules", "parameters": "train/parameters", "sampler": "train/samplers", "select": "select"}
TRAINING = re.compile(r"\b(?:AdamW?|SGD|Finetune|backward|fit)\(|\"finetune\"")  # what changes weights
PUBLISHED = "shared"  # the fixture of data, weights and numbers that others have published
QUOTED = ("audit", "data")  # roles whose plug-ins tests name by their measures and specs


@dataclass(frozen=True)
class Tested:
    """The test files that name a plug-in, how many tests they hold, and on what."""

    files: tuple[str, ...] = ()
    tests: int = 0
    trains: bool = False
    published: bool = False


@dataclass(frozen=True)
class _Part:
    """A function at the top of a test file, or the whole file."""

    trains: bool
    calls: frozenset[str]
    takes: frozenset[str]


@dataclass(frozen=True)
class _File:
    """A test file, walked through once."""

    names: frozenset[str]  # plug-ins, as role/name
    tests: int
    whole: _Part
    parts: dict[str, _Part]
    helpers: dict[str, tuple[Path, str]]  # name here -> file beside this one, name there


def tested() -> dict[str, Tested]:
    """What is known of every plug-in by `role/name`; empty outside a checkout."""
    checkout = root()
    if checkout is None or not (checkout / "tests").is_dir():
        return {}
    found = {f"{plugin.role}/{plugin.name}": Tested() for plugin in all_plugins()}
    for path in sorted((checkout / "tests").rglob("test_*.py")):
        file = _file(path)
        trains = _trains(path) or bool(file.whole.takes & _training_fixtures(path.with_name("conftest.py")))
        published = PUBLISHED in file.whole.takes
        for name in file.names if file.tests else ():
            so_far = found[name]
            files = (*so_far.files, path.relative_to(checkout).as_posix())
            found[name] = Tested(files, so_far.tests + file.tests, so_far.trains or trains, so_far.published or published)
    return found


@functools.cache
def _file(path: Path) -> _File:
    text = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    nodes = list(ast.walk(tree))
    tests = sum(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in nodes)
    helpers = {
        alias.asname or alias.name: (path.parent / f"{node.module}.py", alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
        for alias in node.names
    }
    parts = {
        node.name: _part("\n".join(lines[node.lineno - 1 : node.end_lineno]), list(ast.walk(node)))
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }
    quoted = next((role for role in QUOTED if path.parent.name == role), None)
    return _File(frozenset(_named(nodes, quoted)), tests, _part(text, nodes), parts, helpers)


def _part(text: str, nodes: list[ast.AST]) -> _Part:
    calls = frozenset(node.id for node in nodes if isinstance(node, ast.Name))
    takes = frozenset(argument.arg for node in nodes if isinstance(node, ast.FunctionDef) for argument in node.args.args)
    return _Part(bool(TRAINING.search(text)), calls, takes)


@functools.cache
def _modules() -> dict[str, str]:
    return {plugin.target: f"{plugin.role}/{plugin.name}" for plugin in all_plugins()}


def _named(nodes: list[ast.AST], quoted: str | None) -> Iterator[str]:
    """The plug-ins that a test file names, as `role/name`."""
    modules = _modules()
    known = set(modules.values())
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            stem = getattr(node, "module", None)
            yield from (modules[full] for alias in node.names for full in (alias.name, stem, f"{stem}.{alias.name}") if full in modules)
        elif isinstance(node, ast.Call):
            words = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            if len(words) == 2 and f"{words[1]}/{words[0]}" in known:
                yield f"{words[1]}/{words[0]}"
            for key in node.keywords:
                if key.arg in AXES and isinstance(key.value, ast.Constant) and isinstance(key.value.value, str):
                    name = f"{AXES[key.arg]}/{key.value.value.partition(':')[0]}"
                    yield from [name] if name in known else []
        elif quoted and isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in plugins(quoted):
            yield f"{quoted}/{node.value}"


def _trains(path: Path, name: str | None = None, seen: set[tuple[Path, str | None]] | None = None) -> bool:
    """Whether a file, or one function of it, trains a model: by itself, or by what it calls in this file and in those beside it."""
    seen = set() if seen is None else seen
    if (path, name) in seen or not path.is_file():
        return False
    seen.add((path, name))
    file = _file(path)
    part = file.whole if name is None else file.parts.get(name)
    if part is None or part.trains:
        return part is not None
    ours = [(path, one) for one in part.calls & set(file.parts)] + [file.helpers[one] for one in part.calls & set(file.helpers)]
    return any(_trains(where, one, seen) for where, one in ours)


@functools.cache
def _training_fixtures(path: Path) -> frozenset[str]:
    """The fixtures of a `conftest.py` that give a trained model, or take one that does."""
    if not path.is_file():
        return frozenset()
    parts = _file(path).parts
    found = {name for name in parts if _trains(path, name)}
    for _ in parts:  # a fixture may take another one, in any order
        found |= {name for name, part in parts.items() if part.takes & found}
    return frozenset(found)
