"""The number format of model files. Weights are float32 while they are worked on, and go back into the format that they came in.

Rounding takes back what is smaller than half a step of the format: 2^-9 to 2^-8 of a weight in bfloat16. So a change is rounded before
anybody looks at it, and what is audited is what is saved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .errors import SubjectError


@dataclass(frozen=True)
class Stored:
    """A format narrower than float32, and the names of the weights whose values it holds."""

    dtype: torch.dtype
    names: frozenset[str]

    def __str__(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @classmethod
    def of(cls, module: nn.Module, dtype: torch.dtype) -> Stored:
        """All weights of a module that lose nothing in this format; the others were stored wider, and stay so."""
        tensors = module.state_dict().items()
        return cls(dtype, frozenset(name for name, x in tensors if x.is_floating_point() and torch.equal(x.to(dtype).to(x.dtype), x)))

    def fits(self, module: nn.Module) -> bool:
        """Whether a module has all these weights; one with an adapter around it, or several as one, have other names."""
        return self.names <= module.state_dict().keys()

    @torch.no_grad()
    def round_(self, module: nn.Module, was: Mapping[str, Tensor] | None = None) -> float | None:
        """Give these weights the nearest values of the format, in place.

        Args:
            was: the weights before they were changed.

        Returns:
            Of the weights that had moved, the share that is back where it was; None if there is nothing to say that of.

        Raises:
            SubjectError: a weight is too large for the format.
        """
        seen, moved, back = set(), 0, 0
        for name, tensor in module.state_dict().items():
            if name not in self.names or tensor.data_ptr() in seen:
                continue
            seen.add(tensor.data_ptr())
            nearest = tensor.to(self.dtype)
            if not torch.isfinite(nearest).all() and torch.isfinite(tensor).all():
                what = f"`{name}` is too large for {self}, the number format of the model's files"
                raise SubjectError(what, "Smaller steps, or `--set subject.store=float32`")
            if was is not None and was[name].shape == tensor.shape:
                away = tensor != was[name].to(tensor)
                moved, back = moved + int(away.sum()), back + int((away & (nearest == was[name].to(nearest))).sum())
            tensor.copy_(nearest)
        return back / moved if moved else None

    def files(self, module: nn.Module) -> dict[str, Tensor]:
        """All weights in the formats that they are stored in; what shares memory still does."""
        made: dict[tuple[int, torch.Size], Tensor] = {}
        found = {}
        for name, tensor in module.state_dict().items():
            if name in self.names:
                tensor = made.setdefault((tensor.data_ptr(), tensor.shape), tensor.to(self.dtype))
            found[name] = tensor
        return found

    def noted(self, folder: Path) -> None:
        """Name the format in the configuration of a saved model."""
        from .files import write_text

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        write_text(folder / "config.json", json.dumps({**config, "dtype": str(self)}, indent=2) + "\n")
