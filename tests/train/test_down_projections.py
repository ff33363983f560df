"""The parameter space of RMU: one matrix of each of a few blocks."""

from __future__ import annotations

import pytest

from letheon.core.errors import MethodError
from letheon.core.run import Run
from letheon.testing import toy_subject
from letheon.train.parameters.down_projections import DownProjections

ENDS = {"llama": "model.layers.{}.mlp.down_proj.weight", "gpt2": "transformer.h.{}.mlp.c_proj.weight"}


def moving(subject) -> list[str]:
    return [name for name, parameter in subject.module.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize(("settings", "blocks"), [({}, [0]), ({"layer": 1}, [0, 1]), ({"layer": 1, "count": 1}, [1])])
def test_the_last_matrix_of_the_blocks_moves_and_nothing_else(architecture, settings, blocks):
    opened = DownProjections(**settings).open(toy_subject(architecture=architecture), Run(0, device="cpu"))
    assert moving(opened) == [ENDS[architecture].format(block) for block in blocks]


def test_a_block_that_is_not_there():
    with pytest.raises(MethodError, match="`layer` must be below 2"):
        DownProjections(layer=2).open(toy_subject(), Run(0, device="cpu"))
