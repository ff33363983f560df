"""Shared by all benchmarks: clocks, alternating repeats, medians and peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Took:
    """What one call took, in seconds of wall time and of processor time of all threads, and what it gave back."""

    wall: float
    cpu: float
    result: Any


def timed(function: Callable[[], Any]) -> Took:
    """Call and measure."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return Took(time.perf_counter() - wall, time.process_time() - cpu, result)


def alternate(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[Took]]:
    """Call all functions in turn, `repeats` times, every second time in reverse order, so that a machine that slows down hits all alike."""
    found: dict[str, list[Took]] = {name: [] for name in functions}
    for k in range(repeats):
        for name in list(functions) if k % 2 == 0 else list(functions)[::-1]:
            found[name].append(timed(functions[name]))
            say(f"{name}: {found[name][-1].wall:.1f} s wall, {found[name][-1].cpu:.1f} s processor")
    return found


def medians(runs: Sequence[Took]) -> dict[str, float]:
    """Median wall and processor seconds."""
    return {"wall_seconds": statistics.median(took.wall for took in runs), "cpu_seconds": statistics.median(took.cpu for took in runs)}


def ratios(slow: Sequence[Took], fast: Sequence[Took]) -> dict[str, float]:
    """How many times faster, by both clocks; on a shared machine processor time is the steadier one."""
    a, b = medians(slow), medians(fast)
    return {"wall_ratio": a["wall_seconds"] / b["wall_seconds"], "cpu_ratio": a["cpu_seconds"] / b["cpu_seconds"]}


def say(text: str) -> None:
    """One line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def _status(field: str) -> float:
    """A memory field of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


class Peak:
    """Peak resident memory of this process since the object was made, in MiB.

    Where the kernel cannot forget an earlier peak (not Linux), the peak of the whole process stands in for it.
    """

    def __init__(self) -> None:
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not hide what is taken from now on
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.before = _status("VmRSS")
        except (OSError, LookupError):
            self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def grown(self) -> float:
        """Peak since the beginning, above what was resident then."""
        try:
            return _status("VmHWM") - self.before
        except (OSError, LookupError):
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - self.before


def in_own_process(script: str, *arguments: str) -> dict[str, Any]:
    """Run `python script arguments` and read the JSON on its last line of output."""
    done = subprocess.run([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def machine() -> dict[str, Any]:
    """What the numbers were measured on, without names."""
    import torch
    import transformers

    able = torch.cpu.get_capabilities()
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "avx512_bf16": bool(able.get("avx512_bf16")),
        "amx_bf16": bool(able.get("amx_bf16")),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def matmul_peak(dtype: Any, n: int = 2048, seconds: float = 2.0) -> dict[str, float]:
    """The best rate of an (n, n) matrix product in `dtype` by either library, operations per second of wall and of processor time."""
    import torch

    from letheon.maths.products import linear

    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    best = {"wall": 0.0, "cpu": 0.0}
    for product in (lambda: a @ b, lambda: linear(a, b)):
        product()
        stop = time.perf_counter() + seconds / 2
        while time.perf_counter() < stop:
            took = timed(product)
            best["wall"] = max(best["wall"], 2 * n**3 / took.wall)
            best["cpu"] = max(best["cpu"], 2 * n**3 / took.cpu)
    return best


def save(result: Mapping[str, Any], out: str | None) -> None:
    """Write the result to a file if one is named."""
    if out:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(json.dumps(result, indent=1) + "\n")


def write(result: Mapping[str, Any], out: str | None) -> None:
    """Print the result as JSON, and write it to a file if one is named."""
    save(result, out)
    print(json.dumps(result, indent=1))
