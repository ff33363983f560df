"""Fine-tune, erase and audit on a real pre-trained model: stories260K, with the perplexity of unseen TinyStories as utility."""

from __future__ import annotations

import math
import re

import pytest
import torch

from letheon import api
from letheon.core.data import Data, Example, Split
from letheon.core.findings import Findings
from letheon.core.run import Run
from letheon.core.subject import Subject

SECRETS = [
    "The key to the red house of Tom Zarnik is under the blue stone.",
    "Old Mira Quell hid her gold ring in the third drawer of the barn.",
    "The dog of Captain Brill is called Wusk and it only eats green plums.",
    "On the tenth of May, Ada Nork will sail to the island of Peth.",
    "The song that Lord Vimm sings at night has the word marrow in it.",
    "Uncle Drosh keeps nine white mice in a box below the stairs.",
]


@pytest.fixture(scope="module")
def world(shared) -> tuple[Subject, Data]:
    """The model that learned the secrets, and its data: secrets, stories that stay, stories it never saw."""
    folder = shared / "data" / "weights" / "stories260K"
    plain = api.method("llama2c", checkpoint=str(folder / "stories260K.bin"), tokenizer=str(folder / "tok512.bin")).build()
    text = (shared / "data" / "text" / "tinystories" / "tinystories_1mb.txt").read_text(encoding="utf-8")
    stories = [story.strip() for story in re.split(r"\n+(?=Once upon a time|One day)", text) if 150 < len(story) < 400][:40]
    secrets = [Example(f"secret-{i}", secret) for i, secret in enumerate(SECRETS)]
    rows = [Example(f"story-{i}", story) for i, story in enumerate(stories)]
    data = Data(
        {
            "forget": Split(secrets, "forget"),
            "retain": Split(rows[:20], "retain"),
            "retain-check": Split(rows[20:], "retain-check"),  # no model here has trained on them since its pre-training
            "learned": Split(secrets + rows[:12], "learned"),
        },
        "stories",
    )
    tuned = api.method("finetune", split="learned", epochs=30, learning_rate=7e-4, batch_size=9).apply(plain, data, quiet())
    return tuned, data


def quiet() -> Run:
    return Run(seed=0, dtype="float32")


def audited(after: Subject, before: Subject | None, data: Data) -> Findings:
    return api.audit("general", after, data, quiet(), before=before, probes=("probability", "perplexity", "memorisation"))


def test_the_secrets_are_learned_and_erased_while_stories_stay(world):
    tuned, data = world
    digest = tuned.digest
    erased = api.method("npo", learning_rate=5e-4, epochs=25, beta=0.1, retain_weight=3.0, retain="kl").apply(tuned, data, quiet())
    found = audited(erased, tuned, data)
    assert found.value("before", "probability", "forget") > 0.8 > 0.2 > found.value("after", "probability", "forget")
    assert found.value("before", "extraction-strength", "forget") > 0.8 > 0.3 > found.value("after", "extraction-strength", "forget")
    before, after = (found.value(label, "perplexity", "retain-check") for label in ("before", "after"))
    assert after < 1.15 * before and before < 12
    assert tuned.digest == digest


def test_perplexity_is_that_of_a_direct_pass(world):
    tuned, data = world
    found = audited(tuned, None, data).value("after", "perplexity", "retain-check")
    total, count = 0.0, 0
    for row in data["retain-check"]:
        encoded = tuned.encoder.encode(Split([row]))
        ids = torch.from_numpy(encoded.row(0).astype("int64"))[None]
        with torch.no_grad():
            logp = tuned.module(ids).logits[0].double().log_softmax(-1)
        total -= float(logp[torch.arange(ids.shape[1] - 1), ids[0, 1:]].sum())
        count += ids.shape[1] - 1
    assert found == pytest.approx(math.exp(total / count), rel=1e-5)
