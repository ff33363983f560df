"""Needle: what the card says a correct implementation must show."""

from __future__ import annotations

import copy

import pytest
import torch

from letheon.core.batching import by_length, collate
from letheon.core.data import Data, Split
from letheon.core.errors import DataError, MethodError, SubjectError
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.erase._curved import mean_nll
from letheon.erase._linears import down_projections
from letheon.erase.grad_ascent import GradAscent
from letheon.erase.needle import Needle
from letheon.maths.concepts import compared, concept_share, concept_zscores


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_identities_of_the_scores():
    v, e = random(32), random(400, 32, seed=1)
    same = compared(v, v, e, e, 20)
    assert same["cosine"] == pytest.approx(1, abs=1e-12) and same["distance"] == 0 and same["jaccard"] == 1
    scaled = compared(v, 3 * v, e, e, 20)
    assert scaled["cosine"] == pytest.approx(1, abs=1e-12) and scaled["jaccard"] == 1
    assert scaled["distance"] == pytest.approx(2 * float(v.norm()), rel=1e-12)
    turned = compared(v, -v, e, e, 20)
    assert turned["cosine"] == pytest.approx(-1, abs=1e-12) and turned["jaccard"] == 0
    rotation, other = torch.linalg.qr(random(32, 32, seed=2)).Q, random(32, seed=3)
    plain, rotated = compared(v, other, e, e, 20), compared(rotation @ v, rotation @ other, e @ rotation.T, e @ rotation.T, 20)
    assert plain == pytest.approx(rotated, rel=1e-9)


def test_chance_has_a_score_of_about_zero():
    e, words = random(400, 32), torch.zeros(400, dtype=torch.bool)
    words[:10] = True
    one, two = (concept_share(random(300, 32, seed=k), e, words, 20) for k in (1, 2))
    scores = concept_zscores(one, two, words, 20)
    assert abs(float(scores.mean())) < 0.3 and 0.7 < float(scores.std()) < 1.3
    full = concept_share(e[:10].sum(0)[None], e, words, 20)
    assert float(concept_zscores(full, two, words, 20)) > 5


def topics(data: Data, topic: str = "home") -> Data:
    """The facts cut by relation: one kind is to be forgotten for everybody."""
    rows = list(data["full"])
    forget = [row for row in rows if row.id.endswith(topic)]
    retain = [row for row in rows if not row.id.endswith(topic)]
    return Data({"forget": Split(forget, "forget"), "retain": Split(retain, "retain")}, "topics")


def batches(subject: Subject, split) -> list:
    encoded = subject.encoder.encode(split)
    return [collate(encoded, rows, subject.encoder.pad) for rows in by_length(encoded.lengths, 4096)]


ONE = {"least": 0.0, "margin": 0.0, "vectors": 1}


def test_exactly_one_column_moves_by_the_length_of_the_noise(knower, fact_data, run):
    after = Needle(**ONE, noise=0.5).apply(knower, topics(fact_data), run)
    found = after.lineage[-1].notes["vectors"][0]
    for name, new in after.module.state_dict().items():
        old = knower.module.state_dict()[name]
        if name == f"{found['layer']}.weight":
            moved = (new != old).any(0).nonzero().flatten().tolist()
            assert moved == [found["column"]]
            column = old[:, found["column"]]
            assert found["distance"] == pytest.approx(0.5 * float(column.norm()), rel=0.3)  # sqrt(64) draws
            assert found["distance"] == pytest.approx(float((new - old).norm()), rel=1e-4)
        else:
            assert torch.equal(new, old)


def test_a_prompt_that_does_not_use_the_vector_keeps_its_logits(knower, fact_data, run):
    place = Needle(**ONE).apply(knower, topics(fact_data), run).lineage[-1].notes["vectors"][0]
    module = copy.deepcopy(knower.module)
    with torch.no_grad():  # its activation is silu(gate) * up: no gate, no activation
        module.get_submodule(place["layer"].replace("down_proj", "gate_proj")).weight[place["column"]] = 0
    silent = Subject(module, knower.encoder)
    after = Needle(**ONE).apply(silent, topics(fact_data), run)
    assert after.lineage[-1].notes["vectors"][0]["column"] == place["column"]
    ids = batches(knower, fact_data["forget"])[0].ids
    with torch.no_grad():
        assert torch.equal(silent.module(input_ids=ids).logits, after.module(input_ids=ids).logits)
        used = Needle(**ONE).apply(knower, topics(fact_data), run)
        assert not torch.equal(knower.module(input_ids=ids).logits, used.module(input_ids=ids).logits)


