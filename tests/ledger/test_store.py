"""The file of the ledger: append-only by trigger, migrated, refused when newer or broken, safe with two writers and a killed one."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the extra `desk` (tests/SKIPS.md)")
pytest.importorskip("alembic", reason="the extra `desk` (tests/SKIPS.md)")

from letheon.core.errors import DataError
from letheon.ledger.desk import Desk
from letheon.ledger.records import FIRST, Event, What, canonical, utc, written
from letheon.ledger.store import MIGRATIONS, Store, append

from .desks import asked, plain_desk


def schema_one(path: Path) -> None:
    """A ledger as the first letheon wrote it, with one event and one request."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from sqlalchemy import create_engine

    from letheon.ledger.migrations import v0001_first

    facts = {"who": "w", "reason": "other", "due": "d", "what": "x"}
    event = Event(request="r-abcdefgh", at=utc(), kind="received", facts=facts).chained(FIRST)
    with create_engine(f"sqlite:///{path}").begin() as connection, Operations.context(MigrationContext.configure(connection)):
        v0001_first.upgrade()
        run = connection.exec_driver_sql
        run("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        run("INSERT INTO alembic_version VALUES ('0001')")
        times = (event.at.isoformat(), event.at.isoformat())
        run("INSERT INTO requests VALUES ('r-abcdefgh', 'w', '{\"entity\":\"A\"}', 'other', NULL, ?, ?, 'received')", times)
        values = (1, event.request, written(event.at), event.kind, canonical(event.facts).decode(), FIRST, event.digest)
        run("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", values)


def test_an_older_ledger_is_brought_up_to_date(tmp_path):
    schema_one(tmp_path / "ledger.db")
    before = sqlite3.connect(tmp_path / "ledger.db").execute("SELECT name FROM sqlite_master WHERE name = 'marks'").fetchall()
    desk = Desk.open(tmp_path)
    assert before == []
    assert desk.get("r-abcdefgh").what == What(entity="A")
    assert desk.marks("r-abcdefgh") == set()
    version = sqlite3.connect(tmp_path / "ledger.db").execute("SELECT version_num FROM alembic_version").fetchone()[0]
    assert version == max(path.name[1:5] for path in MIGRATIONS.glob("v*.py")) == "0002"


def test_a_newer_ledger_is_refused(tmp_path):
    desk = plain_desk(tmp_path)
    with sqlite3.connect(desk.store.path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '0099'")
    with pytest.raises(DataError, match=r"written by a newer letheon \(schema 0099\)"):
        Desk.open(desk.folder)


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to be read as the head of one" * 30])
def test_a_file_that_is_no_ledger(tmp_path, content):
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    if content:
        with pytest.raises(DataError, match="no ledger, or a damaged one"):
            Store(path)
    else:  # SQLite takes an empty file for a new database
        assert Store(path).rows("SELECT * FROM requests") == []
    with pytest.raises(DataError, match="There is no desk in"):
        Store(tmp_path / "nowhere" / "ledger.db")


@pytest.mark.parametrize("statement", ["UPDATE events SET kind = 'x' WHERE number = 1", "DELETE FROM events WHERE number = 1"])
def test_history_can_only_be_added_to(tmp_path, statement):
    desk = plain_desk(tmp_path)
    with sqlite3.connect(desk.store.path) as raw, pytest.raises(sqlite3.IntegrityError, match="history is only ever added to"):
        raw.execute(statement)
    with sqlite3.connect(desk.store.path) as raw, pytest.raises(sqlite3.IntegrityError, match="an event follows the last one"):
        raw.execute("INSERT INTO events VALUES (99, NULL, 'a', 'b', '{}', 'c', 'd')")
    assert desk.check() == []


def test_a_transaction_that_fails_leaves_nothing(tmp_path):
    desk = plain_desk(tmp_path)
    before = len(desk.history())
    with pytest.raises(ZeroDivisionError), desk.store.write() as connection:
        append(connection, Event(at=utc(), kind="opened"))
        raise ZeroDivisionError
    assert len(desk.history()) == before


ADD = """
    import sys
    from pathlib import Path
    from letheon.ledger.desk import Desk
    from letheon.ledger.records import What
    desk = Desk.open(Path(sys.argv[1]))
    print("ready", flush=True)
    for k in range(int(sys.argv[2])):
        desk.add(What(entity=f"Person {k}"), f"case-{k}")
"""


def adding(desk: Desk, count: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(ADD), str(desk.folder), str(count)], stdout=subprocess.PIPE, text=True)


def test_two_processes_add_at_once(tmp_path):
    desk = plain_desk(tmp_path)
    jobs = [adding(desk, 8) for _ in range(2)]
    for job in jobs:
        assert job.stdout is not None
        job.stdout.read()
        assert job.wait(60) == 0
        job.stdout.close()
    assert len(desk.all()) == 16
    assert len(desk.salts()) == 17
    assert desk.check() == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX only (tests/SKIPS.md)")
def test_a_killed_writer_leaves_a_whole_ledger(tmp_path):
    desk = plain_desk(tmp_path)
    for wait in (3, 10):
        with adding(desk, 100_000) as job:
            assert job.stdout is not None
            job.stdout.readline()
            had = len(desk.all())
            while len(desk.all()) < had + wait:
                time.sleep(0.01)
            os.kill(job.pid, signal.SIGKILL)
            job.wait(60)
        assert desk.check() == []
        assert all(one.id in desk.salts() for one in desk.all())
    asked(desk)
    assert desk.check() == []
