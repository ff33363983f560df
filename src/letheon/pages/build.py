"""All pages by their path: a table of functions, each of which makes its page when it is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from letheon.core.errors import DataError
from letheon.report.text import clean

from . import atlas, desk, feed, lineage, runs
from .frame import POLICY, REPORT_POLICY, TYPES, asset, many, render, slug
from .standing import comparisons

if TYPE_CHECKING:
    from letheon.ledger.desk import Desk

Pages = dict[str, Callable[[], bytes]]
ASSETS = ("style.css", "pages.js", "icon.svg")


def site(
    desk: Desk | None, runs: Sequence[Path], results: Sequence[Path] | None = None, *, texts: bool = False, now: datetime | None = None
) -> Pages:
    """Every page by its path below `/` (`index.html`, `requests/r-abc.html`, `feed.xml`), as a function that gives its bytes.

    The table itself is cheap: a server makes it anew for each look, and so shows requests that came in since. Pages read the desk when they
    are called.

    Args:
        desk: an open desk, or None: no requests and no lineage.
        runs: run folders, or `findings.json` files, to set side by side.
        results: `results.json` of sweeps, for the atlas; those that come with the package are there anyway.
        texts: show the text of requests and of rows found, folded, until it is forgotten. A static copy would keep it: the default is no.
        now: the time to judge by what is overdue; default: the clock.

    Raises:
        DataError: a file of results does not hold the results of a sweep.
    """
    return _Site(desk, tuple(runs), tuple(results or ()), texts, now).pages()


def headers(path: str) -> dict[str, str]:
    """The headers that a server sends with the page of that path."""
    own = path.startswith(("runs/", "models/", "sweeps/"))
    return {
        "Content-Type": TYPES.get(Path(path).suffix, "application/octet-stream"),
        "Content-Security-Policy": f"{REPORT_POLICY if own else POLICY}; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


class _Site:
    """What the pages share."""

    def __init__(self, given: Desk | None, paths: tuple[Path, ...], results: tuple[Path, ...], texts: bool, now: datetime | None):
        self.desk, self.runs, self.texts, self.at, self.results = given, runs.named(paths), texts, now, results
        self.comparisons = tuple(comparisons(results))
        self.entries = atlas.entries(self.comparisons)

    def pages(self) -> Pages:
        """The table of all pages."""
        found: Pages = {"index.html": self.start, "requests.html": self.requests, "models.html": self.models}
        found["runs.html"] = self.side_by_side
        whole = [_name(path) for path in self.results]
        found |= {"atlas.html": partial(atlas.index, self.entries, self.comparisons, whole), "feed.xml": partial(feed.feed, self.entries)}
        found |= {name: partial(asset, name) for name in ASSETS}
        found |= {entry.page: partial(atlas.method, entry) for entry in self.entries}
        found |= {run.page: partial(runs.report, run.path) for run in self.runs}
        found |= {f"sweeps/{_name(path)}.html": partial(runs.sweep, path) for path in self.results}
        if self.desk is not None:
            found |= {desk.page(request.id): partial(self.request, request.id) for request in self.desk.all()}
            for one in self.desk.generations():
                if lineage.findings(self.desk, one) is not None:
                    found[f"models/{one.number}.html"] = partial(self.model, one.number)
        return found

    @property
    def now(self) -> datetime:
        return self.at or datetime.now(UTC)

    def start(self) -> bytes:
        """What is open and overdue, the current model and the latest verdict."""
        rows = desk.rows(self.desk, self.now) if self.desk else []
        models = lineage.models(self.desk) if self.desk else []
        judged = next((one for one in reversed(models) if one.sentence), None)
        return render(
            "start.html.j2", "index.html", desk=self.desk is not None, now=self.now, rows=rows, open=[row for row in rows if row.open],
            overdue=[row for row in rows if row.overdue], current=models[-1] if models else None, judged=judged, states=_states(rows),
            chain=desk.chain(self.desk) if self.desk else ("unknown", ""), runs=self.runs, entries=len(self.entries),
        )  # fmt: skip

    def requests(self) -> bytes:
        """The table of requests."""
        if self.desk is None:
            return _empty("requests.html", "Requests")
        rows = desk.rows(self.desk, self.now)
        return render("requests.html.j2", "requests.html", rows=rows, now=self.now, states=_states(rows), all_states=desk.STATES)

    def request(self, name: str) -> bytes:
        """One request with its history."""
        given = self.desk
        if given is None:
            raise DataError("There is no desk")
        request, hits, history, generations = given.get(name), given.hits(name), given.history(name), given.generations()
        row = desk.row(request, hits, history, generations, self.now)
        facts = [("asks for", row.asks), ("asked by", clean(request.who[:16], 16)), ("ground", row.reason)]
        facts += [("received", f"{request.received:%Y-%m-%d %H:%M} UTC"), ("due", f"{request.due:%Y-%m-%d}")]
        facts += [("note", clean(request.note, 2000))] if request.note else []
        made = next((one for one in generations if one.number == row.model), None)
        report = f"models/{row.model}.html" if made is not None and lineage.findings(given, made) is not None else None
        return render(
            "request.html.j2", row.page, row=row, facts=facts, found=desk.found(hits, history),
            steps=[desk.step(event) for event in history], texts=desk.texts(request, hits) if self.texts else [],
            forgotten=request.what is None, report=report,
            evidence=desk.evidence(given, request, generations),
        )  # fmt: skip

    def models(self) -> bytes:
        """The lineage."""
        if self.desk is None:
            return _empty("models.html", "Models")
        models = lineage.models(self.desk)
        recipes = [
            (one, [("digest", one.digest), ("root of the folder", one.root or "not taken"), *desk.recipe(made)])
            for one, made in zip(models, self.desk.generations(), strict=True)
        ]
        return render("models.html.j2", "models.html", models=models, drawing=lineage.drawing(models), recipes=recipes)

    def model(self, number: int) -> bytes:
        """The report of one generation."""
        given = self.desk
        found = next((lineage.findings(given, one) for one in given.generations() if one.number == number), None) if given else None
        return _empty(f"models/{number}.html", "Report") if found is None else runs.without_rows(found)

    def side_by_side(self) -> bytes:
        """Runs side by side; the models of the desk where no runs were given."""
        models = []
        for one in self.desk.generations() if self.desk and not self.runs else ():
            found = lineage.findings(self.desk, one)  # type: ignore[arg-type]
            if found is not None:
                models.append((f"model {one.number}", f"models/{one.number}.html", found))
        return runs.page(self.runs, models)


def _empty(path: str, title: str) -> bytes:
    return render("empty.html.j2", path, title=title, words="No desk was given.", broken=[])


def _name(results: Path) -> str:
    return slug((results if results.is_dir() else results.parent).resolve().name)


def _states(rows: Sequence[desk.Row]) -> str:
    """How many requests are in each state, in words."""
    counts = [(state, sum(row.state == state for row in rows)) for state in desk.STATES]
    late = sum(row.overdue for row in rows)
    words = ", ".join(f"{count} {state}" for state, count in counts if count)
    return (words or many(0, "request")) + (f"; {late} overdue" if late else "")
