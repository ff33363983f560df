"""Fine-tuning: weights of prompt tokens, and what the sum is divided by."""

from __future__ import annotations

import pytest
import torch

from letheon.adapt.finetune import Finetune
from letheon.core.data import Data

from .fact_world import gradient, said, trainer, untrained


@pytest.mark.parametrize("prompt_weight", [0.0, 0.3, 1.0])
def test_loss_is_the_weighted_sum_over_answer_tokens(fact_data, run, prompt_weight):
    subject = untrained(fact_data)
    ready = trainer(Finetune(split="forget", batch_size=5, prompt_weight=prompt_weight), subject, fact_data, run)
    rows = ready.feed.plan[0]
    found = ready.gradients(rows).means["nll"]
    encoded, total, tokens = subject.encoder.encode(fact_data["forget"]), 0.0, 0
    for i in rows["forget"]:
        ids, start = torch.from_numpy(encoded.row(int(i)).astype("int64")), int(encoded.starts[i])
        with torch.no_grad():
            logp = subject.module(input_ids=ids[None]).logits[0].double().log_softmax(-1)
        nll = -logp[:-1].gather(-1, ids[1:, None]).squeeze(-1)
        total += float(nll[start - 1 :].sum()) + prompt_weight * float(nll[: start - 1].sum())
        tokens += len(ids) - start
    assert found == pytest.approx(total / tokens, rel=1e-5)


def test_prompt_weight_changes_the_gradient(fact_data, run):
    subject = untrained(fact_data)
    without, with_prompts = (gradient(trainer(Finetune(batch_size=8, prompt_weight=w), subject, fact_data, run)) for w in (0.0, 0.5))
    assert float((without - with_prompts).abs().max()) > 1e-3


def test_it_reads_only_its_split(fact_data, run):
    after = Finetune(split="mine", steps=2, learning_rate=1e-3).apply(untrained(fact_data), Data({"mine": fact_data["retain"]}), run)
    assert after.lineage[-1].settings["split"] == "mine"


def test_it_learns(knower, fact_data):
    assert said(knower, fact_data["forget"]).exact > 0.95
    assert said(knower, fact_data["retain"]).exact > 0.95
