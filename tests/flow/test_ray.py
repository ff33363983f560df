"""Sweeps on a local Ray cluster: the bits of a local sweep, killed workers begun again, a lost driver taken up, and what is refused."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from letheon.core.errors import LetheonError, RunError, SettingsError
from letheon.flow import cluster
from letheon.flow.grid import Sweep
from letheon.testing import scaffold

from cli.conftest import digests, kept, letheon, world  # noqa: F401  fixtures

STEPS = 40  # enough for a process to be killed between the first and the last
SWEEP = """
out = "{out}"
seeds = [0]
[base]
subject = "hf:path=model"
data = "files:forget=forget.jsonl,retain=retain.jsonl,holdout=holdout.jsonl"
checkpoint_every = 1
dtype = "float32"
device = "cpu"
[base.audit]
name = "general"
max_new_tokens = 4
gradnorm = false
probes = ["probability", "rouge"]
attacks = []
[methods.npo]
steps = {steps}
batch_size = 4
beta = [0.1, 0.2]
[audits]
theirs = "hf:path=model"
"""


@pytest.fixture(scope="module")
def undisturbed(kept, tmp_path_factory):  # noqa: F811
    """What the sweep gives in local processes."""
    from letheon.flow.grid import read
    from letheon.flow.sweep import swept

    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    with contextlib.chdir(folder):
        swept(read(plan("here")), progress=False)
        return result("here")


@pytest.fixture(scope="module")
def address():
    """A cluster of two CPUs on the loopback interface that asks for a token, and where it is."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs ray: see tests/SKIPS.md")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a1" * 32}
    before = {key: os.environ.get(key) for key in ours}
    os.environ.update(ours)
    folder = tempfile.mkdtemp(prefix="ray-")  # short: sockets lie in it
    start = ["start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=2", "--include-dashboard=false", "--block"]
    command = [sys.executable, "-m", "ray.scripts.scripts", *start, f"--object-store-memory={80 << 20}", f"--temp-dir={folder}"]
    head = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and head.poll() is None:
            try:
                cluster._check_answer(f"127.0.0.1:{port}")
                break
            except RunError:
                time.sleep(0.3)
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


def plan(name: str, steps: int = STEPS) -> str:
    """A sweep file of two cells that train and one that audits."""
    Path(f"{name}.toml").write_text(SWEEP.format(out=name, steps=steps))
    return f"{name}.toml"


def result(out: str) -> dict:
    """All that a sweep found, without clocks and names of folders, and its weights."""
    found = json.loads((Path(out) / "results.json").read_text())
    cells = [{key: value for key, value in cell.items() if key not in ("cost", "folder")} for cell in found["cells"]]
    weights = {name: digest for name, digest in digests(Path(out) / "cells").items() if name.endswith(".safetensors")}
    assert len(cells) == 3 and len(weights) == 2
    return {"cells": cells, "anchors": found["anchors"], "weights": weights}


