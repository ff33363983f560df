"""Cells as Ray tasks, on this machine or on many: `letheon sweep FILE --ray auto|local|HOST:PORT`.

A cell is an ordinary run folder, so that is all that driver and workers share: they must see the same files. A worker that is killed loses
its process, not its cell: Ray begins the task again, and the cell goes on from its last checkpoint. Where the driver is lost, Ray ends its
workers, and the same command goes on with what is there. A cell computes with `cpus` threads here and there, so its bits do not depend on
where it runs.

A cluster that is started here listens on the loopback interface alone, asks for a token that nobody else has, and ends with the sweep.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from letheon.core import registry
from letheon.core.errors import RunError, SettingsError

from .grid import Sweep
from .lock import Held

SECONDS = 5.0  # for an address to answer
LEFT = 60.0  # seconds for a worker whose driver was lost to end, before its cell counts as taken
STORE = 80 << 20  # bytes of the object store, which holds results of a few kilobytes
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # what Ray's servers answer with a frame of type 4
Each = Callable[[Callable[..., Any], list[tuple[Any, ...]]], Generator[Any]]


@contextlib.contextmanager
def joined(address: str, plan: Sweep) -> Iterator[Each]:
    """A way to call a function on many jobs as Ray tasks; what they give comes in the order of the jobs.

    Args:
        address: `auto` (the cluster that `RAY_ADDRESS` names or that runs on this machine), `local` (a new one here), or HOST:PORT.

    Raises:
        RunError: Ray is not installed, nothing answers at the address, or no machine of the cluster has room for a cell.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    asked = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    known = _noted() if asked == "auto" else None if asked == "local" else asked
    if known is not None:
        _check_answer(known)
    ray = _started(asked)
    try:
        _check_room(ray, plan)
        yield lambda function, jobs: _tasks(ray, function, jobs, plan)
    finally:
        ray.shutdown()


def _started(address: str) -> Any:
    """The package `ray`, connected; to a cluster of our own for `local`."""
    if address == "local" and "ray" not in sys.modules:  # Ray reads these when it is imported
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # on Linux too: its name for listening on the loopback interface
        if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError as error:
        raise RunError("`--ray` needs Ray, which is not installed", "pip install 'letheon[ray]'") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE} if address == "local" else {}
    try:
        ray.init(address=address, **quiet, **own)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if address == "auto":
            hint = "`ray start --head` starts one; `--ray local` has one for itself"
            raise RunError("No Ray cluster runs on this machine", hint) from error
        why = str(error).strip().splitlines()[0].rstrip(".")
        raise RunError(f"The Ray cluster at `{address}` cannot be joined: {why}", "It needs the same versions of Ray and Python") from error
    return ray


def _noted() -> str | None:
    """The address that `ray start` has noted on this machine; it stays there when the cluster is killed."""
    try:
        return (Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster").read_text().strip() or None
    except OSError:
        return None


def _check_answer(address: str) -> None:
    """Refuse an address at which no Ray answers, before Ray waits for it for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise SettingsError(f"`--ray` takes auto, local or HOST:PORT, got {address!r}", "For example `--ray 10.0.0.1:6379`")
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return  # speaks only to who has a certificate
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS) as line:
            line.sendall(_HELLO)
            what = "" if line.recv(9)[3:4] == b"\x04" else "something else answers"
    except (OSError, UnicodeError) as error:
        what = str(getattr(error, "strerror", None) or error)
    if what:
        raise RunError(f"No Ray cluster answers at `{address}`: {what}", "`ray start --head` starts one and says its address")


def _check_room(ray: Any, plan: Sweep) -> None:
    """Refuse a cell that would wait for ever, since no machine is large enough for it."""
    cpus, machines = plan.cpus or 1, [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(has.get("CPU", 0) >= cpus and has.get("GPU", 0) >= plan.gpus for has in machines):
        most = max((has.get("CPU", 0) for has in machines), default=0), max((has.get("GPU", 0) for has in machines), default=0)
        what = f"No machine of the cluster has the {cpus} CPUs and {plan.gpus:g} GPUs that a cell asks for"
        raise RunError(f"{what}: the largest have {most[0]:g} and {most[1]:g}", "Lower `cpus` or `gpus` of the sweep")


def _tasks(ray: Any, function: Callable[..., Any], jobs: list[tuple[Any, ...]], plan: Sweep) -> Generator[Any]:
    """What the tasks give, in order. Those that nobody waits for any more end with the connection."""
    room = {"num_cpus": plan.cpus or 1, "num_gpus": plan.gpus, "max_retries": plan.retries}
    remote, here = ray.remote(_cell).options(**room), _place(plan)
    for task in [remote.remote(function, job, here) for job in jobs]:
        try:
            yield ray.get(task)
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError) as error:
            hint = "Memory may have run out; give the command again to go on"
            raise RunError(f"A cell was killed {plan.retries + 1} times", hint) from error
        except ray.exceptions.RayTaskError as error:
            last = str(error).strip().splitlines()[-1]
            raise RunError(f"A worker of the cluster cannot run letheon: {last}", "Install the same letheon there") from error
        except ray.exceptions.RayError as error:
            first = str(error).strip().splitlines()[0]
            raise RunError(f"The Ray cluster was lost: {first}", "Give the command again to go on") from error


def _place(plan: Sweep) -> dict[str, Any]:
    """What a worker must have as it is here: the folder that paths are relative to, where readings are kept, plug-ins, and threads."""
    from .stages import cache_folder

    own = os.environ.get(registry.OWN, "")
    return {"folder": os.getcwd(), "cache": os.path.abspath(cache_folder()), "threads": plan.cpus or 1, "plugins": own}


def _cell(function: Callable[..., Any], job: tuple[Any, ...], here: Mapping[str, Any]) -> Any:
    """Runs in a worker: `function(*job)` as it would run in the driver's folder, with faults of the user's given back."""
    import torch

    if not Path(here["folder"]).is_dir():
        hint = "All machines need the same folders, for example on a network file system"
        return RunError(f"A worker on {socket.gethostname()} does not see {here['folder']}", hint)
    os.chdir(here["folder"])
    os.environ |= {"LETHEON_CACHE": here["cache"], registry.OWN: here["plugins"]}
    torch.set_num_threads(here["threads"])
    until = time.monotonic() + LEFT
    while True:
        found = function(*job)
        if not (isinstance(found, Held) and time.monotonic() < until):
            return found
        time.sleep(0.2)  # the worker of a driver that was lost is about to be ended
