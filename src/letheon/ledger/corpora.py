"""The files of rows that a desk knows, and which of their rows a request is about.

Rows are known by their marks alone, so that a row is found again after its text was forgotten, and where it stands twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.core.data import Example, Split
from letheon.core.errors import DataError
from letheon.core.settings import parse_settings

from . import digests, salts
from .records import Corpus, Generation, Hit, Request, State, utc

if TYPE_CHECKING:
    from .desk import Desk

HOLDOUT = "holdout"  # the corpus of rows that no model was trained on


def record(name: str, path: Path, fields: Mapping[str, str | None]) -> Corpus:
    """Read a file of rows once and say what it is.

    Raises:
        DataError: it is missing or broken.
        SettingsError: the name cannot be one.
    """
    path = Path(path).expanduser().resolve()
    corpus = parse_settings(Corpus, {"name": name, "path": str(path), "digest": "", "rows": 0, "fields": dict(fields)}, "corpus")
    rows = read(corpus)
    return corpus.model_copy(update={"rows": len(rows), "digest": digests.of_file(path)})


def read(corpus: Corpus) -> Split:
    """The rows as the data source `files` reads them."""
    from letheon.data.desk import rows_of

    return rows_of(corpus.name, corpus.path, corpus.fields)


def load(corpus: Corpus) -> Split:
    """The rows of a registered file.

    Raises:
        DataError: it is no longer what was registered.
    """
    if not Path(corpus.path).is_file():
        raise DataError(f"The corpus `{corpus.name}` is gone: {corpus.path}", again(corpus))
    if digests.of_file(corpus.path) != corpus.digest:
        raise DataError(f"{corpus.path} is no longer what was registered as `{corpus.name}`", again(corpus))
    return read(corpus)


def again(corpus: Corpus) -> str:
    """How to register a file anew."""
    return f"Register it again: `letheon requests corpus {corpus.name}=FILE`"


def first_generation(model: Path, digest: str = "") -> Generation:
    """The model that came in, as generation 0; it is loaded once to see that it can be."""
    if not digest:
        from letheon.subjects.hf import load as load_model

        digest = load_model(model).digest
    folder = model.expanduser().resolve()
    return Generation(number=0, folder=str(folder), digest=digest, root=digests.root(folder), made=utc())


def examples(desk: Desk, request: Request, hits: Sequence[Hit]) -> list[Example]:
    """The rows that hits point to.

    Raises:
        DataError: a corpus has no such row, or another one under its id.
    """
    from .locate import shows

    splits: dict[str, dict[str, Example]] = {}
    given = {row.id: row for row in given_rows(request)}
    found = []
    for hit in hits:
        if hit.how == "given" and hit.row in given:
            found.append(given[hit.row])
            continue
        if hit.corpus not in splits:
            splits[hit.corpus] = {row.id: row for row in desk.corpus(hit.corpus)}
        if hit.row not in splits[hit.corpus]:
            raise DataError(f"The corpus `{hit.corpus}` has no row `{hit.row}`", "Locate the request again")
        row = splits[hit.corpus][hit.row]
        if not shows(hit, row):
            raise DataError(f"The row `{hit.row}` of `{hit.corpus}` is not the one that was found", "Locate the request again")
        found.append(row)
    return found


def given_rows(request: Request) -> list[Example]:
    """The rows that stand in the request itself, or in its file, under the ids that `locate` gives them."""
    from letheon.data.desk import given_of, rows_of

    if request.what is None:
        return []
    if request.what.file is not None:
        return list(rows_of("request", request.what.file, {}))
    return given_of(request.what.rows)


def known(desk: Desk, rows: Sequence[Example], without: str = "") -> list[str]:
    """The requests that some of these rows were erased for already; one whose salt was destroyed can no longer say."""
    secrets = desk.salts()
    done = [one.id for one in desk.all() if one.state in (State.ERASED, State.AUDITED) and one.id != without and one.id in secrets]
    return [id_ for id_ in done if desk.marks(id_).intersection(salts.marks(secrets[id_], rows))]


def numbers(desk: Desk, splits: Mapping[str, Split], ids: Iterable[str]) -> tuple[dict[str, list[int]], int]:
    """Where the rows of some requests stand.

    Returns:
        For each corpus the places of the rows, from 0; and how many marks were found nowhere (rows no longer there, or a salt destroyed).
    """
    secrets, places, missing = desk.salts(), {name: set[int]() for name in splits}, 0
    for id_ in ids:
        left = wanted = desk.marks(id_)
        for name, split in splits.items() if id_ in secrets else ():
            found = salts.marks(secrets[id_], split)
            places[name].update(k for k, mark in enumerate(found) if mark in wanted)
            left = left.difference(found)
        missing += len(left)
    return {name: sorted(found) for name, found in places.items()}, missing


def lost(desk: Desk, id_: str, splits: Mapping[str, Split] | None = None) -> int:
    """How many rows that a request was located with stand neither in a corpus nor in the request any more."""
    splits = {corpus.name: load(corpus) for corpus in desk.corpora()} if splits is None else splits
    salt, wanted = desk.salts().get(id_), desk.marks(id_)
    there = () if salt is None else (salts.marks(salt, rows) for rows in (*splits.values(), given_rows(desk.get(id_))))
    return len(wanted.difference(*there))


def need(desk: Desk, ids: Iterable[str], splits: Mapping[str, Split]) -> None:
    """Check that requests have rows, and that every one of them is still to be had.

    Raises:
        DataError: a row is in no file any more, as when a corpus was registered again with other text, or a request has none.
    """
    for id_ in ids:
        count, missing = len(desk.marks(id_)), lost(desk, id_, splits)
        if missing or not count:
            what = f"{missing} of {count} rows that `{id_}` was located with are in no file any more" if count else f"`{id_}` has no rows"
            raise DataError(what, f"Give the review again: `letheon requests locate {id_}`, then with `--accept`")


def rows_for(desk: Desk, splits: Mapping[str, Split], id_: str) -> list[Example]:
    """The rows of one request, each once, those that stand in no corpus last."""
    salt = desk.salts().get(id_)
    if salt is None:
        return []
    places, _ = numbers(desk, splits, [id_])
    found = [splits[name][k] for name, where in places.items() for k in where] + outside(desk, splits, id_)
    return list({mark: row for mark, row in zip(salts.marks(salt, found), found, strict=True)}.values())


def outside(desk: Desk, splits: Mapping[str, Split], id_: str) -> list[Example]:
    """Rows given in a request that is still to be fulfilled and found in no corpus; the model may know them all the same."""
    salt, wanted = desk.salts()[id_], desk.marks(id_)
    there = {mark for split in splits.values() for mark in salts.marks(salt, split)}
    given = given_rows(desk.get(id_))
    return [row for row, mark in zip(given, salts.marks(salt, given), strict=True) if mark in wanted and mark not in there]


def as_json(row: Example) -> dict[str, Any]:
    """A row as a plan or a request holds it."""
    if isinstance(row.prompt, str):
        return {"prompt": row.prompt, "answer": row.answer} if row.prompt else {"text": row.answer}
    turns = [{"role": message.role, "content": message.content} for message in row.prompt]
    return {"messages": [*turns, {"role": "assistant", "content": row.answer}]}
