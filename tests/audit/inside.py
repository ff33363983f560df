"""Models for audits that look inside: one that knows, one that never knew, and some whose knowledge is hidden in a known place."""

from __future__ import annotations

import copy
import functools

import torch

import letheon as lt
from letheon.core.data import Data
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.testing.toys import toy_data, toy_subject

RUN = Run(0, dtype="float32", device="cpu")


@functools.cache
def data() -> Data:
    """The toy data."""
    return toy_data()


@functools.cache
def trained(split: str, architecture: str = "llama", seed: int = 0) -> Subject:
    """A toy that has learnt a split by heart; shared, so no test may change it."""
    values = {"split": split, "epochs": 40, "learning_rate": 1e-2}
    return lt.method("finetune", **values).apply(toy_subject(seed, architecture), data(), Run(seed, dtype="float32", device="cpu"))


def knows(architecture: str = "llama", seed: int = 0) -> Subject:
    """Has seen the rows to forget."""
    return trained("full", architecture, seed)


def never(seed: int = 0) -> Subject:
    """Has not."""
    return trained("retain", "llama", seed)


def hidden(seed: int = 0) -> Subject:
    """Knows everything up to its last block, which is new and drowns what comes in."""
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    module = copy.deepcopy(knows(seed=seed).module)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        block = LlamaDecoderLayer(module.config, 2)
        for weight in block.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 2.0)
    module.model.layers.append(block)
    module.config.num_hidden_layers = 3
    return Subject(module, knows(seed=seed).encoder, name="hidden")


def readings(subject: Subject) -> Readings:
    """Fresh readings."""
    return Readings(subject, RUN)
