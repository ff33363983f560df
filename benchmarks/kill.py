"""SIGKILL at random moments of `letheon erase` and `letheon sweep`: after resuming, the result is the uninterrupted one to the bit.

    python benchmarks/kill.py --erase 50 --sweep 20 --seed 0

Each run is a process of its own that is killed for good. Half of the moments are drawn over the time that a run takes, half over its
file-system calls (opening, moving, removing), where half-written files come from. After each kill every file with a final name must be
whole and the output folder must be there whole or not at all; every run that is given again must go on without an error. Processes are
forked from one that has imported everything, so that kills fall into the work and not into the imports; `--spawn` starts each anew.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ERASE = (
    "erase", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--out", "out", "--device", "cpu", "--dtype", "float32", "-q",
    "--set", "steps=12", "--set", "batch_size=4", "--set", "learning_rate=1e-3", "--set", "checkpoint_every=2", "--set", "retain=kl",
)  # fmt: skip
SWEEP = """
out = "out"
seeds = [0]
trials = 2
[base]
subject = "hf:path=model"
data = "files:forget=forget.jsonl,retain=retain.jsonl,holdout=holdout.jsonl"
device = "cpu"
dtype = "float32"
checkpoint_every = 2
[base.audit]
name = "general"
max_new_tokens = 4
gradnorm = false
probes = ["probability", "rouge"]
[methods.npo]
steps = 6
beta = [0.05, 0.1]
[methods.grad-ascent]
steps = 6
parameters = "lora:rank=2"
"""
CLOCKS = {"seconds", "processor_seconds", "reading_seconds", "cost", "time"}  # what no two runs have in common
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree")


class Killed:
    """One command that is killed again and again, in a folder of its own."""

    def __init__(self, folder: Path, command: tuple[str, ...], again: tuple[str, ...], draw: random.Random, spawn: bool):
        self.folder, self.command, self.again, self.draw, self.spawn = folder, command, again, draw, spawn
        self.out = folder / "out"
        self.kills = {"clock": 0, "file": 0}
        self.finished, self.calls, self.seconds = 0, 0, 0.0
        self.places: dict[str, int] = {}

    def whole(self) -> None:
        """The uninterrupted run, with its time and its number of file-system calls; what it imports is imported here from then on."""
        counter = self.folder.parent / "calls"
        assert self.run(self.command, count=counter) == 0, self.said()
        calls, *modules = counter.read_text().split()
        self.calls = int(calls)
        for name in modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        self.reference = result(self.out)
        self.names = files(self.out)
        self.clear()
        began = time.monotonic()
        assert self.run(self.command) == 0, self.said()
        self.seconds = time.monotonic() - began
        assert result(self.out) == self.reference, f"two uninterrupted runs differ: {difference(self.out, self.reference)}"
        self.clear()

    def clear(self) -> None:
        """Nothing of the run is left, nor of its readings."""
        for name in ("out", "out.run", "cache"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def until_done(self, most: int) -> None:
        """One run with at most `most` kills, and what it made."""
        command, kills = self.command, 0
        while kills < most and self.killed(command):
            kills += 1
            self.check()
            if self.done():
                break
            command = (*self.command, *self.again)
        if not self.done():
            code = self.run(command)
            assert code == 0, f"after {kills} kills: {self.said()}"
        assert result(self.out) == self.reference, f"after {kills} kills the result is another one: {difference(self.out, self.reference)}"
        assert files(self.out) == self.names, f"other files: {files(self.out) ^ self.names}"
        self.finished += 1
        self.clear()

    def killed(self, command: tuple[str, ...]) -> bool:
        """Start, kill at a random moment; false if the run was done before that."""
        if self.draw.random() < 0.5 and not self.spawn:
            code, kind = self.run(command, call=self.draw.randrange(self.calls)), "file"
        else:
            code, kind = self.run(command, after=self.draw.uniform(0, self.seconds)), "clock"
        if code == -signal.SIGKILL:
            self.kills[kind] += 1
            return True
        assert code == 0, self.said()
        return False

    def done(self) -> bool:
        """Whether the output is there and complete."""
        return (self.out / "sweep.html").is_file() if "sweep" in self.command else self.out.exists()

    def check(self) -> None:
        """What has a final name is whole."""
        for path in self.folder.rglob("*"):
            hidden = any(part.endswith(".tmp") for part in path.relative_to(self.folder).parts)
            if path.is_file() and not hidden:
                whole(path)
        if "sweep" not in self.command and self.out.exists():
            assert result(self.out) == self.reference, "the output stood there half made"
            assert files(self.out) == self.names
        state = "done" if self.done() else "begun" if (self.folder / "out.run").exists() or self.out.exists() else "nothing"
        self.places[state] = self.places.get(state, 0) + 1

    def said(self) -> str:
        """What the last process wrote."""
        return (self.folder.parent / "said").read_text()

    def run(self, command: tuple[str, ...], *, after: float | None = None, call: int | None = None, count: Path | None = None) -> int:
        """The exit code of a command, or minus the signal that ended it.

        Args:
            after: seconds to its SIGKILL.
            call: the file-system call at which it kills itself.
            count: file that is told the number of its file-system calls.
        """
        if self.spawn and call is None and count is None:
            with (self.folder.parent / "said").open("w") as said:
                process = subprocess.Popen([sys.executable, "-m", "letheon", *command], cwd=self.folder, stdout=said, stderr=said)
                try:
                    return process.wait(after)
                except subprocess.TimeoutExpired:
                    process.kill()
                    return process.wait()
        child = os.fork()
        if child == 0:
            os._exit(self.child(command, call, count))
        end = None if after is None else time.monotonic() + after
        while True:
            found, status = os.waitpid(child, 0 if end is None else os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            if end is not None and time.monotonic() >= end:
                os.kill(child, signal.SIGKILL)
                end = None
            else:
                time.sleep(0.001)

    def child(self, command: tuple[str, ...], call: int | None, count: Path | None) -> int:
        """In the forked process: the command line as the entry point calls it."""
        with (self.folder.parent / "said").open("w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        os.chdir(self.folder)
        made, pid, inside = [0], os.getpid(), str(self.folder)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event in EVENTS and os.getpid() == pid and _written(event, arguments, inside):
                if made[0] == call:
                    os.kill(pid, signal.SIGKILL)
                made[0] += 1

        if call is not None or count is not None:
            sys.addaudithook(hook)
        from letheon.cli.main import main

        try:
            code = main(list(command))
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        if count is not None:
            total = made[0]
            count.write_text(" ".join([str(total), *sys.modules]))
        return code


def _written(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    """Whether a call changes files of the run: reading has no half-done state."""
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return False
    path = arguments[0]
    return isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(folder) or isinstance(path, int) or path is None


def whole(path: Path) -> None:
    """Fail unless a file is what its name says, to its end."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as tensors:
            assert all(tensors.get_tensor(name) is not None for name in tensors.keys())  # noqa: SIM118
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".html":
        assert path.read_text(encoding="utf-8").rstrip().endswith("</html>"), f"{path} is cut short"


