"""A desk: one lineage of models, the corpora they were trained on, and the ledger of what was asked and done.

All that a desk holds lies in its folder: `ledger.db`, `salts.json`, `models/`, `reviews/`, `evidence/`, `keys/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from letheon.core.data import Split
from letheon.core.errors import DataError, RunError, SettingsError, SubjectError, did_you_mean
from letheon.core.files import whole_folder
from letheon.core.settings import parse_settings

from . import corpora, keys, salts
from .entries import free, move, one, put_corpus, put_generation, put_hits, request_of
from .records import Corpus, Event, Generation, Hit, Request, State, What, canonical, due_by, new_id, utc, written
from .store import NAME, Store, append, do, event_of, keep, kept


class Desk:
    """An open desk; `Desk.create` makes one and `Desk.open` opens one."""

    def __init__(self, folder: Path, store: Store):
        self.folder, self.store = folder, store
        self.models_folder, self.reviews_folder, self.evidence_folder = (folder / name for name in ("models", "reviews", "evidence"))
        self.keys_folder, self.work_folder = folder / "keys", folder / "work"

    @classmethod
    def create(
        cls, folder: Path, model: Path, files: Mapping[str, Path], *, fields: Mapping[str, str | None] | None = None, digest: str = ""
    ) -> Desk:
        """Make a desk for a model that was trained on some files of rows. The corpus called `holdout` was never trained on.

        Args:
            fields: what letheon calls a field and what the files call it, as in the data source `files`.
            digest: digest of the model, where the caller has it; else the model is loaded.

        Raises:
            RunError: there is something in that folder.
            DataError: a file of rows is missing or broken, or none was named.
            SubjectError: there is no model.
        """
        folder, model = Path(folder), Path(model)
        if (folder / NAME).exists():
            raise RunError(f"{folder} is a desk already", "Choose another `--desk`, or add requests to this one")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"{folder} exists and is no desk", "Choose another `--desk`")
        if not model.is_dir():
            raise SubjectError(f"There is no model folder {model}", "Give the folder that holds `config.json`")
        if not set(files) - {corpora.HOLDOUT}:
            raise DataError("A desk needs the rows that the model was trained on", "Give `--corpus NAME=FILE`")
        records = [corpora.record(name, path, fields or {}) for name, path in files.items()]
        first = corpora.first_generation(model, digest)
        with whole_folder(folder, replace=True) as work:
            salts.write(work, {salts.WHO: salts.new()})
            store = Store(work / NAME, new=True)
            with store.write() as connection:
                append(connection, Event(at=utc(), kind="opened", facts={"schema": 2}))
                for corpus in records:
                    put_corpus(connection, corpus)
                put_generation(connection, first)
            store.close()
            if find_spec("cryptography"):
                keys.new(work / "keys")
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Desk:
        """Open a desk.

        Raises:
            DataError: there is none, it is damaged, or a newer letheon wrote it.
        """
        folder = Path(folder)
        return cls(folder, Store(folder / NAME))

    # requests

    def add(self, what: What, who: str, reason: str = "gdpr-17", due: datetime | None = None, note: str | None = None) -> Request:
        """Write down a request.

        Args:
            who: the reference of the one who asks, not blank; a keyed digest of it is kept.
            due: by when; default: a month from now.

        Raises SettingsError where who, why or by when cannot be, and DataError where there is no such corpus.
        """
        if not who.strip():
            raise SettingsError("`who` of a request is blank", "Give the reference of the one who asks, such as a case number")
        with self.store.faults():
            now, digest = utc(), salts.keyed(self.salts()[salts.WHO], who.encode())
        values = {"who": digest, "what": what, "reason": reason, "note": note, "received": now, "due": due_by(due, now)}
        request = parse_settings(Request, {"id": new_id(), **values}, "request")
        if what.corpus is not None:
            self._corpus(what.corpus)
        with self.store.write() as connection:
            secret = {**self.salts(), request.id: salts.new()}  # others wait for this transaction
            salts.write(self.folder, secret)
            said = canonical(what.model_dump(mode="json", exclude_defaults=True))
            do(
                connection,
                "INSERT INTO requests VALUES (:id, :who, :what, :reason, :note, :received, :due, :state)",
                id=request.id, who=digest, what=said.decode(), reason=request.reason, note=note, received=written(now),
                due=written(request.due), state=request.state,
            )  # fmt: skip
            facts = {"who": digest, "reason": request.reason, "due": written(request.due), "what": salts.keyed(secret[request.id], said)}
            append(connection, Event(request=request.id, at=now, kind=request.state, facts=facts))
        return request

    def get(self, id_: str) -> Request:
        """One request.

        Raises:
            DataError: there is none of that name; the hint gives the nearest.
        """
        with self.store.write() as connection:
            return one(connection, id_)

    def all(self, state: State | str | None = None) -> list[Request]:
        """All requests, or those in one state, in the order in which they came."""
        found = [request_of(row) for row in self.store.rows("SELECT * FROM requests ORDER BY rowid")]
        return [request for request in found if state is None or request.state == state]

    def history(self, id_: str | None = None) -> list[Event]:
        """All events, or those of one request, in order."""
        if id_ is not None:
            self.get(id_)
        where = "" if id_ is None else "WHERE request = :id"
        return [event_of(row) for row in self.store.rows(f"SELECT * FROM events {where} ORDER BY number", **({"id": id_} if id_ else {}))]

    def refuse(self, id_: str, reason: str) -> Request:
        """Refuse a request; the reason stays in the history for good.

        Raises:
            RunError: it has been or is being fulfilled, or it is refused.
        """
        with self.store.write() as connection:
            free(connection, id_)
            move(connection, id_, State.REFUSED, {"reason": reason})
            return one(connection, id_)

    def searchable(self, request: Request) -> None:
        """Check that rows may still be looked for: none are located yet, or some of those that were stand in no file any more.

        Raises:
            RunError: they are located already, or the request has been fulfilled or refused.
        """
        if request.state is not State.RECEIVED and not (request.state is State.LOCATED and corpora.lost(self, request.id)):
            hint = "Refuse it and write it down anew to look for other rows" if request.state is State.LOCATED else None
            raise RunError(f"`{request.id}` is {request.state}: its rows are no longer looked for", hint)

    def found(self, id_: str, hits: Sequence[Hit]) -> None:
        """Keep what a search found until a person has looked at it. Raises as `searchable` does."""
        self.searchable(request := self.get(id_))
        with self.store.write() as connection:
            free(connection, id_)
            if one(connection, id_) != request:
                raise RunError(f"`{id_}` has changed during the search", "Locate it again")
            put_hits(connection, id_, hits)

    def located(self, id_: str, hits: Sequence[Hit]) -> Request:
        """Write down which rows a request is about, with the marks by which they are known later.

        Raises:
            DataError: nothing was found, all of it stays, or a row is not in its corpus.
            RunError: the request has been or is being fulfilled, or it is refused.
        """
        going = [hit for hit in hits if not hit.keep]
        if not going:
            raise DataError(f"No row was found that `{id_}` asks to forget" if not hits else f"All rows found for `{id_}` stay")
        secrets, request = self.salts(), self.get(id_)
        found = corpora.examples(self, request, going)
        marks = sorted(set(salts.marks(self._salt(secrets, id_), found)))
        before = corpora.known(self, found, without=id_)
        facts = {"rows": len(going), **{how: sum(hit.how == how for hit in going) for how in ("exact", "near", "semantic", "given")}}
        facts |= {"kept": len(hits) - len(going), "corpora": sorted({hit.corpus for hit in going})} | ({"again": before} if before else {})
        with self.store.write() as connection:
            free(connection, id_)
            move(connection, id_, State.LOCATED, facts)
            put_hits(connection, id_, hits)
            do(connection, "DELETE FROM marks WHERE request = :id", id=id_)
            for mark in marks:
                do(connection, "INSERT INTO marks VALUES (:id, :mark)", id=id_, mark=mark)
            return one(connection, id_)

    def hits(self, id_: str) -> list[Hit]:
        """The rows that were found for a request; none once they are forgotten."""
        found = self.store.rows("SELECT record FROM hits WHERE request = :id ORDER BY number", id=id_)
        return [Hit(**json.loads(row.record)) for row in found]

    def marks(self, id_: str) -> set[str]:
        """The marks of the rows of a request, under its salt."""
        return {row.mark for row in self.store.rows("SELECT mark FROM marks WHERE request = :id", id=id_)}

    def salts(self) -> dict[str, bytes]:
        """The secrets of this desk."""
        return salts.read(self.folder)

    def _salt(self, secrets: Mapping[str, bytes], id_: str) -> bytes:
        if id_ not in secrets:
            raise DataError(f"The salt of `{id_}` is no longer there", "What it is about can no longer be said")
        return secrets[id_]

    # corpora and models

    def corpora(self) -> list[Corpus]:
        """The registered files of rows, the one never trained on left out."""
        return [corpus for corpus in self._corpora() if corpus.name != corpora.HOLDOUT]

    def holdout(self) -> Corpus | None:
        """The registered file of rows that no model was trained on."""
        return next((corpus for corpus in self._corpora() if corpus.name == corpora.HOLDOUT), None)

    def corpus(self, name: str) -> Split:
        """The rows of a registered file.

        Raises:
            DataError: there is none of that name, or the file is no longer what was registered.
        """
        return corpora.load(self._corpus(name))

    def register(self, name: str, path: Path, fields: Mapping[str, str | None] | None = None) -> Corpus:
        """Add a file of rows, or put a new version of one in the place of the old. RunError while a fulfilment is under way."""
        corpus = corpora.record(name, path, fields or {})
        with self.store.write() as connection:
            free(connection)
            put_corpus(connection, corpus)
        return corpus

    def _corpora(self) -> list[Corpus]:
        return [Corpus(**json.loads(row.record)) for row in self.store.rows("SELECT record FROM corpora ORDER BY rowid")]

    def _corpus(self, name: str) -> Corpus:
        known = {corpus.name: corpus for corpus in self._corpora()}
        if name not in known:
            raise DataError(f"There is no corpus `{name}` at this desk", did_you_mean(name, known))
        return known[name]

    def generations(self) -> list[Generation]:
        """The models of the lineage, in order."""
        return [Generation(**json.loads(row.record)) for row in self.store.rows("SELECT record FROM generations ORDER BY number")]

    def verdicts(self) -> dict[str, str | None]:
        """What the audit said of each request, right after it was erased."""
        return {id_: one.verdict for one in self.generations() for id_ in one.requests}

    def current(self) -> Generation:
        """The newest model."""
        return self.generations()[-1]

    def model_folder(self, generation: Generation) -> Path:
        """Where the weights of a generation lie."""
        return self.folder / generation.folder  # an absolute folder stays as it is

    def run_folder(self, generation: Generation) -> Path | None:
        """Where findings and report of a generation lie; None for the model that came in."""
        return None if generation.parent is None else self.model_folder(generation).parent

    def evidence(self, id_: str) -> Path | None:
        """The evidence bundle of a request, if there is one."""
        path = self.evidence_folder / f"{id_}.intoto.jsonl"
        return path if path.is_file() else None

    def review(self, id_: str) -> Path:
        """Where the review file of a request lies, or would."""
        return self.reviews_folder / f"{id_}.jsonl"

    # the whole

    def check(self) -> list[str]:
        """What is wrong with the ledger, one sentence for each fault; empty where it is whole."""
        from .integrity import faults

        return faults(self)

    def job(self) -> dict[str, Any] | None:
        """The fulfilment that was begun and has not ended."""
        with self.store.write() as connection:
            return kept(connection, "job")

    def set_job(self, job: Mapping[str, Any] | None, kind: str, facts: Mapping[str, Any]) -> None:
        """Begin or end a fulfilment."""
        with self.store.write() as connection:
            keep(connection, "job", job)
            append(connection, Event(at=utc(), kind=kind, facts=dict(facts)))

    def add_generation(self, generation: Generation, facts: Mapping[str, Any]) -> None:
        """Write down a new model: its requests are erased and audited, all in one step."""
        with self.store.write() as connection:
            put_generation(connection, generation)
            for id_ in generation.requests:
                move(connection, id_, State.ERASED, {"generation": generation.number, "digest": generation.digest})
                move(connection, id_, State.AUDITED, {"generation": generation.number, **facts})
