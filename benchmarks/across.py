"""Which methods do well in every comparison? The tables of several sweeps as one, ordered by the worst that each method does.

    python benchmarks/across.py docs/results.md
    python benchmarks/across.py runs/sweep-authors/table.md runs/sweep-tofu/table.md

Reads the tables that `letheon sweep` writes (`table.md`), or a page that holds them. Of the means over seeds:

    gone   1 - |p - p_retrained| / (p_original - p_retrained)      p: forget probability; too little counts as much as too much left
    kept   utility / the smaller one of original and retrained, at most 1
    back   (relearned - that of the retrained) / (that of the original - that of the retrained), at least 0
    score  harmonic mean of gone and kept

`back` is shown and not scored. A method that is not in every table comes after those that are; rows with failed seeds are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from pathlib import Path

LEFT, KEPT, BACK = "forget probability", "model utility", "forget relearned probability"
Table = dict[str, dict[str, float]]


def tables(text: str) -> list[Table]:
    """Every table of a sweep in a Markdown text: means by row and column."""
    found: list[Table] = []
    head: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if {LEFT, KEPT, BACK} <= set(cells):
            head = cells
            found.append({})
        elif not cells:
            head = []
        elif head and not set(cells[0] or "-") <= set("-: "):
            name = re.sub(r"^\d+ ", "", cells[0]).removesuffix(" *")
            means = {key: cell.split()[0] for key, cell in zip(head[1:], cells[1:], strict=True) if key in (LEFT, KEPT, BACK) and cell}
            with contextlib.suppress(KeyError, ValueError):
                if not name.endswith(" seeds)"):
                    found[-1][name] = {key: float(means[key]) for key in (LEFT, KEPT, BACK)}
    return [table for table in found if {"original", "retrained"} <= set(table)]


def judged(table: Table, name: str) -> tuple[float, float, float, float]:
    """Score, gone, kept and back of one row."""
    before, never, row = table["original"], table["retrained"], table[name]
    gone = 1 - min(1.0, abs(row[LEFT] - never[LEFT]) / (before[LEFT] - never[LEFT]))
    kept = min(1.0, row[KEPT] / min(before[KEPT], never[KEPT]))
    back = max(0.0, row[BACK] - never[BACK]) / (before[BACK] - never[BACK])
    return 2 * gone * kept / (gone + kept) if gone + kept else 0.0, gone, kept, back


def main() -> None:
    """Print the joined table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    files = parser.parse_args().files
    if absent := [file for file in files if not file.is_file()]:
        sys.exit(f"error: there is no file {absent[0]}. Give the `table.md` that `letheon sweep` writes")
    found = [table for file in files for table in tables(file.read_text(encoding="utf-8"))]
    if not found:
        sys.exit("error: no table of a sweep in these files. Give the `table.md` that `letheon sweep` writes")
    names = list(dict.fromkeys(name for table in found for name in table if name not in ("original", "retrained", "retrain")))
    rows = [(name, [judged(table, name) if name in table else None for table in found]) for name in names]
    rows.sort(key=lambda row: (None in row[1], -min(one[0] for one in row[1] if one)))
    lines = [f"| | worst score |{''.join(f' {k + 1}: gone, kept, back |' for k in range(len(found)))}", f"|---|---|{'---|' * len(found)}"]
    for name, scores in rows:
        cells = ["" if one is None else ", ".join(f"{x:.2f}" for x in one[1:]) for one in scores]
        lines.append(f"| {name} | {min(one[0] for one in scores if one):.2f} | {' | '.join(cells)} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
