"""Models whose base knows the facts to keep and whose adapter has learned all of them: what adapter edits are tested on."""

from __future__ import annotations

import functools

from letheon.adapt.finetune import Finetune
from letheon.core.run import Run
from letheon.core.subject import Subject

from .fact_world import facts, untrained

LEARN = {"learning_rate": 1e-2, "schedule": "cosine", "weight_decay": 0.0, "warmup": 0.05}


@functools.cache
def adapted(seed: int = 0) -> Subject:
    """A small model of the facts with a low-rank adapter; shared, so no test may change it."""
    data, run = facts(), Run(seed, dtype="float32", device="cpu")
    base = Finetune(split="retain", epochs=24, **LEARN).apply(untrained(data, seed, layers=2, width=48), data, run)
    after = Finetune(split="full", epochs=36, parameters="lora:merge=false,rank=8", **LEARN).apply(base, data, run)
    return Subject(after.module, after.encoder, name="adapted")
