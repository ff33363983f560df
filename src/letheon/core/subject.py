"""Subject: a model, the encoder that feeds it, and its lineage."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from . import processes
from .adapter import is_adapted, save_adapter
from .errors import SubjectError
from .files import whole_folder, write_text
from .guard import watches, write_guards
from .quiet import quiet
from .stored import Stored

if TYPE_CHECKING:
    from .encode import TextEncoder

log = logging.getLogger("letheon")
LOST = 0.5  # share of the changed weights that rounding may take back without a word
NOTES = "letheon.json"  # template and lineage, beside the weights; other tools ignore it


@dataclass(frozen=True)
class Step:
    """One method that was applied: enough to repeat it."""

    method: str
    settings: dict[str, Any]
    seed: int
    data: str  # digest
    before: str  # digest of the subject it was applied to
    version: str
    notes: dict[str, Any] = field(default_factory=dict)


class Subject:
    """A model that can be changed and audited.

    Args:
        module: the network, in evaluation mode.
        encoder: turns examples into its input.
        lineage: every method applied so far, oldest first.
        name: how tables call it.
        disposable: the next change may take the module over instead of copying it (the caller has no other use for it).
        stored: the number format of its files, where it is narrower than that of the weights here.
    """

    def __init__(
        self, module: nn.Module, encoder: TextEncoder, lineage: tuple[Step, ...] = (), name: str = "model", *,
        disposable: bool = False, stored: Stored | None = None,
    ):  # fmt: skip
        self._module: nn.Module | None = module.eval()
        self.encoder, self.lineage, self.name = encoder, tuple(lineage), name
        self.disposable, self.stored = disposable, stored
        self._digest: tuple[tuple[Any, ...], str] | None = None
        self._was: dict[str, Tensor] | None = None  # what the files held, once a change has taken the module over

    @property
    def module(self) -> nn.Module:
        """The network.

        Raises:
            SubjectError: this subject was disposable and a change has taken its module over.
        """
        if self._module is None:
            raise SubjectError(f"`{self.name}` was handed over to a change and is gone", "Load it again, or do not mark it disposable")
        return self._module

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def digest(self) -> str:
        """sha256 over names, shapes, types and bytes of all weights, over the encoder and over the guards (hexadecimal)."""
        tensors, guards = self.module.state_dict(), tuple(watch.digest for watch in watches(self.module))
        # A change through `.data` or numpy counts no version, but it moves the sum of a row. Entries exchanged within a row may not.
        stamp = (*((t._version, t.data_ptr(), _sums(t.detach())) for t in tensors.values()), *guards)
        if self._digest is None or self._digest[0] != stamp:
            total = hashlib.sha256(self.encoder.digest.encode())
            for key in sorted(tensors):
                tensor = tensors[key].detach().cpu().contiguous()
                total.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
                total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
            for guard in guards:
                total.update(guard.encode())
            self._digest = (stamp, total.hexdigest())
        return self._digest[1]

    def fork(self) -> Subject:
        """A subject that may be changed: a copy, or the module itself where this subject is disposable."""
        module = self.module
        if self.disposable:
            self._was = None if self.stored is None else self.stored.files(module)
            self._module = None
        else:
            module = copy.deepcopy(module)
        return Subject(module, self.encoder, self.lineage, self.name, stored=self.stored)

    def with_step(self, step: Step) -> Subject:
        """The same module with one more step in its lineage."""
        return Subject(self.module, self.encoder, (*self.lineage, step), self.name, disposable=self.disposable, stored=self.stored)

    def changed(self, module: nn.Module, method: Any, *, data: str, before: str, seed: int, notes: dict[str, Any]) -> Subject:
        """What a method has made of this subject: its weights as they will be stored, and one more step in the lineage.

        Args:
            module: made by the method, and rounded here to the number format of the files.
            method: gives its name and settings.
            data: digest of the data that it was given.
            before: digest of this subject.

        Raises:
            SubjectError: a weight is beyond that format.
        """
        from letheon import __version__

        module.requires_grad_(True)
        stored = self.stored if self.stored is not None and self.stored.fits(module) else None
        if stored is not None:
            share = stored.round_(module, stored.files(self.module) if self._was is None else self._was)
            notes = notes if share is None else {**notes, "rounded": {"to": str(stored), "taken_back": round(share, 4)}}
            if share is not None and share > LOST:
                hint = "larger steps, or `store=float32` for the subject, keep them"
                log.warning("rounding to the %s of the files took %.0f%% of the changed weights back: %s", stored, 100 * share, hint)
        step = Step(method.name(), method.settings.model_dump(mode="json"), seed, data, before, __version__, notes)
        return Subject(module, self.encoder, (*self.lineage, step), f"{self.name}+{method.name()}", stored=stored)

    def to(self, device: torch.device | str) -> Subject:
        """Move the weights and return self."""
        self.module.to(device)
        return self

    def check_finite(self) -> None:
        """Raise SubjectError if a weight is NaN or infinite."""
        for key, tensor in self.module.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                what = f"The weights of `{self.name}` hold NaN or infinity in `{key}`"
                raise SubjectError(what, "The file is damaged or training diverged")

    def save(self, folder: str | Path, *, replace: bool = False) -> Path:
        """Write an ordinary Hugging Face folder with safetensors, whole or not at all. An adapter is saved as an adapter.

        Guards go into `guards/` beside the weights. Only letheon reads them: with any other tool the folder is the unguarded model.
        Of several processes that share the work the first one writes, and the others do nothing.

        Raises:
            RunError: the folder exists and `replace` is false, or the disk refuses; what stood there before still does.
        """
        folder = Path(folder)
        if not processes.first():
            return folder
        with whole_folder(folder, replace=replace) as work, quiet():
            if is_adapted(self.module):
                save_adapter(self.module, self.encoder.tokenizer, work)
            else:
                module: Any = self.module
                narrow = {} if self.stored is None else {"state_dict": self.stored.files(module)}
                module.save_pretrained(work, safe_serialization=True, **narrow)
                if self.stored is not None:
                    self.stored.noted(work)
            self.encoder.tokenizer.save_pretrained(work)
            notes = {"format": "letheon.subject/1", "encoder": self.encoder.described(), "lineage": [asdict(step) for step in self.lineage]}
            if watches(self.module):
                notes["guards"] = write_guards(self.module, work)
                log.warning("`%s` is saved with its guards, which only letheon brings back: other tools load it unguarded", self.name)
            write_text(work / NOTES, json.dumps(notes, indent=1, ensure_ascii=False) + "\n")
        return folder

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in self.module.parameters())
        return f"Subject({self.name!r}, {size:,} parameters, {len(self.lineage)} steps)"


def _sums(tensor: Tensor) -> int:
    """A number that stands for the sums over the last axis, or for a vector's entries: as cheap as one sum over all."""
    rows = tensor.float() if tensor.ndim < 2 else tensor.sum(-1, dtype=torch.float32)
    return hash(rows.cpu().numpy().tobytes())
