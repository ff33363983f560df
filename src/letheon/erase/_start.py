"""Where training from before begins: fresh weights of the subject's architecture, or a model that was saved earlier."""

from __future__ import annotations

import copy

import torch
from torch import nn

from letheon.core.data import Data
from letheon.core.errors import SubjectError
from letheon.core.registry import make
from letheon.core.run import Run
from letheon.core.settings import Choice
from letheon.core.subject import Subject


def fresh(known: nn.Module, subject: Subject, seed: int) -> Subject:
    """The architecture of `known` with new weights in its number format; encoder of the subject."""
    with torch.random.fork_rng(devices=[]):  # transformers draws from the global generator
        torch.manual_seed(seed)
        module = type(known)(copy.deepcopy(known.config))
    module.to(next(known.parameters()).dtype)
    return Subject(module, subject.encoder, name="scratch", disposable=True)


def loaded(subject: Subject, base: str, data: Data, run: Run) -> Subject:
    """The base model, read with the subject's tokenizer and template.

    Raises:
        SubjectError: the two tokenizers differ.
    """
    found = make(Choice(name="hf", path=base), "subjects").build(data, run)
    if found.encoder.tokenizer.get_vocab() != subject.encoder.tokenizer.get_vocab():
        hint = "Start from the model that the subject came from"
        raise SubjectError(f"The base `{base}` has another tokenizer than `{subject.name}`", hint)
    return Subject(found.module, subject.encoder, found.lineage, found.name, disposable=True)
