"""The rules of the house that a machine can check: who imports whom, sizes, and what no file may hold."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import letheon
from letheon.core import registry

PACKAGE = Path(letheon.__file__).resolve().parent
ROOT = PACKAGE.parents[1]
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in FILES]
EVERY_FILE = pytest.mark.parametrize("path", FILES, ids=NAMES)

# A file may import from lower levels and from its own folder, never from its neighbours on the same level.
LEVELS = [
    {"maths"},
    {"core"},
    {"train"},
    {"data", "subjects"},
    {"shield", "select", "erase", "keep", "adapt", "compress", "guard"},
    {"audit"},
    {"report"},
    {"api"},
    {"flow"},
    {"ledger"},
    {"pages"},
    {"testing"},
    {"serve"},
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> list[tuple[str, int]]:
    """Full names of the letheon modules that a file imports, anywhere in it, with line numbers."""
    package = ["letheon", *path.relative_to(PACKAGE).parent.parts]
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found += [(f"{stem}.{alias.name}", node.lineno) for alias in node.names]
    return [(name, line) for name, line in found if name.split(".")[0] == "letheon"]


def folder_of(name: str) -> str | None:
    """The part of letheon that a module belongs to; None for `letheon` itself, which holds no code."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LEVEL else None


@EVERY_FILE
def test_imports_go_one_way(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        assert all(folder_of(name) is None for name, _ in imports(path)), "`import letheon` must stay cheap"
        return
    assert own in LEVEL, f"`{own}` has no level: add it to DESIGN and here"
    for name, line in imports(path):
        other = folder_of(name)
        allowed = other in (None, own) or LEVEL[other] < LEVEL[own] or (own == "__main__" and other == "cli")
        assert allowed, f"line {line}: {own} may not import {name}"


def test_the_import_check_sees_function_level_and_relative_imports(tmp_path):
    names = {name for name, _ in imports(PACKAGE / "cli" / "look.py")}
    assert any(name.startswith("letheon.testing.scaffold") for name in names), "it is imported inside a function"
    assert {folder_of(name) for name, _ in imports(PACKAGE / "api.py")} >= {"core"}, "it is imported relatively"


@pytest.mark.parametrize("plugin", registry.all_plugins(), ids=lambda plugin: f"{plugin.role}/{plugin.name}")
def test_a_plugin_imports_no_other_plugin(plugin):
    modules = {other.target for other in registry.all_plugins() if other.target != plugin.target}
    taken = [name for name, _ in imports(plugin.path) if name in modules or name.rpartition(".")[0] in modules]
    assert not taken, f"name it in a setting, or move what both need into a shared file: {taken}"


@EVERY_FILE
def test_size_and_shape(path):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= 300, "split it"
    assert len(path.relative_to(PACKAGE.parent).parent.parts) <= 3, "three levels of folders, no more"
    assert [k for k, line in enumerate(lines, 1) if len(line) > 140] == []
    assert [k for k, line in enumerate(lines, 1) if line != line.rstrip() or "\t" in line] == []


@EVERY_FILE
def test_docstrings_and_annotations(path):
    module = tree(path)
    assert ast.get_docstring(module), "what is this file for?"
    if any(not isinstance(node, ast.Expr) for node in module.body):
        assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in module.body)
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"`{node.name}` has no docstring"
            assert node.returns is not None, f"`{node.name}` does not say what it returns"


