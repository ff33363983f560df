"""The scores behind the coresets, each against a plain computation."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from letheon.adapt.finetune import Finetune
from letheon.core.data import Data, Example, Split
from letheon.core.errors import MethodError
from letheon.core.readings import Readings
from letheon.core.run import Run, kept_as_found
from letheon.core.subject import Subject
from letheon.erase.npo import NPO
from letheon.select.grand import Grand
from letheon.select.keyword import Keyword
from letheon.select.min_k import MinK
from letheon.select.moderate import mean_states, moderate_scores
from letheon.testing import toy_subject
from letheon.train.feed import Feed
from letheon.train.loop import feed_for


def plain_norms(subject: Subject, split: Split, loss) -> np.ndarray:
    """The norm of the gradient of `loss(nll of the answer tokens of one row)` over all weights, row by row."""
    encoded, out = subject.encoder.encode(split), []
    with kept_as_found(subject.module):
        subject.module.requires_grad_(True)
        for i in range(len(split)):
            ids, start = torch.from_numpy(encoded.row(i).astype("int64")), int(encoded.starts[i])
            logp = subject.module(input_ids=ids[None]).logits[0, start - 1 : -1].log_softmax(-1)
            found = torch.autograd.grad(loss(i, -logp.gather(-1, ids[start:, None])[:, 0]), list(subject.module.parameters()))
            out.append(math.sqrt(sum(float(part.double().square().sum()) for part in found)))
    return np.array(out)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_grand_is_the_norm_of_one_rows_gradient(architecture, data, run):
    subject, split = toy_subject(architecture=architecture), data["forget"]
    mean, total = (Grand(per_token=flag).scores(split, data, run, subject) for flag in (True, False))
    assert mean == pytest.approx(plain_norms(subject, split, lambda i, nll: nll.mean()), rel=1e-4)
    assert total == pytest.approx(plain_norms(subject, split, lambda i, nll: nll.sum()), rel=1e-4)


def test_grand_of_sums_is_the_gradient_of_npo_at_the_start(data, subject, run):
    """2 / beta softplus(-beta (now - frozen)) has the slope -2 sigmoid(0) = -1 in `now` where both are equal."""
    npo = NPO(retain="none", beta=0.3)
    feed: Feed = feed_for(npo, subject, data, run)
    npo.start(subject, feed, run)

    def loss(i, nll):
        return 2 / 0.3 * torch.nn.functional.softplus(-0.3 * (nll.sum() - npo.frozen[i]))

    found = Grand(per_token=False).scores(data["forget"], data, run, subject)
    plain = plain_norms(subject, data["forget"], loss)
    assert found == pytest.approx(plain, rel=1e-4)
    assert np.argsort(-found).tolist() == np.argsort(-plain).tolist()


def test_grand_follows_a_trajectory(data, subject, run):
    """One epoch: the mean of the norms at the start and after it."""
    inner = {"name": "grad-ascent", "learning_rate": 1e-2, "batch_size": 4}
    apart = [Grand(inner=inner, epochs=epochs).scores(data["forget"], data, run, subject) for epochs in (0, 1, 2)]
    assert not np.allclose(apart[0], apart[1], rtol=1e-3)
    later = 2 * apart[1] - apart[0]
    last = 3 * apart[2] - 2 * apart[1]
    assert (later > 0).all() and (last > 0).all()
    assert not np.allclose(later, last, rtol=1e-3)  # the second epoch goes on from the first


def test_grand_does_not_take_over_a_model_that_others_need(data, run):
    subject = toy_subject()
    subject.disposable = True
    Grand(inner={"name": "grad-ascent", "steps": 1}, epochs=1).curate(data, run, subject)
    assert subject.module is not None


def test_grand_refuses_a_method_that_does_not_exist():
    with pytest.raises(MethodError, match="no erasing method called `nop`"):
        Grand(inner="nop")


def test_min_k_finds_the_rows_that_were_memorised(run):
    """Half of the rows are learned; they are the first half by score, and the last half by `least`."""
    rows = [Example(f"r{i}", f"item {i} costs {37 * i % 91} coins", f"What does item {i} cost?") for i in range(12)]
    data = Data({"forget": Split(rows, "forget"), "learned": Split(rows[::2], "learned")})
    settings = {"steps": 60, "learning_rate": 1e-2, "warmup": 0.0, "batch_size": 6}
    knower = Finetune(split="learned", **settings).apply(toy_subject(), data, run)
    assert [row.id for row in MinK(fraction=0.5).curate(data, run, knower)["forget"]] == [row.id for row in rows[::2]]
    assert [row.id for row in MinK(fraction=0.5, keep="least").curate(data, run, knower)["forget"]] == [row.id for row in rows[1::2]]


@pytest.mark.parametrize("share", [0.01, 0.4, 1.0])
def test_min_k_is_the_mean_of_the_lowest(share, data, subject, run):
    answers = Readings(subject, run).answers(data["forget"])
    wanted = []
    for i in range(8):
        values = np.sort(answers.log_probability[answers.tokens(i)])
        wanted.append(values[: max(1, int(share * len(values)))].mean())
    assert MinK(share=share).scores(data["forget"], data, run, subject) == pytest.approx(wanted, rel=1e-6)


def test_moderate_prefers_the_median_distance():
    """0, 1, 2, 3, 10 have the mean 3.2 and the distances 3.2, 2.2, 1.2, 0.2, 6.8 with the median 2.2."""
    scores = moderate_scores(np.array([[0.0], [1], [2], [3], [10]]), clusters=1, seed=0)
    assert scores == pytest.approx([-1.0, 0.0, -1.0, -2.0, -4.6])
    assert scores.argmax() == 1


def test_moderate_takes_each_cluster_by_itself():
    """Two copies far apart: the same scores twice."""
    line = np.array([[0.0], [1], [2], [3], [10]])
    scores = moderate_scores(np.concatenate([line, line + 1000]), clusters=2, seed=0)
    assert scores == pytest.approx([-1.0, 0.0, -1.0, -2.0, -4.6] * 2)
    assert moderate_scores(np.ones((3, 2)), clusters=4, seed=0).tolist() == [0.0, 0.0, 0.0]  # fewer points than clusters


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_mean_states_are_those_of_rows_alone(architecture, data):
    subject = toy_subject(architecture=architecture)
    encoded = subject.encoder.encode(data["forget"])
    found = mean_states(subject, data["forget"], tokens_per_batch=128)
    for i in range(8):
        ids = torch.from_numpy(encoded.row(i).astype("int64"))[None]
        with torch.no_grad():
            states = subject.module(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
        assert found[i] == pytest.approx(states.double().mean(0).numpy(), rel=1e-4, abs=1e-5)


TEXTS = Data(
    {
        "forget": Split(
            [Example("a", "The river Oona, the river Belt and the sea.", "Where?"), Example("b", "It is Oona!", "What?")], "forget"
        ),
        "retain": Split([Example(text, text) for text in ("the sea and the land", "The land is wide", "the end")], "retain"),
    }
)


def shortened(fraction: float, data: Data = TEXTS) -> list[str]:
    return [row.answer for row in Keyword(fraction=fraction).curate(data, Run(seed=0))["forget"]]


def test_keywords_by_hand():
    """n = 3 retain rows: `river` 2 ln 4 = 2.77, Oona and Belt ln 4, `sea` and `and` ln 2, `the` 3 ln (4 / 4) = 0."""
    assert shortened(1 / 6) == ["river river", "It"]
    assert shortened(0.5) == ["river Oona, river Belt", "It"]  # 3 of 6; `It` and `Oona!` weigh ln 4 both, the first one comes first
    assert shortened(0.67) == ["river Oona, river Belt and", "It Oona!"]  # 4 of 6 and 2 of 3: `is` has been seen among the retain rows
    assert shortened(0.99) == ["river Oona, river Belt and sea.", "It Oona!"]
    assert shortened(1) == [row.answer for row in TEXTS["forget"]]


def test_keywords_keep_the_rest_of_a_row(run):
    found = Keyword(fraction=0.5).curate(TEXTS, run)
    assert [(row.id, row.prompt) for row in found["forget"]] == [("a", "Where?"), ("b", "What?")]
    assert found["forget-all"].digest == TEXTS["forget"].digest
    assert found["retain"].digest == TEXTS["retain"].digest and "forget-rest" not in found


def test_keywords_without_retain_rows_count_the_forget_rows():
    """n = 2: `oona` is in both rows and weighs 0; `river` 2 ln (3 / 2) stays first."""
    alone = Data({"forget": TEXTS["forget"]})
    assert shortened(1 / 6, alone) == ["The the the", "It"]  # `the` occurs three times in the row and in one row only
    assert shortened(1 / 3, alone) == ["The river the river the", "It"]


def test_keyword_weights_against_a_plain_count(data):
    """Every kept word weighs at least as much as every one that was dropped."""
    n, rows_with = len(data["retain"]), Counter()
    for row in data["retain"]:
        rows_with.update({word.strip(".").casefold() for word in row.answer.split()})
    for before, after in zip(data["forget"], Keyword(fraction=0.4).curate(data, Run(seed=0))["forget"], strict=True):
        words = Counter(word.strip(".").casefold() for word in before.answer.split())
        kept = {word.strip(".").casefold() for word in after.answer.split()}
        weight = {word: times * math.log((1 + n) / (1 + rows_with[word])) for word, times in words.items()}
        assert len(kept) == max(1, int(0.4 * len(words)))
        assert min(weight[word] for word in kept) >= max((weight[word] for word in words if word not in kept), default=0)
