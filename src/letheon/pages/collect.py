"""The table that comes with the package: what is known of plug-ins only in a checkout. Written by `letheon pages --table`."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from letheon.core.errors import RunError
from letheon.core.registry import all_plugins

from . import cards, standing, tested

DATED = re.compile(r"^## (\S+) \((\d{4}-\d{2}-\d{2})\)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def collected(results: Sequence[Path]) -> dict[str, Any]:
    """Comparisons from `results`, tests as they stand in the checkout, dates from its history and its list of changes.

    Raises:
        RunError: letheon does not run from a checkout.
        DataError: a file does not hold the results of a sweep.
    """
    root = cards.root()
    if root is None:
        raise RunError("The table is made from a checkout, and letheon runs from an installed package", "Run it in the repository")
    return {
        "made_by": "letheon pages --table FILE --results RESULTS ...",
        "comparisons": [standing.read(path).model_dump(mode="json") for path in results],
        "tests": {name: asdict(one) for name, one in sorted(tested.tested().items())},
        "added": dates(root),
        "releases": releases((root / "CHANGELOG.md").read_text(encoding="utf-8")),
    }


def dates(root: Path) -> dict[str, str]:
    """When the file of each plug-in came into the repository, by `role/name`; a date once given stays."""
    found: dict[str, str] = {}
    paths = {plugin.path.relative_to(root).as_posix(): f"{plugin.role}/{plugin.name}" for plugin in all_plugins() if plugin.path}
    command = ["git", "log", "--diff-filter=A", "--no-renames", "--reverse", "--format=@%cI", "--name-only", "--", "src/letheon"]
    try:
        said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise RunError(f"The history of the repository cannot be read: {error}", "The dates come from `git log`") from error
    at = ""
    for line in said.splitlines():
        if line.startswith("@"):
            at = line[1:]
        elif line in paths:
            found.setdefault(paths[line], at)
    return dict(sorted((found | standing.table().get("added", {})).items()))


def releases(changes: str) -> list[dict[str, str]]:
    """The releases of a list of changes that have a date: `## 1.2.0 (2026-01-31)`."""
    return [{"version": version, "date": day, "text": " ".join(text.split())} for version, day, text in DATED.findall(changes)]


def written(table: dict[str, Any]) -> str:
    """The table as it stands in its file."""
    return json.dumps(table, indent=1, ensure_ascii=False) + "\n"
