"""A coreset unlearns itself: the facts that were left out of it are mostly still there."""

from __future__ import annotations

from statistics import fmean

from letheon.core.run import Run
from letheon.erase.npo import NPO
from letheon.select.random import Random

from .fact_world import said

SETTINGS = {"steps": 60, "learning_rate": 5e-4, "batch_size": 24, "schedule": "constant", "warmup": 0.0}


def test_the_rest_of_a_coreset_is_not_forgotten(knowers, fact_data):
    """Random facts share little, so three of 24 facts take the other 21 only partly with them, at equal steps."""
    chosen, rest, kept = [], [], []
    for seed, knower in enumerate(knowers):
        run = Run(seed, dtype="float32", device="cpu")
        data = Random(fraction=0.125).curate(fact_data, run, knower)
        after = NPO(**SETTINGS).apply(knower, data, run)
        for found, split in ((chosen, "forget"), (rest, "forget-rest"), (kept, "retain")):
            found.append(said(after, data[split]).value)
    assert fmean(chosen) < 0.05 and fmean(kept) > 0.8
    assert fmean(rest) > fmean(chosen) + 0.3