@EVERY_FILE
def test_nothing_that_a_library_must_not_do(path):
    seeds = {"torch.manual_seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "np.random.seed", "numpy.random.seed", "random.seed"}
    testing = path.relative_to(PACKAGE).parts[0] == "testing"
    forked = {
        inner
        for node in ast.walk(tree(path))
        if isinstance(node, ast.With) and any("fork_rng" in ast.unparse(item.context_expr) for item in node.items)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name != "print", f"line {node.lineno}: print"
            assert name not in seeds or testing or node in forked, f"line {node.lineno}: seeds the global generator"
            assert name not in ("pickle.load", "pickle.loads", "torch.load", "eval", "exec"), f"line {node.lineno}: {name}"
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"line {node.lineno}: bare except"
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert is for tests"


@EVERY_FILE
def test_no_list_of_methods_is_typed(path):
    """Names come from the registry. A suite of audits is a definition, so names of audits may stand together."""
    for role in registry.ROLES:
        names = set() if role == "audit" else set(registry.plugins(role))
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
                parts = node.keys if isinstance(node, ast.Dict) else node.elts
                words = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
                known = names.intersection(words)
                assert len(known) < 3, f"line {node.lineno} lists {sorted(known)}"


def test_cheap_imports_stay_cheap():
    """Looking things up must not wait for torch: `import letheon`, the registry, settings, data sources, reports, the command line."""
    modules = ["letheon", "letheon.api"]
    modules += [f"letheon.core.{name}" for name in ("errors", "settings", "registry", "findings", "files", "data", "method")]
    modules += ["letheon.testing.toys"]
    modules += [".".join(["letheon", *Path(name).with_suffix("").parts]) for name in NAMES if name.split("/")[0] in ("data", "report", "flow", "pages", "cli")]
    code = f"import importlib, sys\nfor name in {modules!r}:\n    importlib.import_module(name.removesuffix('.__init__'))\n"
    code += "    heavy = {'torch', 'transformers', 'peft', 'matplotlib', 'sklearn', 'pyarrow', 'datasets'} & set(sys.modules)\n"
    code += "    assert not heavy, (name, heavy)\n"
    code += "from letheon.core import registry\n[plugin.summary for plugin in registry.all_plugins()]\nassert 'torch' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(modules) > 20


def repository_files() -> list[Path]:
    """Files that git knows or would take in."""
    try:
        done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: see tests/SKIPS.md")
    return [path for path in (ROOT / name for name in done.stdout.splitlines()) if path.is_file()]


def test_no_file_names_a_place_of_one_machine():
    """No home folders, no package index addresses."""
    places = re.compile("|".join(("/" + name + r"/\w") for name in ("root", "home", "Users", "work")) + "|" + "--(extra-)?index" + "-url")
    found = []
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}:{k}: {line.strip()[:80]}" for k, line in enumerate(text.splitlines(), 1) if places.search(line)]
    assert found == []


def test_files_are_of_a_sane_size():
    """Nothing large lies in the repository by accident, and test files are as short as others."""
    assert [str(path) for path in repository_files() if path.stat().st_size > 2_000_000] == []
    tests = [path for path in repository_files() if path.suffix == ".py" and "tests" in path.relative_to(ROOT).parts]
    assert [str(path.relative_to(ROOT)) for path in tests if len(path.read_text(encoding="utf-8").splitlines()) > 300] == []


@pytest.mark.parametrize("plugin", registry.plugins("erase").values(), ids=lambda plugin: plugin.name)
def test_an_erasing_method_has_a_test_of_its_own(plugin):
    named = list((ROOT / "tests").rglob(f"test_{plugin.path.stem}.py"))
    assert named, f"`tests/methods/test_{plugin.path.stem}.py` is missing"


def grounding(card: str) -> str:
    """What a card says it rests on, up to the next item."""
    text = (ROOT / "cards" / f"{card}.md").read_text(encoding="utf-8")
    return re.split(r"\n(?:- |\n|#)", text.partition("- Grounding:")[2], maxsplit=1)[0]


def test_a_reconstruction_says_so():
    """A method whose card rests on a reconstruction tells its users in the text that `letheon show` prints."""
    silent, swept = [], 0
    for plugin in registry.all_plugins():
        for card in re.findall(r"Cards?: ([a-z0-9, -]+)\.", plugin.docstring):
            if any("reconstruct" in grounding(name).lower() for name in card.split(", ")):
                swept += 1
                silent += [plugin.name] if "reconstruct" not in plugin.docstring.lower() else []
    assert swept >= 8 and silent == []