def worker_at_work(out: str) -> tuple[int, Path]:
    """The process of a cell that has written its first checkpoint, and the folder it works in."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        for checkpoint in Path(out).glob("cells/*.run/checkpoints/step-*"):
            try:
                found = re.match(r"process (\d+) ", (checkpoint.parent.parent / "lock").read_text())
            except FileNotFoundError:
                continue  # the cell has just been done
            if found:
                return int(found[1]), checkpoint.parent.parent
        time.sleep(0.01)
    raise AssertionError("no cell began")


def test_cells_on_ray_have_the_bits_of_local_ones_though_a_worker_is_killed(address, undisturbed, world, letheon):  # noqa: F811
    killed = []

    def kill() -> None:
        process, folder = worker_at_work("there")
        os.kill(process, signal.SIGKILL)
        killed.append((process, folder.is_dir()))

    killer = threading.Thread(target=kill)
    killer.start()
    said = letheon("sweep", plan("there"), "-q", "--ray", address)
    killer.join()
    assert said.code == 0, said.err
    assert killed == [(killed[0][0], True)] and killed[0][0] != os.getpid(), "it was in the middle of its cell"
    assert result("there") == undisturbed
    assert not list(Path("there").rglob("*.run")) and not list(Path("there").rglob(".*.tmp"))


def test_a_lost_driver_is_taken_up_where_it_was(address, undisturbed, world, letheon):  # noqa: F811
    command = [sys.executable, "-m", "letheon", "sweep", plan("lost"), "-q", "--ray", address]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    worker_at_work("lost")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not Path("lost/results.json").exists()
    said = letheon("sweep", plan("lost"), "-q", "--ray", address)
    assert said.code == 0, said.err
    assert result("lost") == undisturbed
    lines = [json.loads(line)["step"] for line in Path("lost/cells/npo-beta=0.1-0/metrics.jsonl").open()]
    assert lines == list(range(1, STEPS + 1)), "every step stands there once"


def test_workers_know_methods_of_ones_own(address, world):  # noqa: F811
    """A plug-in that `--plugin` names in the driver is known by name in processes that Ray had started before."""
    mine = Path("own_on_ray.py")
    assert Path(scaffold.write("erase", "own-on-ray")[0]).name == mine.name
    unwritten = next(line for line in mine.read_text().splitlines() if "raise NotImplementedError" in line)
    mine.write_text(mine.read_text().replace(unwritten, "        return -now"))
    Path("own.toml").write_text(SWEEP.format(out="own", steps=2).replace("[methods.npo]", "[methods.own-on-ray]").replace("beta = [0.1, 0.2]", ""))
    command = [sys.executable, "-m", "letheon", "--plugin", mine, "sweep", "own.toml", "-q", "--ray", address]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    cells = json.loads(Path("own/results.json").read_text())["cells"]
    assert [cell["row"] for cell in cells] == ["own-on-ray", "theirs"]
    assert not any("failed" in cell for cell in cells)


def test_a_cell_that_no_machine_has_room_for_is_refused(address, world, letheon):  # noqa: F811
    said = letheon("sweep", plan("large"), "-q", "--ray", address, "--set", "gpus=2", "--set", "cpus=2")
    assert said.code == 2 and "No machine of the cluster has the 2 CPUs and 2 GPUs" in " ".join(said.err.split())
    assert not Path("large").exists()


def test_no_ray_is_said_in_one_sentence(world, letheon, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    said = letheon("sweep", plan("none"), "-q", "--ray", "local")
    assert said.code == 2 and said.err.count("\n") <= 3
    assert "Ray, which is not installed" in said.err and "letheon[ray]" in said.err and not Path("none").exists()


def test_an_address_where_no_ray_answers_is_said_within_seconds():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        threading.Thread(target=lambda: other.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), daemon=True).start()
        with pytest.raises(RunError, match="something else answers"):
            cluster._check_answer(f"127.0.0.1:{port}")
    with pytest.raises(RunError, match=f"No Ray cluster answers at `127.0.0.1:{port}`"):
        cluster._check_answer(f"127.0.0.1:{port}")
    assert cluster.SECONDS <= 10


@pytest.mark.parametrize("address", ["", "here", "10.0.0.1", "10.0.0.1:", "10.0.0.1:port", "10.0.0.1:70000", ":6379", "ray://"])
def test_what_is_no_address_is_refused(address):
    sweep = Sweep(base={}, out="x", methods={"npo": {}})
    with pytest.raises(SettingsError, match="takes auto, local or HOST:PORT"), cluster.joined(address, sweep):
        raise AssertionError


def test_auto_does_not_wait_for_a_cluster_that_was_killed(tmp_path, monkeypatch):
    """Ray goes on asking the address that was noted last for minutes."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert cluster._noted() is None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}\n")
    sweep = Sweep(base={}, out="x", methods={"npo": {}})
    with pytest.raises(RunError, match=f"No Ray cluster answers at `127.0.0.1:{port}`"), cluster.joined("auto", sweep):
        raise AssertionError


@pytest.mark.parametrize("wrong", [{"cpus": 0}, {"cpus": 1025}, {"gpus": -1}, {"gpus": 65}, {"retries": -1}, {"retries": 101}])
def test_resources_have_bounds(wrong):
    from letheon.core.settings import parse_settings

    with pytest.raises(SettingsError, match=next(iter(wrong))):
        parse_settings(Sweep, {"base": {}, "out": "x", "methods": {"npo": {}}} | wrong, "sweep")


def test_a_worker_waits_for_the_one_before_and_says_when_it_sees_no_files(tmp_path, monkeypatch):
    """The worker of a driver that was lost may hold its cell for a moment longer."""
    from letheon.flow.lock import Held

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    answers = [Held("in use"), Held("in use"), {"values": {}}]
    here = {"folder": str(tmp_path), "cache": str(tmp_path / "cache"), "threads": 1, "plugins": ""}
    assert cluster._cell(lambda: answers.pop(0), (), here) == {"values": {}} and not answers
    found = cluster._cell(lambda: pytest.fail("it must not run"), (), here | {"folder": str(tmp_path / "elsewhere")})
    assert isinstance(found, LetheonError) and "does not see" in found.message
