"""What contracts share: the case under test, and ways to see whether anything was left other than it was found."""

from __future__ import annotations

import contextlib
import functools
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from letheon.core.data import Data
from letheon.core.run import Run
from letheon.core.subject import Subject

from .toys import toy_data, toy_subject


class Broken(Exception):
    """A contract does not hold; the message says how."""


class Injected(Exception):
    """An exception that a contract throws in the middle of somebody else's work."""


def need(condition: bool, message: str) -> None:
    """Raise Broken with `message` unless `condition` holds."""
    if not condition:
        raise Broken(message)


@dataclass(frozen=True)
class Case:
    """One plug-in under test, and the temporary folder that its contracts may write into."""

    cls: type
    name: str
    role: str
    path: Path | None
    folder: Path

    @property
    def tiny(self) -> dict[str, Any]:
        """The settings that make it run in a second: `tiny`, or what `example` gives after writing a small input file."""
        if self.cls.tiny is not None:
            return dict(self.cls.tiny)
        return dict(self.cls.example(self.new_folder()))

    def new_folder(self) -> Path:
        """An empty folder to write into."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def make(self, **over: Any) -> Any:
        """A new plug-in with its tiny settings."""
        return self.cls(**{**self.tiny, **over})

    @functools.cached_property
    def data(self) -> Data:
        """The toy data."""
        return toy_data()

    @functools.cached_property
    def after(self) -> Subject:
        """What a `Change` makes of the toy, made once and shared by contracts that only look at it."""
        return self.make().apply(toy_subject(), self.data, quiet_run())


def quiet_run(seed: int = 0, **more: Any) -> Run:
    """A run in float32 on the CPU, so that results can be compared to the bit."""
    return Run(seed, device="cpu", dtype="float32", **more)


def weights(subject: Subject) -> dict[str, torch.Tensor]:
    """All weights by name."""
    return dict(subject.module.state_dict())


def need_equal_weights(one: Subject, two: Subject, what: str) -> None:
    """Raise Broken unless both have the same weights to the bit."""
    mine, other = weights(one), weights(two)
    need(mine.keys() == other.keys(), f"{what}: the names of the weights differ")
    for key, tensor in mine.items():
        if not torch.equal(tensor, other[key]):
            gap = (tensor.double() - other[key].double()).abs().max().item()
            raise Broken(f"{what}: `{key}` differs by up to {gap:.3g}")


@torch.no_grad()
def logits(module: torch.nn.Module, vocabulary: int) -> torch.Tensor:
    """Logits of a fixed text of 24 tokens, (24, v)."""
    ids = (torch.arange(24) * 7 + 3).remainder(vocabulary)[None]
    return module(input_ids=ids, use_cache=False).logits[0]


def subject_logits(subject: Subject) -> torch.Tensor:
    """Logits of a fixed text, (24, v)."""
    return logits(subject.module, len(subject.encoder.tokenizer))


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


def _state(subject: Subject) -> dict[str, Any]:
    module = subject.module
    return {
        "weights": {name: tensor.clone() for name, tensor in module.state_dict().items()},
        "`requires_grad`": {name: parameter.requires_grad for name, parameter in module.named_parameters()},
        "gradients": {name: parameter.grad is None for name, parameter in module.named_parameters()},
        "training mode": {name: part.training for name, part in module.named_modules()},
        "hooks": {name: [len(getattr(part, kind, ())) for kind in _HOOKS] for name, part in module.named_modules()},
        "replaced `forward`": {name: "forward" in vars(part) for name, part in module.named_modules()},
        "modules": {name: type(part) for name, part in module.named_modules()},
        "configuration": (str(module.config), getattr(module.config, "_attn_implementation", None)),
        "tokenizer": len(subject.encoder.tokenizer),
        "lineage": subject.lineage,
        "the global generator of torch": torch.get_rng_state(),
        "the global generator of numpy": np.random.get_state()[1].tobytes(),  # noqa: NPY002
        "the global generator of Python": random.getstate(),
        "gradient mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "thread count": torch.get_num_threads(),
    }


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_same(value, two[key]) for key, value in one.items())
    return bool(one == two)


@contextlib.contextmanager
def left_as_found(subject: Subject) -> Iterator[None]:
    """Raise Broken if the block changes anything about the subject or the process. The subject is put into an unusual state first."""
    module = subject.module
    part = list(module.modules())[-1]
    part.train()
    first = next(module.parameters())
    first.requires_grad_(False)
    before = _state(subject)
    yield
    changed = [what for what, now in _state(subject).items() if not _same(before[what], now)]
    need(not changed, f"it changes {', '.join(changed)}")


@contextlib.contextmanager
def stirred(seed: int) -> Iterator[None]:
    """Other work has drawn from the global generators: they stand elsewhere inside the block and are put back after it."""
    kept, numpy_kept, torch_kept = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(kept)
        np.random.set_state(numpy_kept)  # noqa: NPY002
        torch.set_rng_state(torch_kept)


def throw_at_call(subject: Subject, call: int) -> list[int]:
    """Throw `Injected` when the model (or a copy of it) is run for the `call`-th time; gives a list with one item per run."""
    calls: list[int] = []

    def hook(*_: Any) -> None:
        calls.append(1)
        if len(calls) == call:
            raise Injected(f"thrown in forward pass {call}")

    subject.module.get_input_embeddings().register_forward_pre_hook(hook)
    return calls
