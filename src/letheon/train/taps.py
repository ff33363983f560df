"""Taps: read what a part of a network puts out, without changing the network.

    with taps(module, "model.layers.3", stop=True) as seen:
        module(input_ids=ids)
    seen["model.layers.3"]                                    # (b, t, d), with gradient

A tap is gone when its block ends, also after an exception. With `stop` the forward pass ends once every tap has been reached, so later
blocks and the output head cost nothing; what follows the pass inside the block is then not run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn

from letheon.core.errors import MethodError, SubjectError
from letheon.core.forward import unwrapped


class _Reached(Exception):
    """Ends a forward pass whose last tap has been reached."""


@contextlib.contextmanager
def taps(module: nn.Module, *names: str, stop: bool = False) -> Iterator[dict[str, Tensor]]:
    """Outputs of the named parts, filled in by each forward pass inside the block; the last pass stays.

    Args:
        module: a network, or a peft wrapper around it (names are those of the network inside).
        names: as in `named_modules`.
        stop: end the pass when all have been reached.

    Raises:
        MethodError: the network has no part of that name.
    """
    inner, seen = unwrapped(module), {}
    parts = dict(inner.named_modules())
    unknown = [name for name in names if name not in parts]
    if unknown:
        raise MethodError(f"`{type(inner).__name__}` has no part `{unknown[0]}`", f"Blocks are named like `{_blocks_name(inner)}.0`")

    def keep(name: str):
        def hook(part: nn.Module, given: object, out: object) -> None:
            seen[name] = out[0] if isinstance(out, tuple) else out
            if stop and len(seen) == len(names):
                raise _Reached

        return hook

    handles = [parts[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield seen
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()


def _blocks_name(inner: nn.Module) -> str | None:
    depth = getattr(getattr(inner, "config", None), "num_hidden_layers", None)
    lists = [name for name, part in inner.named_modules() if isinstance(part, nn.ModuleList) and len(part) == depth]
    return min(lists, key=lambda name: name.count(".")) if lists else None


def block_names(module: nn.Module) -> list[str]:
    """Names of the blocks, first to last, as in `model.layers.0`.

    Raises:
        SubjectError: the network has no list of `num_hidden_layers` blocks.
    """
    inner = unwrapped(module)
    name = _blocks_name(inner)
    if name is None:
        raise SubjectError(f"`{type(inner).__name__}` has no list of `num_hidden_layers` blocks", "Use a method that needs no block")
    return [f"{name}.{i}" for i in range(len(inner.get_submodule(name)))]


def block_at(module: nn.Module, layer: int | None) -> int:
    """The index of a block; None takes the one at 7/32 of the depth, where RMU's authors steer a 32-block model.

    Raises:
        MethodError: the network has fewer blocks.
    """
    depth = len(block_names(module))
    if layer is None:
        return min(depth - 1, round(depth * 7 / 32))
    if layer >= depth:
        raise MethodError(f"`layer` must be below {depth}, the number of blocks, got {layer}")
    return layer
