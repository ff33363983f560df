"""Taps read what a part puts out and leave nothing behind."""

from __future__ import annotations

import pytest
import torch

from letheon.core.errors import MethodError, SubjectError
from letheon.core.run import Run
from letheon.testing import toy_subject
from letheon.train.parameters.lora import LoRA
from letheon.train.taps import block_at, block_names, taps

IDS = torch.arange(12).reshape(2, 6)


def hooks(module: torch.nn.Module) -> int:
    return sum(len(part._forward_hooks) for part in module.modules())


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_blocks_are_found_and_their_states_are_those_of_transformers(architecture):
    module = toy_subject(architecture=architecture).module
    names = block_names(module)
    assert len(names) == module.config.num_hidden_layers == 2
    module(input_ids=IDS, output_hidden_states=True)  # transformers hangs hooks of its own on the first such call
    before = hooks(module)
    with torch.no_grad(), taps(module, names[0]) as seen:
        states = module(input_ids=IDS, output_hidden_states=True).hidden_states
    assert torch.equal(seen[names[0]], states[1])
    assert hooks(module) == before


def test_stop_ends_the_pass_and_keeps_the_gradient():
    module = toy_subject().module
    names, reached = block_names(module), []
    handle = module.get_submodule(names[1]).register_forward_hook(lambda *_: reached.append(1))
    with taps(module, names[0], stop=True) as seen:
        module(input_ids=IDS)
        reached.append("never")
    assert not reached
    seen[names[0]].sum().backward()
    assert module.get_submodule(names[0]).mlp.down_proj.weight.grad is not None
    assert module.get_submodule(names[1]).mlp.down_proj.weight.grad is None
    handle.remove()
    assert hooks(module) == 0


def test_taps_are_removed_after_an_exception():
    module = toy_subject().module
    with pytest.raises(ZeroDivisionError), taps(module, "model.layers.0", "model.layers.1"):
        module(input_ids=IDS)
        1 / 0  # noqa: B018
    assert hooks(module) == 0


def test_names_are_those_inside_an_adapter():
    wrapped = LoRA(rank=2).open(toy_subject(), Run(0, device="cpu", dtype="float32")).module
    with torch.no_grad(), taps(wrapped, "model.layers.1") as seen:
        wrapped(input_ids=IDS)
    assert seen["model.layers.1"].shape == (2, 6, 32)
    assert block_names(wrapped) == ["model.layers.0", "model.layers.1"]


def test_unknown_part_and_a_network_without_blocks():
    module = toy_subject().module
    with pytest.raises(MethodError, match="has no part `model.layers.9`"), taps(module, "model.layers.9"):
        pass
    with pytest.raises(SubjectError, match="no list of `num_hidden_layers` blocks"):
        block_names(torch.nn.Linear(2, 2))


def test_the_default_block_is_at_seven_thirty_seconds_of_the_depth():
    class Config:
        num_hidden_layers = 32

    class Deep(torch.nn.Module):
        def __init__(self, depth: int):
            super().__init__()
            self.config = Config()
            self.config.num_hidden_layers = depth
            self.layers = torch.nn.ModuleList(torch.nn.Identity() for _ in range(depth))

    assert [block_at(Deep(depth), None) for depth in (32, 16, 4, 1)] == [7, 4, 1, 0]
    assert block_at(Deep(4), 3) == 3
    with pytest.raises(MethodError, match="must be below 4"):
        block_at(Deep(4), 4)
