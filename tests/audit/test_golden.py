"""The `tofu` suite on two real models equals what OpenUnlearning measured on one of them: aggregates and rows.

The peer's conventions differ in three places: its membership scores are loss-like (ours are minus theirs), its extraction strength ends
at 1 / T (`floor="peer"`), and it adds 1e-10 to denominators.
"""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from letheon.core.data import Data, Example, Split
from letheon.core.encode import TextEncoder
from letheon.core.readings import Readings
from letheon.core.registry import load
from letheon.core.run import Run
from letheon.core.subject import Subject

FILES = {
    "forget": "forget10_perturbed.json",
    "retain-check": "retain_perturbed.json",
    "real-authors": "real_authors_perturbed.json",
    "world-facts": "world_facts_perturbed.json",
    "holdout": "holdout10.json",
}
PEER = {"forget": "forget", "retain-check": "retain", "real-authors": "ra", "world-facts": "wf"}
ATTACKS = {"loss": "loss", "zlib": "zlib", "min-k": "min_k", "min-k++": "min_k_plus_plus", "reference": "reference"}
GRADIENTS = 60  # rows of each side of the gradient attack: a backward pass for each


def read_split(path, name):
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return Split(
        [
            Example(f"{name}-{i}", row["answer"], row["question"], tuple(row.get("perturbed_answer", ())), row.get("paraphrased_answer"))
            for i, row in enumerate(found)
        ],
        name,
    )


def read_subject(folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return Subject(module, TextEncoder(AutoTokenizer.from_pretrained(folder)), name=folder.name)


@pytest.fixture(scope="module")
def peer(shared):
    with gzip.open(shared / "parity" / "openunlearning-tofu-micro-full-forget10.json.gz") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def found(shared):
    """All findings on the full model, by (split, name)."""
    data = Data({name: read_split(shared / "data" / "tofu" / file, name) for name, file in FILES.items()}, "tofu")
    run = Run(seed=0, device="cpu")
    readings, reference = (Readings(read_subject(shared / "parity" / name), run) for name in ("tofu-micro-full", "tofu-micro-retain90"))
    findings = load("tofu", "audit")(gradnorm=False, attacks="none").measure(readings, data, run, reference)
    findings += load("membership", "audit")(attacks=("gradnorm",), limit=GRADIENTS).measure(readings, data, run)
    findings += load("memorisation", "audit")(splits=("forget",), floor="peer").measure(readings, data, run)  # later ones win
    return {(f.split, f.name): f for f in findings}


def peer_rows(metric, key="score"):
    """The peer's per-row values in the order of the file."""
    values = metric["value_by_index"]
    return np.array([values[str(i)][key] for i in range(len(values))])


@pytest.mark.parametrize("where", PEER)
def test_probability(found, peer, where):
    among = "_normalised" if where in ("real-authors", "world-facts") else ""
    wanted = peer[f"{PEER[where]}_Q_A_Prob{among}"]
    assert found[where, "probability"].value == pytest.approx(wanted["agg_value"], rel=1e-4)
    assert found[where, "probability"].rows == pytest.approx(peer_rows(wanted, "prob"), rel=1e-4)


@pytest.mark.parametrize("where", PEER)
def test_rouge(found, peer, where):
    wanted = peer[f"{PEER[where]}_Q_A_ROUGE"]
    rows = np.array(found[where, "rouge-l-recall"].rows)
    assert (np.abs(rows - peer_rows(wanted, "rougeL_recall")) > 1e-9).sum() <= 3  # greedy ties
    assert found[where, "rouge-l-recall"].value == pytest.approx(wanted["agg_value"], abs=2e-3)


@pytest.mark.parametrize("where", PEER)
def test_truth_ratio(found, peer, where):
    wanted = peer["forget_truth_ratio" if where == "forget" else f"{PEER[where]}_Truth_Ratio"]
    finding = found[where, "truth-ratio"]
    assert finding.value == pytest.approx(wanted["agg_value"], rel=1e-4)
    assert np.exp(finding.extra["log_ratio"]) == pytest.approx(peer_rows(wanted), rel=2e-4)


def test_forget_quality_and_utility(found, peer):
    assert found["forget", "forget-quality"].value == pytest.approx(peer["forget_quality"]["agg_value"], rel=1e-6)
    assert found["", "model-utility"].value == pytest.approx(peer["model_utility"]["agg_value"], rel=1e-4)
    assert len(found["", "model-utility"].extra["parts"]) == 9


def test_memorisation(found, peer):
    for name, metric in (("exact-memorisation", "exact_memorization"), ("extraction-strength", "extraction_strength")):
        assert found["forget", name].value == pytest.approx(peer[metric]["agg_value"], rel=1e-6)
        assert found["forget", name].rows == pytest.approx(peer_rows(peer[metric]), abs=1e-6)


@pytest.mark.parametrize("attack", ATTACKS)
def test_membership(found, peer, attack):
    wanted, finding = peer[f"mia_{ATTACKS[attack]}"], found["forget", f"membership-{attack}"]
    assert finding.value == pytest.approx(wanted["auc"], abs=1e-6)
    for side, rows in (("forget", finding.rows), ("holdout", finding.extra["holdout_rows"])):
        assert len(rows) == 400
        assert -np.array(rows) == pytest.approx(peer_rows(wanted[side]), rel=1e-4, abs=1e-4)


def test_gradient_attack(found, peer):
    wanted, finding = peer["mia_gradnorm"], found["forget", "membership-gradnorm"]
    assert finding.value == wanted["auc"] == 1.0 and finding.n == GRADIENTS
    for side, rows in (("forget", finding.rows), ("holdout", finding.extra["holdout_rows"])):
        assert -np.array(rows) == pytest.approx(peer_rows(wanted[side])[:GRADIENTS], rel=1e-3)


def test_privleak(found, peer):
    finding = found["forget", "privleak"]
    a, r = 1 - finding.extra["auc"], 1 - finding.extra["retrained"]
    assert finding.value == pytest.approx(100 * (a - r) / r, abs=1e-9)
    assert finding.value == pytest.approx(peer["privleak"]["agg_value"], abs=1e-6)
    assert finding.extra["retrained"] == pytest.approx(0.4801, abs=1e-4)  # the attack on a model that never knew


def test_the_retrained_model_never_knew(found):
    assert found["forget", "membership-loss"].extra["retrained"] == pytest.approx(0.4998, abs=1e-4)
    for finding in found.values():
        if finding.name.startswith("membership-") or finding.name in ("forget-quality", "probability"):
            assert finding.low <= finding.value <= finding.high
