"""The lineage of models as a drawing: one line for each generation, edges to its parent, requests on the edges, verdicts in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from letheon.core.errors import LetheonError
from letheon.core.findings import Findings
from letheon.report import verdict
from letheon.report.plots import tag
from letheon.report.text import clean

from .desk import page
from .frame import day, many, sign

if TYPE_CHECKING:
    from letheon.ledger.desk import Desk
    from letheon.ledger.records import Generation

STEP, LANE, LEFT, TOP, RADIUS = 92.0, 26.0, 24.0, 30.0, 9.0  # pixels
WIDE = 300.0


@dataclass(frozen=True)
class Model:
    """One generation as it is shown."""

    number: int
    parent: int | None
    made: str
    word: str
    tone: str
    sentence: str
    requests: tuple[tuple[str, str], ...]  # id and page
    report: str | None
    digest: str
    root: str
    method: str
    current: bool

    @property
    def edge(self) -> str:
        """What stands on the edge from its parent."""
        names = [name for name, _ in self.requests]
        return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"


def models(desk: Desk) -> list[Model]:
    """All generations, in order."""
    generations = desk.generations()
    return [model(desk, one, current=one is generations[-1]) for one in generations]


def model(desk: Desk, one: Generation, *, current: bool) -> Model:
    """One generation; its verdict is that of its findings, or the word in the ledger where these are gone."""
    found, tone, sentence = findings(desk, one), "unknown", ""
    word = one.verdict or ("came in" if one.parent is None else "not audited")
    if found is not None:
        said = verdict(found)
        word, tone, sentence = said.word, said.tone, said.sentence
    method = one.recipe.get("method")
    name = method.get("name", "") if isinstance(method, dict) else method or ""
    return Model(
        number=one.number, parent=one.parent, made=day(one.made), word=clean(word, 60), tone=tone, sentence=clean(sentence, 1200),
        requests=tuple((clean(request, 40), page(request)) for request in one.requests),
        report=f"models/{one.number}.html" if found is not None else None, digest=clean(one.digest, 80), root=clean(one.root, 80),
        method=clean(name, 60), current=current,
    )  # fmt: skip


def findings(desk: Desk, one: Generation) -> Findings | None:
    """What the audit of a generation found, or None where there is none that can be read."""
    run = desk.run_folder(one)
    if run is None or not (run / "findings.json").is_file():
        return None
    try:
        return Findings.load(run)
    except LetheonError:
        return None


def lanes(models: Sequence[Model]) -> dict[int, int]:
    """A column for each generation: the first child goes on in its parent's, each other child opens a new one."""
    found: dict[int, int] = {}
    taken: set[int] = set()  # parents that somebody has gone on from
    for one in models:
        if one.parent in found and one.parent not in taken:
            found[one.number] = found[one.parent]
            taken.add(one.parent)
        else:
            found[one.number] = max(found.values(), default=-1) + 1
    return found


def drawing(models: Sequence[Model]) -> Markup:
    """The lineage from the first model down; the table beside it says the same."""
    lane, heights = lanes(models), {one.number: TOP + STEP * place for place, one in enumerate(models)}
    across = {number: LEFT + LANE * column for number, column in lane.items()}
    text = LEFT + LANE * max(lane.values(), default=0) + 22
    parts = []
    for one in models:
        if one.parent in heights:
            x1, y1, x2, y2 = across[one.parent], heights[one.parent], across[one.number], heights[one.number]
            turn = f"Q{x1:.1f} {y2 - 40:.1f} {(x1 + x2) / 2:.1f} {y2 - 40:.1f}T{x2:.1f} {y2 - 20:.1f}"
            bend = f"M{x1:.1f} {y1:.1f}V{y2 - 60:.1f}{turn}V{y2:.1f}"
            parts.append(tag("path", d=bend if x1 != x2 else f"M{x1:.1f} {y1:.1f}V{y2:.1f}", class_="edge"))
    for one in models:
        x, y = across[one.number], heights[one.number]
        if one.parent in heights:
            parts.append(tag("text", f"{one.edge}", x=text, y=y - STEP / 2 + 6, class_="small"))
        parts.append(tag("circle", cx=x, cy=y, r=RADIUS + 2, class_="stop"))
        parts.append(sign(one.tone, x - RADIUS, y - RADIUS, 2 * RADIUS))
        if one.current:
            parts.append(tag("circle", cx=x, cy=y, r=RADIUS + 3, class_="current"))
        parts.append(tag("text", f"model {one.number}{', current' if one.current else ''}", x=text, y=y - 2, class_="name"))
        parts.append(tag("text", one.word if len(one.word) <= 34 else f"{one.word[:33]}…", x=text, y=y + 15))
    count = sum(len(one.requests) for one in models)
    title = f"{many(len(models), 'model')}, {many(count, 'request')} between them"
    origins = ["" if m.parent is None else f" from model {m.parent}" + (f" by {m.edge}" if m.edge else "") for m in models]
    heard = "; ".join(f"model {m.number}{origin}: {m.word}" for m, origin in zip(models, origins, strict=True))
    height = TOP + STEP * (len(models) - 1) + 34
    return tag(
        "svg", tag("title", title, id="lineage-title"), tag("desc", heard, id="lineage-words"), *parts,
        viewBox=f"0 0 {WIDE:g} {height:g}", width=WIDE, height=height, class_="lineage", role="img",
        aria_labelledby="lineage-title", aria_describedby="lineage-words",
    )  # fmt: skip
