"""Run: seed, device, number format, output folder and named random generators of one piece of work."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from . import processes
from .errors import RunError
from .files import disk_faults, write_text

log = logging.getLogger("letheon")

DType = Literal["auto", "float32", "bfloat16", "float16"]


class Run:
    """Where and how a piece of work runs.

    Args:
        seed: every random draw derives from it and from the name of its purpose.
        out: folder for metrics, checkpoints and results; None keeps nothing.
        device: "auto" (CUDA where there is one), "cpu", "cuda", ...
        dtype: number format of forward and backward passes in training: "auto" takes bfloat16 where the hardware has it.
            Weights, losses and findings stay float32.
        cache: folder for readings on disk; None keeps them in memory only.
        resume: go on from the checkpoint in `out`, if it belongs to the same work.
        trackers: names that accelerate knows ("tensorboard", "wandb", "mlflow").
        progress: show a progress bar on stderr.
        checkpoint_every: optimiser steps between checkpoints (kept in `out`); 0 writes none but at an interruption.
    """

    def __init__(
        self,
        seed: int = 0,
        out: str | Path | None = None,
        *,
        device: str = "auto",
        dtype: DType = "auto",
        cache: str | Path | None = None,
        resume: bool = False,
        trackers: tuple[str, ...] = (),
        progress: bool = False,
        checkpoint_every: int = 50,
    ):
        if not isinstance(seed, int) or seed < 0:
            raise RunError(f"`seed` must be a whole number of 0 or more, got {seed!r}")
        if dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise RunError(f"`dtype` must be auto, float32, bfloat16 or float16, got {dtype!r}")
        self.seed, self.dtype, self.resume, self.progress = seed, dtype, resume, progress and processes.first()
        self.out = None if out is None else Path(out)
        self.cache = None if cache is None else Path(cache)
        self.trackers = tuple(trackers)
        self.checkpoint_every = checkpoint_every if out is not None else 0
        self._device = device
        self._metrics: Any = None
        if self.out is not None and processes.first():
            with disk_faults(self.out):
                self.out.mkdir(parents=True, exist_ok=True)
            if not os.access(self.out, os.W_OK):
                raise RunError(f"{self.out} cannot be written: permission denied or read-only", "Choose another folder with `--out`")

    def rng(self, *purpose: str | int) -> torch.Generator:
        """A fresh generator that depends on nothing but the seed and the purpose.

        The same call gives the same numbers whatever was drawn before, so nothing has to be stored to resume.
        """
        return torch.Generator().manual_seed(self.derived_seed(*purpose))

    def derived_seed(self, *purpose: str | int) -> int:
        """The seed behind `rng(*purpose)`: a whole number below 2**63."""
        text = json.dumps([self.seed, *purpose])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    @functools.cached_property
    def accelerator(self) -> Any:
        """The accelerate object that knows processes and devices; made on first use."""
        from accelerate import Accelerator

        self.join()
        return Accelerator(
            cpu=self._device == "cpu",
            log_with=list(self.trackers) or None,
            project_dir=None if self.out is None else str(self.out),
        )

    @property
    def distributed(self) -> bool:
        """Whether this process is one of several started together."""
        return processes.size() > 1

    def join(self) -> None:
        """Meet the other processes, where there are any."""
        processes.join(cpu=self._device == "cpu")

    @functools.cached_property
    def device(self) -> torch.device:
        """The device of this process."""
        if self._device not in ("auto", "cpu") and not (self._device == "cuda" and self.distributed):
            try:
                torch.empty(1, device=self._device)
            except (RuntimeError, AssertionError) as error:
                raise RunError(f"The device `{self._device}` cannot be used here: {error}", "Try `--device cpu`") from error
            return torch.device(self._device)
        if self._device == "cpu" or not torch.cuda.is_available():
            return torch.device("cpu")
        found: torch.device = self.accelerator.device
        return found

    @functools.cached_property
    def compute_dtype(self) -> torch.dtype:
        """The number format of forward passes in training."""
        if self.dtype != "auto":
            found: torch.dtype = getattr(torch, self.dtype)
            return found
        if self.device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        return torch.bfloat16 if self.device.type == "cpu" and _cpu_has_bfloat16() else torch.float32

    def autocast(self, *, lifted: bool = True) -> contextlib.AbstractContextManager[Any]:
        """Mixed precision for a training step; does nothing in float32.

        Args:
            lifted: false where a gradient is taken without the loop's factor on the loss: float32 then stands in for float16.
        """
        if self.compute_dtype == torch.float32 or (self.compute_dtype == torch.float16 and not lifted):
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute_dtype)

    def record(self, **values: Any) -> None:
        """Append one line to `metrics.jsonl` in the output folder and send the numbers to the trackers.

        Of several processes only the first one writes.
        """
        if self.out is None or not processes.first():
            return
        with disk_faults(self.out / "metrics.jsonl"):
            if self._metrics is None:
                self._metrics = (self.out / "metrics.jsonl").open("a", encoding="utf-8")
                if self.trackers:
                    self.accelerator.init_trackers("letheon", config={"seed": self.seed, "dtype": self.dtype})
            self._metrics.write(json.dumps({"time": round(time.time(), 3), **values}) + "\n")
            self._metrics.flush()
        if self.trackers:
            numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
            self.accelerator.log(numbers, step=values.get("step"))

    def rewind(self, step: int) -> None:
        """Drop the lines of `metrics.jsonl` that come after `step`: a resumed run will write them again."""
        self.close()
        path = None if self.out is None else self.out / "metrics.jsonl"
        if path is None or not processes.first() or not path.is_file():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line).get("step", 0) <= step:
                    kept.append(line)
            except json.JSONDecodeError:
                continue  # the line that was being written when the process was killed
        write_text(path, "".join(f"{line}\n" for line in kept))

    def close(self) -> None:
        """Close the metrics file."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
            if self.trackers:
                self.accelerator.end_training()

    def described(self) -> dict[str, Any]:
        """What a result says about the run."""
        found = {"seed": self.seed, "device": str(self.device), "dtype": str(self.compute_dtype).removeprefix("torch.")}
        return found | ({"processes": processes.size()} if self.distributed else {})


def _cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; without that it is slower than float32."""
    from torch.cpu import get_capabilities

    found = get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


@contextlib.contextmanager
def kept_as_found(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; training flags and `requires_grad` restored after it, also after an exception."""
    training = {name: part.training for name, part in module.named_modules()}
    grads = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    module.eval()
    try:
        yield
    finally:
        for name, part in module.named_modules():
            part.training = training.get(name, part.training)
        for name, parameter in module.named_parameters():
            if name in grads and parameter.requires_grad != grads[name]:
                parameter.requires_grad_(grads[name])
