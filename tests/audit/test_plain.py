"""The whole `tofu` suite against a straightforward implementation: one row at a time, transformers, rouge_score, scipy and sklearn."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
import torch

from letheon.core.readings import Readings
from letheon.core.registry import load
from letheon.core.run import Run

TOLERANCE = {"rel": 1e-5, "abs": 1e-5}


def facts(subject, prompt, answer):
    """Log-probabilities (t, v) in float32, and the answer's tokens with the end token."""
    tokenizer = subject.encoder.tokenizer
    head = tokenizer(subject.encoder.template.replace("{prompt}", prompt))["input_ids"]
    tail = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    logits = subject.module(input_ids=torch.tensor([head + tail])).logits[0]
    return logits[len(head) - 1 : -1].log_softmax(-1), torch.tensor(tail)


@torch.no_grad()
def nll(subject, prompt, answer):
    logp, tokens = facts(subject, prompt, answer)
    return -logp[torch.arange(len(tokens)), tokens].mean().item()


@torch.no_grad()
def say(subject, prompt, most):
    tokenizer = subject.encoder.tokenizer
    head = tokenizer(subject.encoder.template.replace("{prompt}", prompt), return_tensors="pt")["input_ids"]
    out = subject.module.generate(head, attention_mask=torch.ones_like(head), max_new_tokens=most, do_sample=False)
    return tokenizer.decode(out[0, head.shape[1] :], skip_special_tokens=True).strip()


def plain_rows(subject, split, most):
    """Everything the suite asks of one split."""
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    out = {"nll": [], "rouge": [], "ratio": [], "share": [], "exact": [], "extracted": [], "min-k": [], "min-k++": []}
    for row in split:
        out["nll"].append(nll(subject, row.prompt, row.answer))
        out["rouge"].append(scorer.score(row.answer, say(subject, row.prompt, most))["rougeL"].recall)
        if row.wrong:
            wrong = [nll(subject, row.prompt, text) for text in row.wrong]
            true = nll(subject, row.prompt, row.paraphrase or row.answer)
            out["ratio"].append(math.exp(-sum(wrong) / len(wrong)) / math.exp(-true))
            own = math.exp(-out["nll"][-1])
            out["share"].append(own / (own + sum(math.exp(-each) for each in wrong)))
        with torch.no_grad():
            logp, tokens = facts(subject, row.prompt, row.answer)
            logp, tokens = logp[:-1].double(), tokens[:-1]
        right = (logp.argmax(-1) == tokens).tolist()
        out["exact"].append(sum(right) / len(right))
        out["extracted"].append(max((1 - k / len(right) for k in range(len(right)) if all(right[k:])), default=0.0))
        own = logp[torch.arange(len(tokens)), tokens]
        mean = (logp.exp() * logp).sum(-1)
        spread = ((logp.exp() * logp**2).sum(-1) - mean**2).clamp(min=1e-6).sqrt()
        k = max(1, int(0.4 * len(tokens)))
        out["min-k"].append(own.sort().values[:k].mean().item())
        out["min-k++"].append(((own - mean) / spread).sort().values[:k].mean().item())
    return {key: np.array(values) for key, values in out.items()}


def gradient_scores(subject, split):
    scores = []
    for row in split:
        logp, tokens = facts(subject, row.prompt, row.answer)
        loss = -logp[:-1][torch.arange(len(tokens) - 1), tokens[:-1]].mean()
        grads = torch.autograd.grad(loss, list(subject.module.parameters()))
        scores.append(-torch.stack([grad.norm() for grad in grads]).mean().item())
    return np.array(scores)


MOST = 12


@pytest.fixture(scope="module")
def both(tofu_like, toys):
    """The suite's findings by (split, name), and the plain numbers of model and reference by split."""
    run = Run(seed=3, device="cpu")
    readings, reference = (Readings(subject, run) for subject in toys)
    found = load("tofu", "audit")(max_new_tokens=MOST, attacks="none").measure(readings, tofu_like, run, reference)
    plain = {name: plain_rows(toys[0], split, MOST) for name, split in tofu_like.items()}
    other = {name: plain_rows(toys[1], tofu_like[name], MOST) for name in ("forget", "holdout")}
    return {(f.split, f.name): f for f in found}, plain, other


