"""The release: a wheel and an sdist hold all that is needed and run in a clean environment; the public interface is typed."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import letheon

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "letheon"
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"  # sha256 of the text that apache.org gives out
SOURCES = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".py"]
DATA = [path.relative_to(ROOT / "src").as_posix() for path in SOURCES]  # templates, styles, tables, types


def needs(*modules: str) -> None:
    """Skip where a package is absent: see tests/SKIPS.md."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} is not installed: see tests/SKIPS.md")


def called(*words: object, cwd: Path, **more: str) -> str:
    """What a command says on stdout; a test that calls it fails with its whole output where it fails."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | more
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """Wheel and sdist, built in a copy of the sources: a build writes beside them."""
    needs("build", "setuptools")
    place = tmp_path_factory.mktemp("release")
    shutil.copytree(PACKAGE, place / "source" / "src" / "letheon", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, place / "source" / name)
    if (ROOT / "cards").is_dir():
        shutil.copytree(ROOT / "cards", place / "source" / "cards")
    called(sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", place / "source", cwd=place)
    (wheel,), (sdist,) = (place / "dist").glob("*.whl"), (place / "dist").glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def test_the_wheel_holds_every_file_that_the_package_needs(built):
    names = set(zipfile.ZipFile(built["wheel"]).namelist())
    modules = {path.relative_to(ROOT / "src").as_posix() for path in PACKAGE.rglob("*.py")}
    assert modules - names == set()
    assert len(DATA) >= 12 and set(DATA) - names == set(), "a data file is missing: see `package-data` in pyproject.toml"
    assert not [name for name in names if name.startswith("tests/")]
    (text,) = [name for name in names if name.endswith("licenses/LICENSE")]
    assert hashlib.sha256(zipfile.ZipFile(built["wheel"]).read(text)).hexdigest() == APACHE_2


def test_the_metadata_is_complete(built):
    wheel = zipfile.ZipFile(built["wheel"])
    (name,) = [one for one in wheel.namelist() if one.endswith(".dist-info/METADATA")]
    told = Parser().parsestr(wheel.read(name).decode())
    assert told["Name"] == "letheon" and told["Version"] == letheon.__version__
    assert told["Summary"] and told["Requires-Python"] == ">=3.11"
    assert told["License-Expression"] == "Apache-2.0" and told["License-File"] == "LICENSE"
    assert told["Description-Content-Type"] == "text/markdown" and "# letheon" in told.get_payload()
    (entry,) = [one for one in wheel.namelist() if one.endswith("entry_points.txt")]
    assert "letheon = letheon.cli.main:main" in wheel.read(entry).decode()


def test_the_sdist_can_be_built_from(built):
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "src/letheon/__init__.py", "src/letheon/report/style.css"} <= names


def test_the_wheel_runs_in_a_clean_environment(built, tmp_path):
    """Only letheon is installed there; its dependencies are those of this environment, so that nothing is downloaded."""
    called(sys.executable, "-m", "venv", "--without-pip", tmp_path / "clean", cwd=tmp_path)
    python = tmp_path / "clean" / "bin" / "python"
    (site,) = (tmp_path / "clean" / "lib").glob("python3.*/site-packages")
    target = f"--target={site}"
    called(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", target, built["wheel"], cwd=tmp_path)
    others = Path(importlib.util.find_spec("pydantic").origin).parents[1]
    (site / "others.pth").write_text(f"{others}\n")
    letheon_command = (python, "-m", "letheon")
    where = called(python, "-c", "import letheon; print(letheon.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(site), "the installed package is meant, not the checkout"
    assert called(*letheon_command, "--version", cwd=tmp_path).strip() == letheon.__version__
    listed = called(*letheon_command, "methods", cwd=tmp_path)
    assert re.search(r"^  npo +Negative preference", listed, re.MULTILINE) and "membership" in listed
    assert "learning_rate" in called(*letheon_command, "show", "npo", cwd=tmp_path)
    called(*letheon_command, "new", "erase", "my-method", "--root", tmp_path, cwd=tmp_path)
    assert (tmp_path / "my_method.py").is_file()
    page = "from letheon.core.findings import Finding, Findings\nfrom letheon import api\n"
    page += "found = Findings(audit='general', models={'after': (Finding(name='probability', value=0.1, n=3, split='forget'),)})\n"
    page += "api.report(found).save('report.html')\n"
    called(python, "-c", page, cwd=tmp_path)
    assert "<style" in (tmp_path / "report.html").read_text()


def test_the_version_stands_in_one_place():
    """`__init__.py` says it; pyproject reads it from there, the changelog has a heading of it, and no other file repeats it."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", letheon.__version__)
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in pyproject and 'attr = "letheon.__version__"' in pyproject
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings and headings[0] == letheon.__version__
    repeated = [path for path in PACKAGE.rglob("*.py") if re.search(r"^\s*__version__\s*=", path.read_text(encoding="utf-8"), re.MULTILINE)]
    assert repeated == [PACKAGE / "__init__.py"]


def test_the_licence_is_whole():
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2


def test_types_of_the_package_are_those_of_its_names():
    """`__init__.pyi` tells type checkers what `letheon` offers on first use; it may not fall behind."""
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    told = {alias.asname: f"letheon.{node.module}" for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told == letheon._WHERE


def checked(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """mypy in strict mode. Packages without types of their own are taken as they are."""
    settings = tmp_path / "mypy.ini"
    untyped = "transformers.*,accelerate.*,peft.*,sklearn.*,scipy.*"
    lines = ["[mypy]", "strict = True", "follow_imports = silent", f"mypy_path = {ROOT / 'src'}", f"cache_dir = {tmp_path / 'cache'}"]
    settings.write_text("\n".join([*lines, f"[mypy-{untyped}]", "follow_imports = skip", "ignore_missing_imports = True", ""]))
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(settings), *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_public_interface_is_typed(tmp_path):
    """`core`, `api` and what a caller writes against them, in strict mode; a wrong call is seen."""
    needs("mypy")
    caller = tmp_path / "caller.py"
    caller.write_text(
        "import letheon as lt\n\n"
        "data = lt.data('authors', people=40)\n"
        "subject = lt.subject('MODEL')\n"
        "run = lt.Run(seed=0)\n"
        "found: lt.Findings = lt.audit('general', subject, data, run)\n"
        "rows: int = len(data['forget'])\n"
        "lt.report(found).save('report.html')\n"
        "lt.audit('general', data, subject, run)\n"
    )
    done = checked(tmp_path, "src/letheon/core", "src/letheon/api.py", "src/letheon/__init__.pyi", str(caller))
    told = [line for line in done.stdout.splitlines() if " error: " in line]
    assert [line for line in told if "caller.py" not in line] == []
    assert len(told) == 2 and all("caller.py:9" in line and "arg-type" in line for line in told), done.stdout + done.stderr
