"""What `letheon new` writes: a method file, its card and its test, ready to be filled in.

In a checkout of letheon the files go where they belong; in any other folder they lie side by side, and `letheon check my_method.py` checks
the method before it is packaged. A fresh erasing method passes its contracts as soon as the one line of its loss is written.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from letheon.core.errors import MethodError, did_you_mean
from letheon.core.files import write_text
from letheon.core.registry import ROLES, called, plugins

from ._every import repository

_TEMPLATES = Path(__file__).resolve().parent
_KINDS = {"erase": "erase", "audit": "audit", "train/retain": "retain"}  # role -> first part of its templates' names
_WITH_CARD = ("erase",)


def roles() -> list[str]:
    """The roles that have templates."""
    return list(_KINDS)


def _checked(role: str, name: str) -> str:
    """The name with dashes. Raises MethodError where role or name will not do."""
    if role not in _KINDS:
        hint = f"There are templates for {', '.join(_KINDS)}" if role in ROLES else did_you_mean(role, _KINDS)
        raise MethodError(f"There is no template for the role `{role}`", hint)
    wanted = name.replace("_", "-")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", wanted) or keyword.iskeyword(wanted.replace("-", "_")):
        raise MethodError(f"`{name}` cannot be the name of a plug-in", "Use lower-case words joined by dashes, such as `my-method`")
    if wanted in plugins(role):
        raise MethodError(f"There is already {called(role)} called `{wanted}`", "Choose another name")
    return wanted


def places(role: str, name: str, root: Path) -> dict[str, Path]:
    """Where the files of a new plug-in go: "method", "test" and, for some roles, "card"."""
    stem = name.replace("-", "_")
    if (root / "src" / "letheon" / role).is_dir():
        folder = "audit" if role == "audit" else "train" if role.startswith("train/") else "methods"
        found = {"method": root / "src" / "letheon" / role / f"{stem}.py", "test": root / "tests" / folder / f"test_{stem}.py"}
        card = root / "cards" / f"{name}.md"
    else:
        found = {"method": root / f"{stem}.py", "test": root / f"test_{stem}.py"}
        card = root / f"{name}.md"
    return found | ({"card": card} if role in _WITH_CARD else {})


def write(role: str, name: str, root: Path | None = None) -> list[Path]:
    """Write the files of a new plug-in.

    Args:
        role: a role that has templates: `erase`, `audit`, `train/retain`.
        name: lower-case words joined by dashes.
        root: a checkout of letheon or any other folder; None takes the present folder, or the whole checkout of letheon where it is in one.

    Returns:
        The files that were written.

    Raises:
        MethodError: the name is taken or malformed, the role has no template, or one of the files exists.
    """
    name = _checked(role, name)
    checkout = repository()
    here = checkout if checkout is not None and Path.cwd().is_relative_to(checkout) else Path.cwd()
    root = here if root is None else Path(root)
    files = places(role, name, root)
    for path in files.values():
        if path.exists():
            raise MethodError(f"{path} already exists", "Choose another name, or remove the file")
    stem = name.replace("-", "_")
    inside = root / "src" in files["method"].parents
    words = {
        "name": name,
        "stem": stem,
        "title": name.replace("-", " ").capitalize(),
        "cls": "".join(part.capitalize() for part in name.split("-")),
        "module": ".".join(["letheon", *role.split("/"), stem]) if inside else stem,
        "target": f'"{name}", "{role}"' if inside else f'Path(__file__).with_name("{stem}.py")',
        "path_import": "" if inside else "from pathlib import Path\n\n",
    }
    for part, path in files.items():
        template = Template((_TEMPLATES / f"{_KINDS[role]}_{part}.txt").read_text(encoding="utf-8"))
        write_text(path, template.substitute(words))
    plugins.cache_clear()
    return list(files.values())