def files(out: Path) -> set[str]:
    """Names of all files of a result."""
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def result(out: Path) -> dict[str, str]:
    """What two equal runs have in common: bytes, and for what holds clocks, all but those."""
    found = {}
    for name in sorted(files(out)):
        path = out / name
        if path.suffix == ".html" or path.name == "table.md":
            continue  # a function of the JSON beside it, with the cost in it
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.dumps(_timeless(json.loads(content)), sort_keys=True).encode()
        elif path.suffix == ".jsonl":
            content = b"\n".join(json.dumps(_timeless(json.loads(line))).encode() for line in content.splitlines())
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in CLOCKS}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def difference(out: Path, reference: dict[str, str]) -> list[str]:
    """Names of what differs."""
    found = result(out)
    return sorted(name for name in {*found, *reference} if found.get(name) != reference.get(name))


def world(folder: Path) -> None:
    """A toy model that has learned its rows, and the rows as files."""
    import letheon as lt
    from letheon.core.data import Data, Split
    from letheon.testing.toys import toy_data, toy_subject

    toy = toy_data()
    rows = {"forget": toy["forget"], "retain": (*toy["retain"], *toy["real-authors"], *toy["world-facts"]), "holdout": toy["holdout"]}
    full = Split([*rows["forget"], *rows["retain"]], "full")
    learn = lt.method("finetune", split="full", epochs=10, learning_rate=1e-2)
    learned = learn.apply(toy_subject(), Data({"full": full}), lt.Run(0, dtype="float32"))
    learned.save(folder / "model")
    for name, split in rows.items():
        lines = [json.dumps({"id": row.id, "question": row.prompt_text, "answer": row.answer, "wrong": list(row.wrong)}) for row in split]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "sweep.toml").write_text(SWEEP, encoding="utf-8")


def in_child(work: Callable[[], None]) -> None:
    """Do something in a forked process, so that this one never uses torch and stays safe to fork."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0, "the world could not be made"


def tried(kills: int, killed: Killed, most: int, end: float) -> dict[str, Any]:
    """Runs until `kills` processes were killed, or until the time is up; several of them may belong to one run."""
    killed.whole()
    while (left := kills - sum(killed.kills.values())) > 0 and time.monotonic() < end:
        killed.until_done(min(left, killed.draw.randint(1, most)))
    return {
        "kills": killed.kills, "runs compared": killed.finished, "seconds of a run": round(killed.seconds, 2), "file calls": killed.calls,
        "found after a kill": killed.places,
    }  # fmt: skip


def main() -> None:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--erase", type=int, default=50, help="kills of `letheon erase`")
    parser.add_argument("--sweep", type=int, default=20, help="kills of `letheon sweep`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop each of the two after this time, whatever the count")
    parser.add_argument("--spawn", action="store_true", help="start every process anew: slower, and most kills fall into the imports")
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    import torch

    torch.set_num_threads(1)
    import letheon.flow.stages
    import letheon.erase._tuning
    import letheon.testing.toys  # noqa: F401

    draw, found = random.Random(arguments.seed), {}
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top).resolve() / "world"
        folder.mkdir()
        os.environ["LETHEON_CACHE"] = str(folder / "cache")
        in_child(lambda: world(folder))
        for name, kills, command, again in (
            ("erase", arguments.erase, ERASE, ("--resume",)),
            ("sweep", arguments.sweep, ("sweep", "sweep.toml", "-q"), ()),
        ):
            if kills:
                killed = Killed(folder, command, again, draw, arguments.spawn)
                found[name] = tried(kills, killed, most=4, end=time.monotonic() + 60 * arguments.minutes)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
