"""The number format of model files. Weights are float32 while they are worked on, and go back into the format that they came in.

Rounding takes back what is smaller than a step of the format: half of 2^-8 of a weight in bfloat16. So a change is rounded before anybody
looks at it, and what is audited is what is saved.
"""

from __future__ import annotations

import json
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

    @classmethod
    def of(cls, module: nn.Module, dtype: torch.dtype) -> Stored:
        """All weights of a module that lose nothing in this format; the others were stored wider, and stay so."""
        tensors = module.state_dict().items()
        return cls(dtype, frozenset(name for name, x in tensors if x.is_floating_point() and torch.equal(x.to(dtype).to(x.dtype), x)))

    def fits(self, module: nn.Module) -> bool:
        """Whether a module has all these weights; one with an adapter around it, or several as one, have other names."""
        return self.names <= module.state_dict().keys()

    @torch.no_grad()
    def round_(self, module: nn.Module) -> None:
        """Give these weights the nearest values of the format, in place.

        Raises:
            SubjectError: a weight is too large for it.
        """
        for name, tensor in module.state_dict().items():
            if name in self.names:
                nearest = tensor.to(self.dtype)
                if not torch.isfinite(nearest).all() and torch.isfinite(tensor).all():
                    what = f"`{name}` is too large for {str(self.dtype).removeprefix('torch.')}, the number format of the model's files"
                    raise SubjectError(what, "Smaller steps, or `--set subject.store=float32`")
                tensor.copy_(nearest)

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
        write_text(folder / "config.json", json.dumps({**config, "dtype": str(self.dtype).removeprefix("torch.")}, indent=2) + "\n")
