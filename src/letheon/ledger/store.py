"""The ledger's file: one SQLite database, brought up to the newest schema when it is opened.

A write is one transaction that nobody else writes during; what a killed process had begun is undone by SQLite at the next opening. Text
that is removed is overwritten (`secure_delete`), and nothing is kept beside the file (no write-ahead log), so that what was forgotten
is gone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.core.errors import DataError, RunError, SettingsError

from .records import FIRST, Event, canonical, written

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

MIGRATIONS = Path(__file__).resolve().parent / "migrations"
NAME = "ledger.db"
WAIT = 60_000  # milliseconds to wait for another writer


def needed() -> None:
    """Check that the packages of the desk are there.

    Raises:
        RunError: with the command that installs them.
    """
    try:
        import alembic  # noqa: F401
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise RunError(f"The desk needs packages that are not installed: {error}", "`pip install 'letheon[desk]'`") from error


class Store:
    """An open ledger.

    Args:
        path: the file.
        new: make it; it must not be there yet. Otherwise it must be.

    Raises:
        DataError: there is no such file, it is no ledger, or a newer letheon wrote it.
    """

    def __init__(self, path: Path, *, new: bool = False):
        needed()
        self.path = path
        if not new and not path.is_file():
            raise DataError(f"There is no desk in {path.parent}", "Make one: `letheon requests init MODEL --corpus NAME=FILE`")
        self.engine = _engine(path)
        with self.faults():
            self._upgrade()

    @contextlib.contextmanager
    def faults(self) -> Iterator[None]:
        """Turn faults of the database, and text that it cannot hold, into one sentence."""
        from sqlalchemy import exc

        try:
            yield
        except UnicodeEncodeError as error:  # the text stays out of the message
            raise SettingsError("A text that was given is not valid UTF-8", "Write it again in a terminal that is set to UTF-8") from error
        except exc.DatabaseError as error:
            said = str(error.orig)
            if "locked" in said:
                raise RunError(f"{self.path} is in use by another process", "Wait until it is done") from error
            if "readonly" in said or "unable to open" in said or "disk" in said:
                raise RunError(f"{self.path} cannot be written: {said}") from error
            raise DataError(f"{self.path} is no ledger, or a damaged one: {said}", "Restore it from a backup") from error

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that nobody else writes during."""
        with self.faults(), self.engine.begin() as connection:
            yield connection

    def rows(self, query: str, /, **values: Any) -> list[Any]:
        """The rows that a query finds."""
        with self.write() as connection:
            return rows(connection, query, **values)

    def close(self) -> None:
        """Let go of the file."""
        self.engine.dispose()

    def vacuum(self) -> None:
        """Write the file anew, so that no page of it holds what was removed."""
        with self.faults(), self.engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            if raw is not None:
                raw.execute("VACUUM")

    def _upgrade(self) -> None:
        from alembic.config import Config
        from alembic.runtime.environment import EnvironmentContext
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory

        config = Config()
        for key, value in (("script_location", MIGRATIONS), ("version_locations", MIGRATIONS), ("path_separator", "newline")):
            config.set_main_option(key, str(value).replace("%", "%%"))
        scripts = ScriptDirectory.from_config(config)
        known = {script.revision for script in scripts.walk_revisions()}
        with self.engine.begin() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
            if found == scripts.get_current_head():
                return
            if found is not None and found not in known:
                raise DataError(f"{self.path} was written by a newer letheon (schema {found})", "Upgrade: `pip install -U letheon`")
            with EnvironmentContext(config, scripts, fn=lambda rev, _: scripts._upgrade_revs("head", rev)) as environment:
                environment.configure(connection=connection, transactional_ddl=True)
                environment.run_migrations()


def _engine(path: Path) -> Engine:
    from sqlalchemy import NullPool, create_engine, event
    from sqlalchemy.engine import URL

    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def connected(raw: Any, _record: Any) -> None:
        raw.isolation_level = None  # we say when a transaction begins
        pragmas = (f"busy_timeout = {WAIT}", "journal_mode = DELETE", "synchronous = FULL", "secure_delete = ON", "temp_store = MEMORY")
        for pragma in pragmas:
            raw.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def rows(connection: Connection, query: str, /, **values: Any) -> list[Any]:
    """The rows that a query finds; `:name` in it stands for a value."""
    from sqlalchemy import text

    return list(connection.execute(text(query), values))


def do(connection: Connection, statement: str, /, **values: Any) -> None:
    """Run one statement; `:name` in it stands for a value."""
    from sqlalchemy import text

    connection.execute(text(statement), values)


def event_of(row: Any) -> Event:
    """The event that stands in a row of the table."""
    return Event(
        request=row.request, at=row.at, kind=row.kind, facts=json.loads(row.facts), previous=row.previous, digest=row.digest
    )  # fmt: skip


def append(connection: Connection, event: Event) -> Event:
    """Add an event after the last one, and remember that it is the last."""
    last = rows(connection, "SELECT number, digest FROM events ORDER BY number DESC LIMIT 1")
    number, previous = (last[0].number + 1, last[0].digest) if last else (1, FIRST)
    event = event.chained(previous)
    do(
        connection,
        "INSERT INTO events VALUES (:number, :request, :at, :kind, :facts, :previous, :digest)",
        number=number, request=event.request, at=written(event.at), kind=event.kind, facts=canonical(event.facts).decode(),
        previous=previous, digest=event.digest,
    )  # fmt: skip
    keep(connection, "head", {"events": number, "digest": event.digest})
    return event


def keep(connection: Connection, key: str, value: Any) -> None:
    """Keep a value under a key; None removes it."""
    if value is None:
        do(connection, "DELETE FROM kept WHERE key = :key", key=key)
    else:
        do(connection, "INSERT OR REPLACE INTO kept VALUES (:key, :value)", key=key, value=canonical(value).decode())


def kept(connection: Connection, key: str) -> Any:
    """The value under a key, or None."""
    found = rows(connection, "SELECT value FROM kept WHERE key = :key", key=key)
    return json.loads(found[0].value) if found else None
