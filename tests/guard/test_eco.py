"""ECO: what the card says a correct implementation must show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from letheon.audit.caught import Caught
from letheon.core.data import Example
from letheon.core.guard import unguard, watches
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.data.authors import Authors
from letheon.guard._corrupt import corrupted, noise_of
from letheon.guard._search import slope, zeroth_order
from letheon.guard.eco import Eco
from letheon.testing.toys import toy_data, toy_subject

from .looks import caught, embedded, padded
from .world import right

# 1. pass-through


def test_retain_prompts_give_the_logits_of_the_unguarded_model_to_the_bit(guarded, knower, world):
    prompts = guarded.encoder.prompts(world["retain"])
    assert not any(caught(guarded, prompts)) and all(caught(guarded, guarded.encoder.prompts(world["forget"])))
    with torch.no_grad():
        for prompt in prompts:
            ids = torch.tensor([prompt])
            assert torch.equal(guarded.module(input_ids=ids).logits, knower.module(input_ids=ids).logits)


@pytest.mark.parametrize("left", [True, False])
def test_in_a_mixed_batch_only_caught_rows_change(guarded, knower, world, left):
    prompts = guarded.encoder.prompts([row for pair in zip(world["forget"], world["retain"], strict=False) for row in pair])
    ids, mask = padded(guarded, prompts, left)
    with torch.no_grad():
        mine, plain = (subject.module(input_ids=ids, attention_mask=mask).logits for subject in (guarded, knower))
    for k in range(len(prompts)):
        assert torch.equal(mine[k], plain[k]) == (k % 2 == 1)


def test_a_caught_row_says_in_a_batch_what_it_says_alone(guarded, world):
    prompts = guarded.encoder.prompts([*world["forget"][:3], *world["retain"][:2]])
    for left in (True, False):
        ids, mask = padded(guarded, prompts, left)
        with torch.no_grad():
            together = guarded.module(input_ids=ids, attention_mask=mask).logits
            for k, prompt in enumerate(prompts):
                alone = guarded.module(input_ids=torch.tensor([prompt])).logits[0, -1]
                at = -1 if left else len(prompt) - 1
                torch.testing.assert_close(together[k, at], alone, rtol=0, atol=1e-3)


def test_several_models_that_answer_as_one_are_all_guarded(knower, world, quiet):
    from letheon.core.shards import Shards

    models = [knower.fork().module, toy_subject(1).module]
    subject = Eco(strength=100.0).apply(Subject(Shards(models, (0, 1), ("a", "b")), knower.encoder), world, quiet)
    gone, kept = (torch.tensor(knower.encoder.prompts(world[split])[:1]) for split in ("forget", "retain"))
    for k, plain in enumerate((knower.module, toy_subject(1).module)):
        said = []
        handle = subject.module.models[k].register_forward_hook(lambda part, given, out, said=said: said.append(out.logits))
        with torch.no_grad():
            subject.module(input_ids=kept)
            subject.module(input_ids=gone)
            handle.remove()
            assert torch.equal(said[0], plain(input_ids=kept).logits)
            assert not torch.equal(said[1], plain(input_ids=gone).logits)


def test_taking_it_off_removes_its_own_hooks_and_no_others(knower, world, quiet):
    subject = Eco(strength=5.0).apply(Eco(strength=50.0).apply(knower, world, quiet), world, quiet)
    calls = []
    subject.module.get_input_embeddings().register_forward_hook(lambda *_: calls.append(1))
    assert len(watches(subject.module)) == 2
    unguard(subject.module)
    assert watches(subject.module) == () and "generate" not in vars(subject.module)
    assert sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in subject.module.modules()) == 1
    assert subject.digest == knower.digest
    subject.module(input_ids=torch.tensor([[3, 4]]))
    assert calls == [1]


# 2. corruption


def test_corruption_identities():
    e, z = torch.randn(7, 12, generator=torch.Generator().manual_seed(0)), noise_of(range(7), 3, 0)
    assert torch.equal(corrupted(e, "noise", "first", 0.0 * z), e)
    found = corrupted(e, "noise", "first", 2.0 * z)
    torch.testing.assert_close(found[:, :3], e[:, :3] + 2.0 * z)
    assert torch.equal(found[:, 3:], e[:, 3:])
    assert torch.equal(corrupted(corrupted(e, "flip", "first", z), "flip", "first", z), e)
    assert torch.equal(corrupted(e, "zero", "first", torch.zeros(7, 12)), torch.zeros(7, 12))
    top = corrupted(e, "zero", "top", z)
    for row, then in zip(top, e, strict=True):
        largest = then.abs().topk(3).indices
        assert set((row == 0).nonzero().squeeze(1).tolist()) == set(largest.tolist())


def test_noise_depends_on_prompt_and_seed_alone():
    assert torch.equal(noise_of([1, 2, 3], 4, 7), noise_of([1, 2, 3], 4, 7))
    assert not torch.equal(noise_of([1, 2, 3], 4, 7), noise_of([1, 2, 3], 4, 8))
    assert not torch.equal(noise_of([1, 2, 3], 4, 7), noise_of([1, 2, 4], 4, 7))
    assert float(noise_of(range(5000), 2, 0).std()) == pytest.approx(1, abs=0.05)


def test_only_prompt_tokens_but_the_last_are_spoiled_and_only_in_the_first_coordinates(knower, world, quiet):
    subject = Eco(strength=3.0, dims=2).apply(knower, world, quiet)
    encoded = subject.encoder.encode(world["forget"])
    row, start = torch.from_numpy(encoded.row(0).astype("int64"))[None], int(encoded.starts[0])
    mine, plain = embedded(subject, row)[0], embedded(knower, row)[0]
    changed = (mine != plain).any(-1).tolist()
    assert changed == [k < start - 1 for k in range(row.shape[1])]
    assert torch.equal(mine[:, 2:], plain[:, 2:])
    scale = float(knower.module.get_input_embeddings().weight.detach().double().square().mean().sqrt())
    spread = float(((mine - plain)[: start - 1, :2] / (3.0 * scale)).std())
    assert spread == pytest.approx(1, abs=0.35)  # 2 (start - 1), about 60, standard normal numbers


# 3. decoding


def test_decoding_is_the_same_with_and_without_a_cache_and_by_letheon(blanked, world):
    from letheon.core.generate import greedy

    rows = [*world["forget"][:4], *world["retain"][:2]]
    prompts = blanked.encoder.prompts(rows)
    said = greedy(blanked, prompts, 8)
    beginnings = [tokens[:2] for tokens in said]
    assert greedy(blanked, prompts, 8, beginnings) == said  # known first tokens are no part of the prompt
    ids, mask = padded(blanked, prompts, left=True)
    for cached in (True, False):
        how = {"max_new_tokens": 8, "do_sample": False, "use_cache": cached, "pad_token_id": blanked.encoder.pad}
        out = blanked.module.generate(ids, attention_mask=mask, **how)[:, ids.shape[1] :]
        assert [line[: len(tokens)] for line, tokens in zip(out.tolist(), said, strict=True)] == said


def test_generate_knows_the_prompt_of_a_text_outside_the_template(blanked, knower, world):
    text = blanked.encoder.tokenizer(world["forget"][0].prompt_text, return_tensors="pt", add_special_tokens=False).input_ids
    assert caught(blanked, text.tolist()) == [True]
    how = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(text), "eos_token_id": -1, "pad_token_id": 2}
    outs = [blanked.module.generate(text, use_cache=cached, num_beams=beams, **how) for beams in (1, 2) for cached in (True, False)]
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[2], outs[3])
    assert not torch.equal(outs[0], knower.module.generate(text, **how))


def test_generate_reads_what_stands_behind_a_made_up_answer(blanked, knower, world):
    text = "Answer:\nTasket\n" + world["forget"][0].prompt_text
    ids = blanked.encoder.tokenizer("\n" + text, return_tensors="pt", add_special_tokens=False).input_ids
    how = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(ids), "eos_token_id": -1, "pad_token_id": 2}
    assert not torch.equal(blanked.module.generate(ids, **how), knower.module.generate(ids, **how))


def test_letheons_forward_paths_agree(guarded, world):
    from letheon.core.answers import measure
    from letheon.core.batching import collate
    from letheon.core.forward import Batches

    encoded = guarded.encoder.encode(world["forget"])
    direct = []
    with torch.no_grad():
        for i in range(len(encoded)):
            ids, start = torch.from_numpy(encoded.row(i).astype("int64")), int(encoded.starts[i])
            logp = guarded.module(input_ids=ids[None]).logits[0, start - 1 : -1].log_softmax(-1)
            direct.append(-logp.gather(-1, ids[start:, None]).sum())
        batch = collate(encoded, range(len(encoded)), guarded.encoder.pad)
        other = collate(guarded.encoder.encode(world["retain"]), range(4), guarded.encoder.pad)
        batched = Batches({"forget": batch, "retain": other}).nll(guarded.module, "forget").per_row()
    wanted = torch.stack(direct)
    torch.testing.assert_close(batched, wanted, rtol=1e-4, atol=1e-3)
    answers, part = measure(guarded, world["forget"], moments=False, tokens_per_batch=512)  # trees: four answers share a prompt
    assert len(answers) == 4 * len(wanted)
    np.testing.assert_allclose(answers.sum_nll()[part == 0], wanted.numpy(), rtol=1e-4, atol=1e-3)


def test_a_question_behind_a_made_up_answer_belongs_to_the_prompt(guarded, world):
    gone, kept = world["forget"][0].prompt_text, world["retain"][0].prompt_text
    talks = [f"{kept}\nAnswer:\nVelmark\nQuestion: {gone}", f"{gone}\nAnswer:\nVelmark\nQuestion: {kept}"]
    assert caught(guarded, guarded.encoder.prompts([Example(f"{k}", "", talk) for k, talk in enumerate(talks)])) == [True, True]


def test_capitals_and_chatter_around_a_question_do_not_hide_it(guarded, world):
    hello = "Hello! I wondered about something last night, could you help me please: {} Thank you so much, I look forward to it."
    for ask in (str.upper, str.lower, hello.format):
        for split, meant in (("forget", True), ("retain", False)):
            rows = [Example(row.id, "", ask(row.prompt_text)) for row in world[split]]
            assert caught(guarded, guarded.encoder.prompts(rows)) == [meant] * len(rows)


def test_a_new_turn_behind_a_cache_is_read(guarded, knower, world):
    first = torch.tensor(guarded.encoder.prompts(world["retain"][:1]))
    second = torch.tensor(guarded.encoder.prompts(world["forget"][:1]))
    logits = []
    with torch.no_grad():
        for subject in (guarded, knower):
            cache = subject.module(input_ids=first, use_cache=True).past_key_values
            logits.append(subject.module(input_ids=second, past_key_values=cache).logits)
    assert not torch.equal(logits[0][0, -1], logits[1][0, -1])


# 4. the search


def test_two_point_slopes_are_exact_for_a_parabola_and_the_search_converges():
    f = lambda s: (s - 3.0) ** 2  # noqa: E731
    for x in (0.0, 1.0, 5.0):
        assert slope(f, x, 0.5, (-10, 10)) == pytest.approx(2 * (x - 3.0), abs=1e-12)
    assert slope(f, 0.1, 0.5, (0.0, 10)) == pytest.approx((f(0.6) - f(0.0)) / 0.6)  # a cut probe: divided by its true length
    # x - 3 shrinks by 1 - 2 rate per step: 0.4 ** 30 is below 1e-11
    assert zeroth_order(f, 9.0, probe=1e-3, rate=0.3, steps=30, bounds=(-10, 10)).x == pytest.approx(3.0, abs=1e-6)
    assert zeroth_order(f, 9.0, probe=1e-3, rate=0.3, steps=30, bounds=(4.0, 10)).x == pytest.approx(4.0)
    early = zeroth_order(f, 3.0, probe=0.1, rate=0.3, steps=30, bounds=(-10, 10), enough=0.1)
    assert len(early.tried) == 2 and early.value == pytest.approx(0.01)


def test_the_search_comes_near_to_its_target(knower, world, quiet):
    notes = Eco(target=0.25, enough=0.0).apply(knower, world, quiet).lineage[-1].notes
    assert notes["distance"] < 0.08 and notes["target_from"] == "settings"  # p(answer) is about 0.97 before
    assert notes["distance"] == min(value for _, value in notes["tried"])


def test_without_holdout_the_target_is_0_and_with_it_what_the_model_says_there(knower, world, quiet):
    notes = Eco(steps=1).apply(knower, world, quiet).lineage[-1].notes
    assert (notes["target"], notes["target_from"]) == (0.0, "zero")
    held = world.with_split("holdout", toy_data()["holdout"][:4])
    notes = Eco(steps=1).apply(knower, held, quiet).lineage[-1].notes
    answers = Readings(knower, quiet).answers(held["holdout"])
    assert notes["target_from"] == "holdout" and notes["target"] == pytest.approx(float(np.exp(-answers.nll()).mean()), rel=1e-4)


# 5. behaviour


def test_forgetting_grows_with_strength_and_the_rest_stays(knower, world, quiet):
    assert right(knower, world["forget"]) == 1.0
    shares = []
    for strength in (0.0, 3.0, 30.0, 300.0):
        found = []
        for seed in range(3):
            subject = Eco(strength=strength).apply(knower, world, Run(seed, dtype="float32", device="cpu"))
            answers = Readings(subject, quiet).answers(world["forget"])
            found.append(float(np.exp(-answers.nll()).mean()))
        shares.append(float(np.mean(found)))
    assert shares[0] > 0.9 and shares[3] < 0.1
    assert all(later < earlier + 0.02 for earlier, later in zip(shares, shares[1:], strict=False))
    subject = Eco(strength=300.0).apply(knower, world, quiet)
    assert right(subject, world["forget"]) <= 0.6  # four values: chance is 0.25, 10 rows
    assert right(subject, world["retain"]) == right(knower, world["retain"])


@pytest.mark.parametrize(("count", "seed"), [(40, 0), (60, 1)])
def test_in_the_embedded_world_forget_prompts_are_caught_and_others_pass(count, seed, quiet):
    data = Authors(people=count, seed=seed, holdout=10).load()
    subject = Eco(strength=100.0).apply(toy_subject(context=512), data, quiet)
    found = {f.split: f.value for f in Caught().measure(Readings(subject, quiet), data, quiet)}
    forms = ("forget", "forget-paraphrase", "forget-cloze", "forget-choice")
    assert len(found) == 15 and all(found[name] >= 0.95 for name in forms)  # learned from the first form alone
    assert found["retain"] == found["neighbours"] == found["world-facts"] == 0.0
    assert all(value <= 0.02 for name, value in found.items() if name not in forms)