SPLITS = ("forget", "retain-check", "real-authors", "world-facts")


@pytest.mark.parametrize("where", SPLITS)
def test_probability_rouge_and_truth_ratio(both, where):
    found, plain, _ = both
    rows = plain[where]
    among = where in ("real-authors", "world-facts")
    wanted = {
        "probability": rows["share"] if among else np.exp(-rows["nll"]),
        "rouge-l-recall": rows["rouge"],
        "truth-ratio": np.minimum(rows["ratio"], 1 / rows["ratio"]) if where == "forget" else np.maximum(0, 1 - rows["ratio"]),
    }
    for name, values in wanted.items():
        finding = found[where, name]
        assert finding.value == pytest.approx(values.mean(), **TOLERANCE) and finding.n == len(values)
        assert finding.rows == pytest.approx(values, **TOLERANCE)
        assert finding.low <= finding.value <= finding.high


def test_the_toy_generations_overlap_with_some_answers(both):
    """Otherwise the ROUGE comparison above would compare zeros."""
    assert sum((plain["rouge"] > 0).sum() for plain in both[1].values()) >= 3


def test_memorisation(both):
    found, plain, _ = both
    for where in ("forget", "retain-check", "holdout"):
        assert found[where, "exact-memorisation"].rows == pytest.approx(plain[where]["exact"], **TOLERANCE)
        assert found[where, "extraction-strength"].rows == pytest.approx(plain[where]["extracted"], **TOLERANCE)
    assert sum((plain["exact"] > 0).sum() for plain in both[1].values()) >= 3


def test_forget_quality_and_utility(both):
    from scipy.stats import hmean, ks_2samp

    found, plain, other = both
    wanted = ks_2samp(plain["forget"]["ratio"], other["forget"]["ratio"])
    assert found["forget", "forget-quality"].value == pytest.approx(wanted.pvalue, rel=1e-6)
    assert found["forget", "ks-distance"].value == pytest.approx(wanted.statistic, rel=1e-9)
    parts = [found[where, name].value for where in SPLITS[1:] for name in ("probability", "rouge-l-recall", "truth-ratio")]
    utility = found["", "model-utility"]
    assert utility.value == pytest.approx(hmean(parts) if min(parts) > 0 else 0.0, **TOLERANCE)
    assert len(utility.extra["parts"]) == 9 and utility.n == 10 + 6 + 5


def test_membership_and_privleak(both, tofu_like, toys):
    from sklearn.metrics import roc_auc_score

    found, plain, other = both
    members, others = plain["forget"], plain["holdout"]
    scores = {
        "loss": [-members["nll"], -others["nll"]],
        "zlib": [
            -side["nll"] / [len(zlib.compress(row.answer.encode())) for row in tofu_like[where]]
            for where, side in (("forget", members), ("holdout", others))
        ],
        "min-k": [members["min-k"], others["min-k"]],
        "min-k++": [members["min-k++"], others["min-k++"]],
        "reference": [other[where]["nll"] - plain[where]["nll"] for where in ("forget", "holdout")],
        "gradnorm": [gradient_scores(toys[0], tofu_like[where]) for where in ("forget", "holdout")],
    }
    labels = [1] * len(tofu_like["forget"]) + [0] * len(tofu_like["holdout"])
    for attack, sides in scores.items():
        finding = found["forget", f"membership-{attack}"]
        assert finding.rows == pytest.approx(sides[0], **TOLERANCE)
        assert finding.extra["holdout_rows"] == pytest.approx(sides[1], **TOLERANCE)
        assert finding.value == pytest.approx(roc_auc_score(labels, np.concatenate(sides)), abs=1e-9)
    area = roc_auc_score(labels, np.concatenate(scores["min-k"]))
    never = roc_auc_score(labels, np.concatenate([other["forget"]["min-k"], other["holdout"]["min-k"]]))
    assert found["forget", "privleak"].value == pytest.approx(100 * ((1 - area) - (1 - never)) / (1 - never), abs=1e-6)
