"""Linear layers of a causal model for edits of weights: which there are, what goes through them, their weights as matrices (o, i)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from letheon.core.adapter import is_adapted
from letheon.core.errors import SubjectError
from letheon.core.forward import unwrapped
from letheon.core.subject import Subject
from letheon.train.taps import block_names

ATTENTION = ("attn", "attention")  # in the name of a layer of the attention part


def check_editable(subject: Subject, method: str) -> None:
    """Raise SubjectError for damaged weights, and for an adapter: an edit belongs into the weights that are run."""
    subject.check_finite()
    if is_adapted(subject.module):
        what = f"`{method}` edits weights and `{subject.name}` has an adapter around them"
        raise SubjectError(what, "Merge it first: `--set subject.merge=true`")


def is_linear(part: nn.Module) -> bool:
    """Whether a part is an ordinary linear layer, or the transposed kind of GPT-2."""
    from transformers.pytorch_utils import Conv1D

    return type(part) in (nn.Linear, Conv1D) and part.weight.is_floating_point()


def matrix(part: nn.Module) -> Tensor:
    """The weight of a linear layer as (o, i), sharing its memory."""
    return part.weight if type(part) is nn.Linear else part.weight.T


def linear_layers(module: nn.Module, which: str = "mlp") -> dict[str, nn.Module]:
    """Linear layers of all blocks by name, in order: those of the feed-forward part (`mlp`), of `attention`, or `all`.

    Raises:
        SubjectError: there is none, or two share a weight.
    """
    inner, found = unwrapped(module), {}
    for block in block_names(module):
        for name, part in inner.get_submodule(block).named_modules():
            attends = any(word in name for word in ATTENTION)
            if is_linear(part) and (which == "all" or attends == (which == "attention")):
                found[f"{block}.{name}"] = part
    if not found:
        raise SubjectError(f"`{type(inner).__name__}` has no ordinary linear layers in the part `{which}` of its blocks")
    if len({part.weight.data_ptr() for part in found.values()}) < len(found):
        raise SubjectError(f"`{type(inner).__name__}` uses a linear layer more than once", "Its weights cannot be edited layer by layer")
    return found


def down_projections(module: nn.Module) -> dict[str, nn.Module]:
    """The layer of each block, in order, that leads from the feed-forward part back to the model's width, by name.

    Raises:
        SubjectError: a block has none, or more than one (experts).
    """
    inner = unwrapped(module)
    width, layers, found = inner.config.hidden_size, linear_layers(module), {}
    for block in block_names(module):
        own = [(name, part) for name, part in layers.items() if name.startswith(f"{block}.") and matrix(part).shape[0] == width]
        own = [(name, part) for name, part in own if matrix(part).shape[1] != width] or own[-1:]
        if len(own) != 1:
            raise SubjectError(f"The block `{block}` of `{type(inner).__name__}` has {len(own)} down projections", "One is needed")
        found[own[0][0]] = own[0][1]
    return found


@contextlib.contextmanager
def watched(parts: Mapping[str, nn.Module]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Input and output of each part at the last forward pass inside the block; nothing stays behind."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str):
        def hook(part: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            seen[name] = (given[0], out)

        return hook

    handles = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def chosen(tokens: Tensor, where: Tensor) -> Tensor:
    """The tokens (n, d) at the true places of `where` (b, t); some networks (OPT) hand a layer those of all rows in one list."""
    return tokens.reshape(*where.shape, -1)[where]
