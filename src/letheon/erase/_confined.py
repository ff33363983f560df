"""Linear layers whose weights move only along directions that other inputs hardly use.

    y = W x + (W_now - W) P x          W: incoming weight, P: projector (i, i)

Written as what the layer now gives for P x plus W (x - P x), so that it holds for any parameter space: whether W itself moves or an adapter
beside it, the gradient is that of D in W + D P, and nothing changes at the start. At the end P is folded into the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from letheon.core.forward import unwrapped

from ._linears import matrix
from ._states import hold_all_but


class Confined:
    """The layers of one network.

    Args:
        module: the incoming network, whose weights are copied.
        projectors: name of a linear layer -> (i, i), symmetric.
    """

    def __init__(self, module: nn.Module, projectors: Mapping[str, Tensor]):
        inner = unwrapped(module)
        self.projectors = dict(projectors)
        self.frozen = {name: matrix(inner.get_submodule(name)).detach().clone() for name in projectors}
        self.module: nn.Module | None = None
        self.handles: list[Any] = []

    def attach(self, module: nn.Module) -> None:
        """Confine the layers of the network that is trained, and hold all its other weights; does nothing the second time.

        Raises:
            MethodError: none of the weights that may move belongs to these layers.
        """
        if self.module is module:
            return
        self.module, inner = module, unwrapped(module)
        self.handles = hold_all_but(module, self.moves, ", ".join(f"`{name}`" for name in self.projectors))
        for name, projector in self.projectors.items():
            self._confine(inner.get_submodule(name), self.frozen[name], projector)

    def moves(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether a weight is a matrix of one of the layers, or of an adapter beside it."""
        return parameter.ndim >= 2 and any(name.startswith(f"{layer}.") for layer in self.projectors)

    def _confine(self, part: nn.Module, frozen: Tensor, projector: Tensor) -> None:
        left: list[Tensor] = []

        def before(part: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            x = given[0]
            with torch.autocast(x.device.type, enabled=False):
                inside = (x.to(projector.dtype) @ projector).to(x.dtype)
            left[:] = [x - inside]
            return (inside, *given[1:])

        def after(part: nn.Module, given: object, out: Tensor) -> Tensor:
            return out + F.linear(left.pop(), frozen.to(out.dtype))

        self.handles += [part.register_forward_pre_hook(before), part.register_forward_hook(after)]

    @torch.no_grad()
    def fold(self, module: nn.Module) -> None:
        """Take the hooks off and put P into the weights, so that the plain layers give the same."""
        for handle in self.handles:
            handle.remove()
        self.handles, self.module = [], None
        for name, projector in self.projectors.items():
            part, p = unwrapped(module).get_submodule(name), projector.double()
            weight, frozen = matrix(getattr(part, "base_layer", part)), self.frozen[name].double()
            weight.copy_(frozen + (weight.double() - frozen) @ p)
            for adapter in getattr(part, "lora_A", {}).values():
                adapter.weight.copy_(adapter.weight.double() @ p)
