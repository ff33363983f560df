"""Guards: changes that leave the weights alone and watch what a model is asked.

A guard puts a `Watch` on the module. The watch goes wherever the module goes: into copies, under adapters, through every forward pass. It
is saved in a folder of its own beside the weights, which no other tool reads: the weights alone are the unguarded model.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from .errors import SubjectError
from .forward import unwrapped
from .method import Change

if TYPE_CHECKING:
    from .encode import TextEncoder

FOLDER = "guards"  # beside the weights
_PLACE = "letheon_guards"  # attribute of the guarded module


class Watch(ABC):
    """What a guard leaves on a module.

    Attributes:
        method: the guard that made it.
    """

    method: str

    @property
    @abstractmethod
    def digest(self) -> str:
        """sha256 over everything that decides what it does (hexadecimal)."""

    @abstractmethod
    def attach(self, module: nn.Module) -> None:
        """Begin to watch a causal language model."""

    @abstractmethod
    def detach(self, module: nn.Module) -> None:
        """Leave the module as it was before `attach`."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write everything that `Guard.read` needs into an empty folder: safetensors and JSON."""

    @abstractmethod
    def caught(self, prompts: Sequence[Sequence[int]]) -> list[bool]:
        """Which prompts, as tokens, it keeps the model from answering."""

    def asking(self, ids: Any, mask: Any) -> contextlib.AbstractContextManager[None]:
        """Inside the block the given rows (b, t), where `mask` is true, are whole prompts, wherever a template would end them."""
        return contextlib.nullcontext()


class Guard(Change):
    """A change that puts a watch on the module."""

    @classmethod
    @abstractmethod
    def read(cls, folder: Path, encoder: TextEncoder) -> Watch:
        """The watch that was written into `folder`. Raises SubjectError where a file is missing or damaged."""


def watches(module: nn.Module) -> tuple[Watch, ...]:
    """The watches on a module, oldest first."""
    return getattr(unwrapped(module), _PLACE, ())


def guard(module: nn.Module, watch: Watch) -> None:
    """Put one more watch on a module."""
    inner = unwrapped(module)
    watch.attach(inner)
    setattr(inner, _PLACE, (*watches(inner), watch))


def unguard(module: nn.Module) -> None:
    """Take all watches off a module."""
    inner = unwrapped(module)
    for watch in watches(inner):
        watch.detach(inner)
    vars(inner).pop(_PLACE, None)


def write_guards(module: nn.Module, folder: Path) -> list[dict[str, str]]:
    """Write the watches of a module below `folder`; what its notes have to say to bring them back."""
    found = []
    for k, watch in enumerate(watches(module)):
        place = f"{FOLDER}/{k}-{watch.method}"
        (folder / place).mkdir(parents=True)
        watch.write(folder / place)
        found.append({"method": watch.method, "folder": place, "digest": watch.digest})
    return found


def read_guards(folder: Path, noted: Any, encoder: TextEncoder) -> list[Watch]:
    """The watches that `write_guards` wrote below `folder`. A guard that cannot be brought back is an error: nothing goes unguarded.

    Raises:
        SubjectError: a guard is missing or damaged, or lies there unnoted.
    """
    from .registry import load

    if not noted and (folder / FOLDER).is_dir():
        what = f"{folder} holds guards ({FOLDER}/) that its letheon.json does not name"
        raise SubjectError(what, f"Copy letheon.json beside the weights again, or remove {FOLDER}/ to load the unguarded model")
    found = []
    try:
        listed = [(str(note["method"]), folder / str(note["folder"]), note["digest"]) for note in noted or ()]
    except (TypeError, KeyError) as error:
        raise SubjectError(f"{folder}/letheon.json names its guards in a way that cannot be read", "Copy it again") from error
    for method, place, digest in listed:
        if not place.is_dir():
            raise SubjectError(f"The guard `{method}` of {folder} is missing: there is no {place}", "Copy the whole folder again")
        maker: Any = load(method, "guard")
        watch = maker.read(place, encoder)
        if watch.digest != digest:
            raise SubjectError(f"The guard in {place} is damaged: it is not the one that was saved", "Copy the whole folder again")
        found.append(watch)
    return found
