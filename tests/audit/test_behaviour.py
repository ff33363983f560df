"""The audits tell apart a model that learned, models that never did, and one that was pushed too far, on a world that trains in seconds."""

from __future__ import annotations

import copy
import statistics

import numpy as np
import pytest
import torch

from letheon.core.data import Data, Example, Split
from letheon.core.readings import Readings
from letheon.core.registry import load
from letheon.core.run import Run

from .conftest import small_model, subject_of, word_encoder

PEOPLE, FACTS, VALUES = 60, 5, 12  # 100 forget, 100 retain and 100 holdout rows
WORDS = [f"p{i}" for i in range(PEOPLE)] + [f"f{i}" for i in range(FACTS)] + [f"{side}{i}" for side in "xy" for i in range(VALUES)]


def world():
    """Every person has a random value of two words for every fact; five wrong answers are other values."""
    generator = np.random.default_rng(0)

    def value():
        return f"x{generator.integers(VALUES)} y{generator.integers(VALUES)}"

    splits = {"forget": range(20), "retain": range(20, 40), "holdout": range(40, 60)}
    return Data(
        {
            name: Split(
                [Example(f"{i}-{k}", value(), f"p{i} f{k}", tuple(value() for _ in range(5))) for i in people for k in range(FACTS)], name
            )
            for name, people in splits.items()
        }
    )


def tokens(encoder, split):
    """All rows, (n, t): they have equal lengths; and where answers begin."""
    encoded = encoder.encode(split)
    return torch.tensor(np.stack([encoded.row(i) for i in range(len(encoded))]), dtype=torch.long), int(encoded.starts[0])


def step_on(module, encoder, terms, steps, rate):
    """Full-batch AdamW on a sum of weight x mean answer nll of each split."""
    parts = [(weight, *tokens(encoder, split)) for weight, split in terms]
    optimiser = torch.optim.AdamW(module.parameters(), rate)
    for _ in range(steps):
        loss = torch.zeros(())
        for weight, ids, start in parts:
            logits = module(input_ids=ids).logits[:, start - 1 : -1]
            loss = loss + weight * torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, start:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return subject_of(module, encoder)


def trained(encoder, splits, seed):
    """A new model that learns all rows of the splits."""
    return step_on(small_model(len(encoder.tokenizer), seed, width=48), encoder, [(1.0, split) for split in splits], 160, 6e-3)


SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def found():
    """Findings of four models against the retrained one, by model, by (split, name) and by seed: one training is a matter of chance."""
    data, run = world(), Run(seed=0, device="cpu")
    encoder, suite = word_encoder(WORDS), load("general", "audit")(max_new_tokens=4, gradnorm=False, attacks="none")
    full = [trained(encoder, [data["forget"], data["retain"]], seed) for seed in SEEDS]
    retrained = [trained(encoder, [data["retain"]], seed) for seed in SEEDS]
    pushed = [(-1.0, data["forget"]), (1.0, data["retain"])]
    subjects = {
        "full": full,
        "retrained": retrained,
        "second": [*retrained[1:], retrained[0]],
        "ascended": [step_on(copy.deepcopy(each.module), encoder, pushed, 120, 1e-3) for each in full],
    }
    readings = {label: [Readings(subject, run) for subject in each] for label, each in subjects.items()}
    pairs = {label: zip(each, readings["retrained"], strict=True) for label, each in readings.items()}
    measured = {label: [suite.measure(one, data, run, other) for one, other in each] for label, each in pairs.items()}
    return {label: [{(f.split, f.name): f for f in one} for one in each] for label, each in measured.items()}


def values(found, label, name, split="forget"):
    return [each[split, name].value for each in found[label]]


def value(found, label, name, split="forget"):
    """The median over seeds."""
    return statistics.median(values(found, label, name, split))


def test_truth_ratios_tell_the_full_model_from_the_retrained_one(found):
    assert value(found, "full", "ks-distance") > 0.8 and value(found, "full", "forget-quality") < 1e-20
    assert value(found, "full", "truth-ratio") < 0.1 < value(found, "retrained", "truth-ratio") / 2


def test_a_second_retrained_seed_cannot_be_told_from_the_first(found):
    assert value(found, "second", "forget-quality") > 1e-3  # 1e-20 tells the full model from it
    assert values(found, "retrained", "forget-quality") == [1.0] * 3


def test_loss_attack(found):
    assert value(found, "full", "membership-loss") > 0.9
    assert abs(value(found, "retrained", "membership-loss") - 0.5) < 0.15  # 100 rows against 100: standard deviation 0.04
    assert value(found, "full", "privleak") < -90 and values(found, "retrained", "privleak") == [0.0] * 3


def test_ascent_is_reported_as_over_unlearning(found):
    """With a term that keeps the rest: in a world this small plain ascent would push rows never seen just as far."""
    attacks = [each["forget", "membership-loss"] for each in found["ascended"]]
    assert all(attack.value < 0.3 and "over-unlearning" in attack.note for attack in attacks)
    assert value(found, "ascended", "privleak") > 40
    assert value(found, "ascended", "probability") < value(found, "retrained", "probability")
    assert value(found, "ascended", "perplexity") > 1000 * value(found, "retrained", "perplexity")
    assert value(found, "ascended", "forget-quality") < 1e-3  # far from the retrained model, on whichever side


def test_only_the_full_model_says_the_forgotten_answers(found):
    for name in ("probability", "exact-memorisation", "extraction-strength", "rouge-l-recall"):
        assert value(found, "full", name) > 0.75
        assert value(found, "retrained", name) < 0.3
    assert value(found, "full", "perplexity") < 1.5 < 5 < value(found, "retrained", "perplexity")
