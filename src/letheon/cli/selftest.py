"""`letheon audit --self-test`: what every metric of the audit is worth, as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .options import print_json, print_rich

if TYPE_CHECKING:
    from letheon.testing.selftest import SelfTest

CAPTION = """AUC: tells models that know from models that never knew (1 best).
refusal, guard, last block: share of what a model only hides that the metric sees (1 sees it all).
relearning, rounding: keeps its answer when the model is trained a little, or rounded to 4 bits (1 best)."""


def shown(assignments: Iterable[str], out: Path | None, *, as_json: bool, progress: bool, force: bool) -> None:
    """Run the self-test, print its table and keep it in `out`."""
    from letheon.core.files import write_text
    from letheon.core.settings import parse_settings
    from letheon.flow import output
    from letheon.flow.recipe import merged
    from letheon.testing.selftest import SelfTestSettings, self_test

    output.check_file(out, "--out", force=force)
    settings = parse_settings(SelfTestSettings, merged({}, assignments), "letheon audit --self-test")
    found = self_test(settings, progress=progress)
    values = asdict(found)
    if out is not None:
        write_text(out, json.dumps(values, indent=1) + "\n")
    if as_json:
        print_json(values)
        return
    print_rich(table(found))
    for kind, words in found.words.items():
        works, tried = found.alarms[kind]
        typer.echo(f"{kind}: {', '.join(sorted(set(words)))}; {works} of {tried} attacks work")
    if out is not None:
        typer.echo(out)


def table(found: SelfTest) -> Any:
    """The lines of a self-test as a rich table."""
    from rich.table import Table

    from letheon.testing.selftest import HIDDEN

    drawn = Table(box=None, pad_edge=False, caption=CAPTION, caption_justify="left")
    for name in ("metric", "AUC", *HIDDEN, "relearning", "rounding"):
        drawn.add_column(name, justify="left" if name == "metric" else "right", no_wrap=True)
    for line in found.lines:
        values = (line.faithfulness, *(line.hidden[kind] for kind in HIDDEN), line.relearning, line.rounding)
        drawn.add_row(line.metric, *("-" if value is None else f"{value:.2f}" for value in values))
    return drawn
