"""What the pages say of a desk: requests with their state and history. Texts only if asked for, and never once forgotten."""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.core.errors import LetheonError
from letheon.report.page import flatten
from letheon.report.text import clean

from .frame import many, slug

if TYPE_CHECKING:
    from letheon.ledger.desk import Desk
    from letheon.ledger.records import Event, Generation, Hit, Request

STATES = ("received", "located", "erased", "audited", "refused")
OPEN = STATES[:3]
HOW = {"exact": "the same text", "near": "near duplicates", "semantic": "the same meaning", "given": "given in the request"}
_DIGEST = re.compile("[0-9a-f]{64}")
GROUNDS = {"gdpr-17": "GDPR, article 17", "takedown": "takedown", "safety": "safety", "contract": "contract", "other": "other"}


@dataclass(frozen=True)
class Row:
    """One request in a table."""

    id: str
    page: str
    state: str
    overdue: bool
    asks: str
    reason: str
    received: datetime
    due: datetime
    found: int
    found_words: str
    model: int | None

    @property
    def order(self) -> int:
        """Its place on the way from received to refused, for sorting."""
        return STATES.index(self.state)

    @property
    def open(self) -> bool:
        """Whether somebody still has to act."""
        return self.state in OPEN

    @property
    def tags(self) -> str:
        """What the filters look for."""
        return " ".join([self.state, *(["overdue"] if self.overdue else []), "open" if self.open else "closed"])


def page(request: str) -> str:
    """Where the page of a request lies."""
    return f"requests/{slug(request)}.html"


def asks(request: Request) -> str:
    """In which way a request says what it is about, never with the text itself."""
    what = request.what
    if what is None:
        return "text forgotten"
    place = f" in {clean(what.corpus, 60)}" if what.corpus else ""
    if what.rows:
        return many(len(what.rows), "row") + " given" + place
    return ("a file of rows" if what.file else "a query" if what.query else "an entity") + place


def row(request: Request, hits: Sequence[Hit], history: Sequence[Event], generations: Sequence[Generation], now: datetime) -> Row:
    """A request as one line."""
    counts = found(hits, history)
    gone, kept = sum(going for *_, going, _ in counts), sum(kept for *_, kept in counts)
    words = many(gone, "row") + (f", {kept:,} kept" if kept else "") if counts else "not looked for"
    model = next((one.number for one in generations if request.id in one.requests), None)
    return Row(
        id=clean(request.id, 40), page=page(request.id), state=str(request.state), overdue=request.overdue(now), asks=asks(request),
        reason=GROUNDS.get(request.reason, clean(request.reason, 60)), received=request.received, due=request.due, found=gone,
        found_words=words, model=model,
    )  # fmt: skip


def rows(desk: Desk, now: datetime) -> list[Row]:
    """All requests: open ones first, by when they are due, then the others, newest first."""
    generations, histories = desk.generations(), defaultdict[str | None, list["Event"]](list)
    for event in desk.history():
        histories[event.request].append(event)
    made = [row(request, desk.hits(request.id), histories[request.id], generations, now) for request in desk.all()]
    closed = sorted((one for one in made if not one.open), key=lambda one: one.received, reverse=True)
    return sorted((one for one in made if one.open), key=lambda one: one.due) + closed


def found(hits: Sequence[Hit], history: Sequence[Event]) -> list[tuple[str, str, int, int]]:
    """How many rows were found: corpus, how, to erase, kept by a person. From the history once the rows themselves are forgotten."""
    gone = Counter((hit.corpus, hit.how) for hit in hits if not hit.keep)
    kept = Counter((hit.corpus, hit.how) for hit in hits if hit.keep)
    counts = [(clean(corpus, 60), HOW[how], gone[corpus, how], kept[corpus, how]) for corpus, how in sorted({*gone, *kept})]
    located = [event.facts for event in history if event.kind == "located"]
    if counts or not located:
        return counts
    facts = located[-1]
    ways = ", ".join(f"{words}: {facts[how]}" for how, words in HOW.items() if facts.get(how))
    return [(clean(", ".join(map(str, facts.get("corpora", ()))), 60), ways, int(facts.get("rows", 0)), int(facts.get("kept", 0)))]


def texts(request: Request, hits: Sequence[Hit]) -> list[tuple[str, str]]:
    """What a request is about in clear, and the rows that were found; nothing once its text has been forgotten."""
    if request.what is None:
        return []
    said = request.what.model_dump(exclude_none=True, exclude_defaults=True)
    about = [(name, text) for name, text in flatten(said)]
    return about + [(clean(f"{hit.corpus}, row {hit.row}", 80), clean(hit.text)) for hit in hits if hit.text]


@dataclass(frozen=True)
class Step:
    """One event of a history."""

    at: datetime
    kind: str
    facts: tuple[tuple[str, str], ...]
    digest: str


def step(event: Event) -> Step:
    """An event as a person reads it, long values cut."""
    said = flatten(event.facts) if event.facts else []
    facts = [(name, text[:16] if _DIGEST.fullmatch(text) else clean(text, 200)) for name, text in said]
    return Step(event.at, clean(event.kind, 60), tuple(facts), event.digest[:12])


def chain(desk: Desk) -> tuple[str, str]:
    """Whether the ledger is whole: tone and words."""
    faults = [clean(fault, 300) for fault in desk.check()]
    if not faults:
        return "good", "The history is whole: each event holds the digest of the one before."
    more = f" and {len(faults) - 3} more." if faults[3:] else "."
    return "bad", f"The ledger has been changed or damaged: {'; '.join(faults[:3])}{more}"


@dataclass(frozen=True)
class Evidence:
    """The evidence on a request: one sentence, name, result and words of each check, what it proves and what not."""

    words: str
    checks: tuple[tuple[str, str, str], ...] = ()
    said: tuple[str, ...] = ()


def evidence(desk: Desk, request: Request, generations: Sequence[Generation]) -> Evidence:
    """The evidence on a request, checked."""
    bundle = desk.evidence(request.id)
    if bundle is None:
        return Evidence("No evidence has been written yet.")
    model = next((one for one in generations if request.id in one.requests), None)
    folder = None if model is None else desk.model_folder(model)
    files = [Path(bundle), *(sorted(folder.parent.rglob("*")) if folder is not None else [])]
    stamp = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files if path.is_file())
    return _checked(Path(bundle), folder, Path(desk.folder) / "keys" / "desk.pub", request.id, stamp)


@functools.lru_cache(256)
def _checked(bundle: Path, model: Path | None, key: Path, request: str, _stamp: tuple[Any, ...]) -> Evidence:
    """The checks of one bundle; kept while no file changes, since they read the whole model."""
    try:
        from letheon.ledger import verify

        found = verify.verify(bundle, model, [key], request=request)
    except (LetheonError, ImportError, OSError) as error:
        return Evidence(f"The evidence could not be checked here: {clean(str(error), 300)}")
    checks = tuple((clean(one.name, 60), str(one.result), clean(one.text, 600)) for one in found)
    count = Counter(result for _, result, _ in checks)
    words = f"{many(count['pass'], 'check')} passed, {count['fail']} failed, {count['unknown']} could not be decided."
    return Evidence(words, checks, tuple(clean(text, 600) for text in found.said))


def recipe(generation: Generation) -> list[tuple[str, str]]:
    """The recipe of a model as names and values."""
    shown: dict[str, Any] = {key: value for key, value in generation.recipe.items() if key != "data"}
    return flatten(shown) if shown else []
