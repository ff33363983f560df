"""One process at a time in an output folder; what a dead process has left stands in nobody's way."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from letheon.flow import lock, output
from letheon.core.errors import RunError

from .conftest import ERASE, QUICK, digests
from .test_bad_input import AUDIT, one_sentence
from .test_sweep import plan

HOLD = """
import sys, time
from pathlib import Path
from letheon.flow import lock
with lock.alone(Path(sys.argv[1]), Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def held(folder):
    """Another process that holds a folder; it is killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_refused_and_a_dead_one_is_not_in_the_way(world, letheon):
    with held("clean.run") as process:
        before = digests(world)
        for more in ((), ("--resume",), ("--force",)):
            said = letheon(*ERASE, *QUICK, *more)
            assert said.code == 2 and said.out == ""
            assert f"clean is in use by process {process.pid} on " in one_sentence(said.err)
        assert digests(world) == before
        for command in (("micro", "--out", "clean", "-q"), ("demo", "--out", "clean", "-q")):
            assert "clean is in use by process" in one_sentence(letheon(*command).err)
        assert digests(world) == before
    assert (world / "clean.run" / "lock").exists(), "as SIGKILL and a power cut leave it"
    said = letheon(*ERASE, *QUICK)
    assert said.code == 0 and said.err == "" and (world / "clean").is_dir() and not (world / "clean.run").exists()
    assert not list((world / "clean").rglob("lock"))


def test_a_sweep_holds_its_folder(world, letheon):
    with held("swept"):
        path = plan(world, "[methods.npo]\nsteps = 2\n", seeds="[0]")
        for more in ((), ("--force",)):
            said = letheon("sweep", path, "-q", *more)
            assert said.code == 2 and "swept is in use by process" in one_sentence(said.err)
        assert os.listdir("swept") == ["lock"]
    assert letheon("sweep", path, "-q").code == 0
    assert "lock" not in os.listdir("swept")


def test_an_audit_of_the_model_may_run_beside(world, letheon):
    with held("clean.run"):
        assert letheon(*AUDIT, "--set", "limit=2", "--set", 'probes=["probability"]').code == 0


def test_the_lock_goes_with_the_process_that_made_it(tmp_path):
    """SIGTERM, SIGKILL and an ordinary end."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with held(tmp_path / "a.run") as process:
            with pytest.raises(RunError, match="in use"), lock.alone(tmp_path / "a.run", tmp_path / "a"):
                raise AssertionError("two at once")
            process.send_signal(number)
            process.wait()
            with lock.alone(tmp_path / "a.run", tmp_path / "a"):
                assert f"process {os.getpid()} on" in (tmp_path / "a.run" / "lock").read_text()
            assert not (tmp_path / "a.run").exists()


def test_never_two_at_once_though_the_folder_comes_and_goes(tmp_path):
    """Six threads fight for one folder, which each winner makes and removes."""
    inside, most, entered, failed = [0], [0], [0], []

    def fight():
        for _ in range(200):
            try:
                with lock.alone(tmp_path / "deep" / "a.run", tmp_path / "a"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    entered[0] += 1
                    os.sched_yield()
                    inside[0] -= 1
            except RunError as error:
                if "in use" not in str(error):
                    failed.append(error)

    threads = [threading.Thread(target=fight) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1 and entered[0] >= 20 and not failed


def test_the_root_is_no_output_folder(world, letheon):
    assert "is the root of the file system" in one_sentence(letheon(*ERASE, *QUICK, "--out", "/").err)


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    import fcntl

    def refused(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with lock.alone(tmp_path / "a.run", tmp_path / "a"):
        assert "cannot be locked" in caplog.text


def test_pieces_of_killed_writers_are_swept_up_and_nothing_else(tmp_path):
    (tmp_path / "clean.run" / "model").mkdir(parents=True)
    dead = [tmp_path / name for name in (".clean.abcd_123.tmp", "clean.run/.model.k3x8qa_2.tmp", "clean.run/model/.x.json.00000000.tmp")]
    kept = [tmp_path / ".other.abcd1234.tmp", tmp_path / ".clean.old", tmp_path / "clean.run/model/config.json"]
    for path in (*dead, *kept):
        path.write_text("half")
    with pytest.raises(RunError, match="holds an interrupted run"), output.claimed(tmp_path / "clean"):
        raise AssertionError("it was not said how to go on")
    assert not any(path.exists() for path in dead) and all(path.exists() for path in kept)
