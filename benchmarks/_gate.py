"""The gate: ratios of a run of the benchmarks against those that are kept, with a margin for noise.

Ratios compare two ways of doing the same thing on one machine, so they mean something on another; seconds do not, and are not compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

KEPT = Path(__file__).with_name("kept.json")
MARGIN = 0.25  # share of the kept number; single turns of a ratio differ by up to a tenth on a busy machine
HIGHER = (  # places in the JSON of the benchmarks where more is better
    "audit_speed/cpu_ratio",
    "erase_speed/letheon*_against_straightforward/cpu_ratio",
    "generation/cpu_ratio",
    "step_speed/speed_against_npo/*",
)
LOWER = (  # and where less is
    "erase_speed/memory_ratios/letheon*",
    "startup/times_python/*letheon*",
    "scaling/rows/many_over_few",
    "scaling/memory/*_growth",
    "scaling/length/longest_over_shortest",
    "scaling/size/largest_over_smallest",
    "scaling/requests/*last_over_first",
)


class KeptError(Exception):
    """The kept numbers are missing or broken; the message is one sentence for people."""


def flat(results: Mapping[str, Any], before: str = "") -> dict[str, float]:
    """All numbers of nested dicts, by the path to them."""
    found: dict[str, float] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{before}{key}"] = float(value)
    return found


def ratios(results: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that the gate looks at."""
    return {path: value for path, value in flat(results).items() if any(fnmatch(path, one) for one in (*HIGHER, *LOWER))}


def measured(results: Mapping[str, Any], path: str) -> bool:
    """Whether the part of a benchmark that gives this number was run."""
    first, second, *_ = path.split("/")
    part = results.get(first)
    return part is not None and (first != "scaling" or second in part)


def worse(results: Mapping[str, Any], kept: Mapping[str, float], margin: float = MARGIN) -> list[str]:
    """One line for each ratio that is worse than kept by more than the margin, or is not there any more; what was not run is left out."""
    found, lines = ratios(results), []
    for path, was in kept.items():
        if not measured(results, path):
            continue
        if path not in found:
            lines.append(f"{path}: {was:.3g} is kept, and nothing was measured")
        elif any(fnmatch(path, one) for one in HIGHER) and found[path] < was * (1 - margin):
            lines.append(f"{path}: {found[path]:.3g}, kept {was:.3g}, at least {was * (1 - margin):.3g}")
        elif any(fnmatch(path, one) for one in LOWER) and found[path] > was * (1 + margin):
            lines.append(f"{path}: {found[path]:.3g}, kept {was:.3g}, at most {was * (1 + margin):.3g}")
    return lines


def read(path: Path = KEPT) -> dict[str, Any]:
    """The kept file: `ratios` by path, and the `machine` that they were measured on.

    Raises:
        KeptError: it is missing or broken.
    """
    if not path.is_file():
        raise KeptError(f"There are no kept numbers {path.name} to compare with: `python benchmarks/run.py --keep` writes them")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if {type(value) for value in found["ratios"].values()} <= {int, float} and isinstance(found["machine"], dict):
            return dict(found)
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    hint = "take the file from git again, or let `python benchmarks/run.py --keep` write it"
    raise KeptError(f"The kept numbers {path.name} are broken: {hint}")


def keep(results: Mapping[str, Any], path: Path = KEPT) -> None:
    """Write the ratios of what was run; those of what was not run stay."""
    from letheon.core.files import write_text

    try:
        before = read(path)["ratios"]
    except KeptError:
        before = {}
    stay = {name: value for name, value in before.items() if not measured(results, name)}
    now = {name: float(f"{value:.4g}") for name, value in ratios(results).items()}
    content = {"machine": results["machine"], "ratios": dict(sorted((stay | now).items()))}
    write_text(path, json.dumps(content, indent=1) + "\n")