def test_a_planted_vector_is_found_first_and_silenced(stranger, fact_data, run):
    words = sorted(word for word in stranger.encoder.tokenizer.get_vocab() if word.startswith("bird") and word != "bird")[:10]
    tokens = stranger.encoder.tokenizer.convert_tokens_to_ids(words)
    module = copy.deepcopy(stranger.module)
    name, part = list(down_projections(module).items())[1]
    with torch.no_grad():
        part.weight[:, 17] = 40 * module.lm_head.weight[tokens].sum(0)
        ids = batches(stranger, fact_data["retain"])[0].ids
        seen = []
        handle = part.register_forward_pre_hook(lambda part, given: seen.append(given[0][..., 17]))
        planted = Subject(module, stranger.encoder)
        before = module(input_ids=ids).logits.softmax(-1)[..., tokens].sum(-1)
        handle.remove()
        after = Needle(words=words, top=10, margin=0.0, vectors=1, least=5.0).apply(planted, fact_data, run)
        now = after.module(input_ids=ids).logits.softmax(-1)[..., tokens].sum(-1)
    found = after.lineage[-1].notes["vectors"][0]
    assert (found["layer"], found["column"]) == (name, 17) and found["score"] > 5
    assert len(set(found["said"]) & set(words)) >= 6
    used = seen[0] > 0.1
    assert used.sum() > 20 and float(now[used].mean()) < 0.8 * float(before[used].mean())


def test_the_behaviour_of_ascent_hides_what_needle_shows(knower, fact_data, run):
    """A few ascent steps raise the loss of a topic and leave its vectors; needle changes them and spares the other topics."""
    data = topics(fact_data)
    settings = {"steps": 12, "learning_rate": 3e-4, "batch_size": 48, "schedule": "constant", "warmup": 0.0, "retain": "none"}
    ascent = GradAscent(**settings).apply(knower, data, run)
    after = Needle(least=1.0, vectors=10, candidates=30, margin=1.5).apply(knower, data, run)
    forget, retain = (batches(knower, data[name]) for name in ("forget", "retain"))
    start = mean_nll(knower.module, forget), mean_nll(knower.module, retain)
    assert mean_nll(ascent.module, forget) > 3 * start[0]
    for found in after.lineage[-1].notes["vectors"]:
        old, new = (down_projections(s.module)[found["layer"]].weight[:, found["column"]].detach() for s in (knower, ascent))
        assert float(torch.nn.functional.cosine_similarity(old, new, dim=0)) > 0.99
        assert found["cosine"] < 0.6 and found["jaccard"] < 0.6
    rise = mean_nll(after.module, forget) - start[0], mean_nll(after.module, retain) - start[1]
    assert rise[0] > 0.02 and rise[0] > 1.5 * rise[1]


def test_it_works_in_bfloat16(knower, fact_data, run):
    half = Subject(copy.deepcopy(knower.module).to(torch.bfloat16), knower.encoder)
    after = Needle(**ONE).apply(half, topics(fact_data), run)
    moved = [name for name, new in after.module.state_dict().items() if not torch.equal(new, half.module.state_dict()[name])]
    assert moved == [f"{after.lineage[-1].notes['vectors'][0]['layer']}.weight"]


def test_what_it_refuses(knower, fact_data, run):
    from peft import LoraConfig, get_peft_model

    data = topics(fact_data)
    wrapped = get_peft_model(copy.deepcopy(knower.module), LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(SubjectError, match="has an adapter around them. Merge it first"):
        Needle().apply(Subject(wrapped, knower.encoder), data, run)
    with pytest.raises(MethodError, match="No vector of `.*` says the words of the concept"):
        Needle(least=1e6).apply(knower, data, run)
    with pytest.raises(MethodError, match="None of 2 vectors hurts forget answers 2 times as much"):
        Needle(least=0.0, noise=1e-30, candidates=2, rows=8).apply(knower, data, run)
    with pytest.raises(DataError, match="No token sets the forget answers apart"):
        Needle().apply(knower, Data({"forget": data["retain"], "retain": data["retain"]}), run)


def test_the_same_seed_draws_the_same_noise(knower, fact_data, run):
    one, two, other = (Needle(**ONE).apply(knower, topics(fact_data), Run(seed, dtype="float32", device="cpu")) for seed in (0, 0, 1))
    weights = [torch.cat([part.weight.flatten() for part in down_projections(s.module).values()]) for s in (one, two, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
