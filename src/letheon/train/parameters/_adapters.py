"""What the low-rank parameter spaces share: settings, the peft wrapper, and starting an adapter elsewhere than at zero.

    W x + s B A x          A (rank, in), B (out, rank), s = alpha / rank

An adapter may start at any B A if the frozen weight becomes W - s B A: the function at the start is that of the incoming model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from letheon.core.adapter import is_adapted
from letheon.core.errors import MethodError
from letheon.core.forward import unwrapped
from letheon.core.quiet import quiet
from letheon.core.run import Run
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject

NAME = "default"  # what peft calls the one adapter


class AdapterSettings(Settings):
    """Size and place of the adapters."""

    rank: int = Field(8, ge=1, description="columns of the thin matrices")
    alpha: float = Field(16.0, gt=0, description="the adapter is scaled by alpha / rank")
    targets: str | tuple[str, ...] = Field("all-linear", description="layers to adapt: `all-linear`, or name endings such as `q_proj`")
    merge: bool = Field(True, description="add the adapters into the weights at the end; false keeps and saves an adapter")


def adapted(subject: Subject, settings: Any, run: Run, purpose: str) -> Subject:
    """The subject with adapters as peft makes them: A random, B zero; only they require a gradient.

    Raises:
        MethodError: there is an adapter already, no layer is called like the targets, or peft cannot adapt it.
    """
    from peft import LoraConfig, get_peft_model

    if is_adapted(subject.module):
        hint = "Merge it first with `--set subject.merge=true`, or train it with `--set parameters=layers:pattern=lora_`"
        raise MethodError(f"`{subject.name}` has an adapter already, and a second one cannot be put around it", hint)

    given = [settings.targets] if isinstance(settings.targets, str) else list(settings.targets)
    targets = given[0] if given == ["all-linear"] else given  # peft takes any other plain string for a regular expression
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM")
    try:
        # peft draws from the global generator: give it a state of our own, and put back the old one.
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.derived_seed(purpose))
            module = get_peft_model(subject.module, config)
    except ValueError as error:
        hint = "Name layers in `parameters.targets`"
        raise MethodError(f"LoRA cannot be added to `{subject.name}`: {error}", hint) from error
    return Subject(module, subject.encoder, subject.lineage, subject.name)


def handed_out(subject: Subject, settings: Any) -> Subject:
    """The subject after training: the adapters added into the weights, or kept apart."""
    if not settings.merge:
        return subject
    return Subject(subject.module.merge_and_unload(), subject.encoder, subject.lineage, subject.name)


def layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name in the network inside, as in `model.layers.0.mlp.up_proj`, and adapted layer."""
    for name, part in unwrapped(module).named_modules():
        if hasattr(part, "lora_A") and hasattr(part, "base_layer"):
            yield name, part


def targets_of(subject: Subject, settings: Any, run: Run) -> dict[str, nn.Module]:
    """The layers that adapters will be put on, by name, found on a copy without weights. The subject stays as it is.

    Raises:
        MethodError: a layer is no linear layer, or shares its weight with another part of the network.
    """
    weightless = {id(parameter): nn.Parameter(parameter.to("meta"), parameter.requires_grad) for parameter in subject.module.parameters()}
    shell = copy.deepcopy(subject.module, weightless)
    names = [name for name, _ in layers(adapted(Subject(shell, subject.encoder, name=subject.name), settings, run, "targets").module)]
    parts = dict(subject.module.named_modules())
    bare = next((name for name in names if name not in parts), None)  # experts, whose weights peft adapts without a layer
    if bare is not None:
        raise MethodError(f"`{bare.removesuffix('.base_layer')}` is no linear layer", "Name others in `parameters.targets`")
    found = {name: parts[name] for name in names}
    uses: dict[int, int] = {}
    for part in subject.module.modules():
        for parameter in part.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    for name, part in found.items():
        weight = getattr(part, "weight", None)
        if weight is None or weight.ndim != 2 or isinstance(part, nn.Embedding):
            raise MethodError(f"`{name}` is no linear layer", "Name others in `parameters.targets`")
        if uses[id(weight)] > 1:
            raise MethodError(f"`{name}` shares its weight with another part of `{subject.name}`", "Name others in `parameters.targets`")
    return found


def is_transposed(part: Any) -> bool:
    """Whether a layer stores its weight as (in, out), as GPT-2 does."""
    return type(part).__name__ == "Conv1D"


def matrix(part: Any) -> Tensor:
    """The weight of a linear layer, (out, in), as a view."""
    return part.weight.T if is_transposed(part) else part.weight


@torch.no_grad()
def begin(layer: Any, b: Tensor, a: Tensor) -> None:
    """Start an adapted layer at B (out, k) and A (k, in), k <= rank, and take s B A out of its frozen weight.

    The other rank - k columns of B are zero and rows of A random, as without a start.
    """
    up, down, k = layer.lora_B[NAME].weight, layer.lora_A[NAME].weight, b.shape[1]
    up[:, :k], down[:k] = b.to(up.dtype), a.to(down.dtype)
    base = matrix(layer.base_layer)
    base -= (layer.scaling[NAME] * (up[:, :k].to(base.device) @ down[:k].to(base.device))).to(base.dtype)


def opened(subject: Subject, settings: Any, run: Run, purpose: str, found: Mapping[str, tuple[Tensor, Tensor]]) -> Subject:
    """The subject with adapters that start at `found`: name of a layer -> B (out, k), A (k, in).

    Raises:
        MethodError: nothing was found: the space was not started.
    """
    if not found:
        raise MethodError(f"`{purpose}` has no start: it measures the incoming model first", "Call `start` before `open`")
    after = adapted(subject, settings, run, purpose)
    for name, layer in layers(after.module):
        begin(layer, *found[name])
    return after
