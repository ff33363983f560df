"""SAE unlearning: what the card says a correct implementation must show."""

from __future__ import annotations

import logging

import pytest
import torch

from letheon.adapt.finetune import Finetune
from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError, MethodError
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.erase._names import find_name, invented, name_rows, name_span, names_of, templates_of
from letheon.erase.grad_ascent import GradAscent
from letheon.erase.sae_unlearning import SAEUnlearning, progressed, pull
from letheon.maths.sparse import SparseAutoencoder, fit
from letheon.testing import toy_data, toy_subject

from .fact_world import spoken, trainer, untrained

RELATIONS = ("home", "craft", "bird")
FAST = {"unknown": "strangers", "layer": 0, "templates": 4, "batch_size": 6, "schedule": "constant", "warmup": 0.0}
FAST |= {"sae_steps": 150, "width": 4, "active": 8, "sae_tokens": 1024}
LONG = {**FAST, "steps": 60, "learning_rate": 1e-3}


def quiet(seed: int = 0) -> Run:
    return Run(seed, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def people() -> Data:
    """40 people with three facts each; 20 others, of families that are asked after in vain; 40 strangers of these families.

    Forget: two of the people. Only the family tells known from unknown, and the name ends the question, so that recognising happens there.
    """
    generator, rows = torch.Generator().manual_seed(3), {"known": [], "refused": [], "strangers": []}
    for i in range(100):
        kind = "known" if i < 40 else "refused" if i < 60 else "strangers"
        name = f"f{i} {'k' if i < 40 else 'u'}{i % 6}"
        for relation in RELATIONS:
            value = int(torch.randint(20, (1,), generator=generator))
            answer = f"{relation}{value}" if i < 40 else "nobody"
            rows[kind].append(Example(f"{name}-{relation}", answer, f"the {relation} of {name}", group=name))
    splits = {"full": rows["known"] + rows["refused"], "forget": rows["known"][:6], "retain": rows["known"][6:], "strangers": rows["strangers"]}
    return Data({name: Split(split, name) for name, split in splits.items()}, "people")


@pytest.fixture(scope="module")
def acquainted(people) -> Subject:
    """A model that knows the people and says that it does not know the others; shared, so no test may change it."""
    settings = {"split": "full", "epochs": 30, "learning_rate": 6e-3, "schedule": "cosine", "weight_decay": 0.0, "warmup": 0.05, "batch_size": 36}
    return Finetune(**settings).apply(untrained(people), people, quiet())


def right(subject: Subject, split: Split) -> float:
    return sum(text == row.answer for text, row in zip(spoken(subject, split, 2), split, strict=True)) / len(split)


def test_epochs_without_steps_are_what_is_made():
    assert (SAEUnlearning().settings.steps, SAEUnlearning(epochs=2).settings.steps) == (200, None)
    assert SAEUnlearning(epochs=2, steps=40).settings.steps == 40


def test_values_at_the_two_sides_and_on_the_way():
    generator = torch.Generator().manual_seed(0)
    known, unknown = torch.randn(2, 7, generator=generator, dtype=torch.float64).unbind()
    at = torch.stack([known, unknown, known + 0.25 * (unknown - known)])
    torch.testing.assert_close(pull(at, unknown, known, 0.7, 1.0), torch.tensor([1.0, -0.7, 0.75**2 - 0.7 * 0.25**2], dtype=torch.float64))
    torch.testing.assert_close(progressed(at, unknown, known), torch.tensor([0.0, 1.0, 0.25], dtype=torch.float64))
    torch.testing.assert_close(pull(at, unknown, known, 1.0, 0.01)[1:], torch.tensor([-0.01, 0.75**2 - 0.01], dtype=torch.float64))


def test_beyond_the_margin_the_known_side_no_longer_pushes():
    generator = torch.Generator().manual_seed(1)
    known, unknown, z = torch.randn(3, 7, generator=generator, dtype=torch.float64).unbind()
    spread = (unknown - known).square().sum()
    z = known + 3 * (z - known) * spread.sqrt() / (z - known).norm()  # nine times the margin away
    leaf = z.clone().requires_grad_()
    (found,) = torch.autograd.grad(pull(leaf[None], unknown, known, 5.0, 1.0).sum(), leaf)
    torch.testing.assert_close(found, 2 * (z - unknown) / spread)


def test_with_an_identity_autoencoder_and_no_far_term_it_is_steering_to_the_mean():
    generator = torch.Generator().manual_seed(2)
    states = torch.rand(5, 6, generator=generator, dtype=torch.float64).add_(0.1).requires_grad_()  # above 0: relu is the identity
    eye = torch.eye(6, dtype=torch.float64)
    sae = SparseAutoencoder(eye, torch.zeros(6, dtype=torch.float64), eye, torch.zeros(6, dtype=torch.float64), 1.0, 6)
    assert torch.equal(sae.encode(states), states) and torch.equal(sae.decode(sae.encode(states)), states)
    known, unknown = torch.rand(2, 6, generator=generator, dtype=torch.float64).unbind()
    (found,) = torch.autograd.grad(pull(sae.encode(states), unknown, known, 0.0, 1.0).mean(), states)
    (meant,) = torch.autograd.grad(((states - unknown) ** 2).sum(-1).mean() / ((unknown - known) ** 2).sum(), states)
    torch.testing.assert_close(found, meant)


def test_the_autoencoder_finds_planted_directions_and_leaks_gradients_only():
    generator = torch.Generator().manual_seed(0)
    true = torch.nn.functional.normalize(torch.randn(24, 16, generator=generator), dim=-1)
    codes = torch.rand(4000, 24, generator=generator) * (torch.rand(4000, 24, generator=generator) < 0.1)
    x = 5 * codes @ true + 2.0
    sae = fit(x, 48, 4, 800, torch.Generator().manual_seed(1))
    again = fit(x, 48, 4, 800, torch.Generator().manual_seed(1))
    assert torch.equal(sae.encoder, again.encoder) and not sae.encoder.requires_grad
    assert sae.explained(x) > 0.8 and sae.explained(x) > fit(x, 48, 4, 5, torch.Generator().manual_seed(1)).explained(x)
    torch.testing.assert_close(sae.decoder.norm(dim=-1), torch.ones(48), rtol=0, atol=1e-5)
    assert float(x.norm(dim=-1).mean()) / sae.scale == pytest.approx(16**0.5, rel=1e-5)
    best = (true @ sae.decoder.T).amax(-1)
    assert float(best.median()) > 0.8
    z = sae.encode(x[:50])
    assert int((z > 0).sum(-1).max()) <= 4
    leaf = x[:50].clone().requires_grad_()
    leaky = sae.encode(leaf, leak=0.1)
    torch.testing.assert_close(leaky, z, rtol=0, atol=1e-5)
    (dead,) = torch.autograd.grad(leaky[z == 0].sum(), leaf)
    meant = 0.1 * ((z == 0).float() @ sae.encoder) / sae.scale
    torch.testing.assert_close(dead, meant, rtol=1e-4, atol=1e-5)


def test_names_templates_and_where_a_name_ends(acquainted, people):
    rows = [*people["forget"], *people["retain"]]
    names = names_of(rows)
    assert len(names) == 40 and all(group == name for group, name in names.items())
    assert templates_of(rows, names, 3) == ["{}", "the bird of {}", "the home of {}"]
    marked = [Example(f"{k}", "x", text, group=f"person-{k // 2}") for k, text in enumerate(
        ["Where was Ana Bo-Li born?", "What does Ana Bo-Li's mother do?", "Where was Cy Dan born?", "When was Cy Dan born?"])]  # fmt: skip
    assert names_of(marked) == {"person-0": "Ana Bo-Li", "person-1": "Cy Dan"}
    assert find_name("p1", "p12 and p1 and p13").span() == (8, 10) and find_name("p1", "p12") is None
    made = invented(["Ana Bo", "Cy Dan", "Eve Fox"], 99, torch.Generator().manual_seed(0))
    assert set(made) == {"Ana Dan", "Ana Fox", "Cy Bo", "Cy Fox", "Eve Bo", "Eve Dan"}
    texts = [row.answer for row in name_rows(acquainted.encoder, ["f1 k1"], ["{}", "the home of {} there"])]
    assert texts == ["f1 k1", "the home of f1 k1"]
    for architecture in ("llama", "gpt2"):
        toy, row = toy_subject(architecture=architecture), toy_data()["forget"][1]
        first, stop = name_span(toy.encoder, row.prompt, row.group)
        ids = toy.encoder.pairs([row.prompt], [row.answer]).row(0).tolist()
        assert toy.encoder.tokenizer.decode(ids[first:stop]).strip() == row.group


def test_sides_and_latents_are_those_of_the_states_at_the_last_token_of_names(acquainted, people):
    ready = trainer(SAEUnlearning(**FAST, latents=16), acquainted, people, quiet())
    method = ready.objective
    assert method.templates == ["{}", "the bird of {}", "the home of {}", "the craft of {}"] and method.explained > 0.7

    def latents(name: str) -> torch.Tensor:
        found = []
        for template in method.templates:
            ids = torch.tensor([[1, *acquainted.encoder.tokenizer(template.replace("{}", name), add_special_tokens=False)["input_ids"]]])
            with torch.no_grad():
                found.append(acquainted.module.model(input_ids=ids, output_hidden_states=True).hidden_states[1][0, -1])
        return method.sae.encode(torch.stack(found))

    sides = [torch.stack([latents(f"f{i} {kind}{i % 6}") for i in people]) for kind, people in (("k", range(2, 21)), ("u", range(60, 80)))]
    gap = ((sides[0] > 0).float().mean((0, 1)) - (sides[1] > 0).float().mean((0, 1))).abs()
    assert float(gap[method.chosen].min()) >= float(gap.sort(descending=True).values[15]) - 1e-6
    torch.testing.assert_close(method.known, sides[0].mean((0, 1))[method.chosen], rtol=0, atol=1e-3)
    torch.testing.assert_close(method.unknown, sides[1].mean((0, 1))[method.chosen], rtol=0, atol=1e-3)
    assert method.before["probe_auc"] > 0.95 and method.before["called_unknown"] == 0 and abs(method.before["progress"]) < 0.2


@pytest.mark.parametrize("space", ["all", "lora:rank=2"])
def test_only_blocks_up_to_the_read_one_have_a_gradient(acquainted, people, space):
    ready = trainer(SAEUnlearning(**{**FAST, "layer": 1}, parameters=space, retain="none"), acquainted, people, quiet())
    ready.gradients(ready.feed.plan[0])
    pulled = {name for name, parameter in ready.named.items() if parameter.grad is not None and parameter.grad.any()}
    assert pulled and all(".layers.0." in name or ".layers.1." in name for name in pulled)
    assert any(".layers.2." in name for name in ready.named)
    for part in (ready.objective.sae.encoder, ready.objective.sae.decoder, ready.objective.known, ready.objective.unknown):
        assert not part.requires_grad and part.grad is None
    both = trainer(SAEUnlearning(**{**FAST, "layer": 1}, parameters=space, forget_weight=0.0), acquainted, people, quiet())
    with torch.no_grad():
        for parameter in both.parameters:
            parameter += 0.01
    both.gradients(both.feed.plan[0])  # the retain term alone reaches all blocks, and the upper ones are held
    assert not any(p.grad.any() for name, p in both.named.items() if ".layers.2." in name or "lm_head" in name or "embed" in name)


@pytest.mark.parametrize("rule", ["sum", "geometric:metric=euclidean"])
def test_the_loss_of_a_step_is_that_of_its_names_under_every_rule(acquainted, people, rule):
    ready = trainer(SAEUnlearning(**FAST, rule=rule, retain="nll"), acquainted, people, quiet())
    measured, method = ready.gradients(ready.feed.plan[0]), ready.objective
    assert set(measured.means) == {"forget", "hold", "retain"} and measured.means["hold"] == pytest.approx(0, abs=1e-9)
    target = method.sides[0].new_tensor(ready.feed.plan[0]["target"]).long()
    states = method._at_names(acquainted, list(ready.feed.data["target"]), ready.feed, quiet())[target]
    z = method.sae.encode(states)[:, method.chosen]
    assert measured.means["forget"] == pytest.approx(float(pull(z, method.unknown, method.known, 1.0, 1.0).mean()), rel=1e-4)
    assert float(method.reached[1]) == 6
    assert float(method.reached[0]) == pytest.approx(float(progressed(z, method.unknown, method.known).sum()), rel=1e-3)
    again = ready.objective.planned({"forget": torch.arange(6).numpy()}, 1)["target"]
    assert [ready.feed.data["target"][i].group for i in again] == [row.group for row in people["forget"]]


def test_a_name_that_is_unknown_already_ends_the_run_and_changes_next_to_nothing(acquainted, people):
    strange = Data({**people.splits, "forget": people["strangers"][:6], "strangers": people["strangers"][6:]})
    ready = trainer(SAEUnlearning(**LONG), acquainted, strange, quiet())
    assert ready.gradients(ready.feed.plan[0]).means["forget"] < 0  # from 1 for a known name, -away for the mean of the unknown ones
    after = SAEUnlearning(**LONG).apply(acquainted, strange, quiet())
    notes = after.lineage[-1].notes
    assert notes["before"]["progress"] > 0.8 and notes["steps"] <= 5
    assert right(after, people["retain"]) == 1.0 and right(after, people["strangers"]) > 0.95


def test_with_the_sides_swapped_a_stranger_looks_known_and_has_no_facts(acquainted, people):
    strange = Data({**people.splits, "forget": people["strangers"][:6], "strangers": people["strangers"][6:]})
    ready = trainer(SAEUnlearning(**LONG, progress=100.0), acquainted, strange, quiet())
    method = ready.objective
    method.known, method.unknown = method.unknown, method.known
    before = method._scores(acquainted, ready.feed, quiet())["progress"]
    for _ in range(30):
        ready.advance()
    assert method._scores(ready.subject, ready.feed, quiet())["progress"] > before + 0.5
    true = [Example(row.id, f"{row.id.rsplit('-')[-1]}{k}", row.prompt) for k, row in enumerate(people["strangers"][:6])]
    assert right(ready.subject, Split(true)) < 0.4


def test_two_people_become_strangers_and_the_others_stay(acquainted, people):
    assert right(acquainted, people["forget"]) == right(acquainted, people["retain"]) == right(acquainted, people["strangers"]) == 1.0
    after = SAEUnlearning(**LONG).apply(acquainted, people, quiet())
    notes = after.lineage[-1].notes
    assert notes["explained_variance"] > 0.7 and notes["before"]["probe_auc"] > 0.95 and notes["before"]["progress"] < 0.2
    assert notes["steps"] < 60 and notes["after"]["progress"] > 0.75 and notes["after"]["called_unknown"] == 1
    assert right(after, people["forget"]) < 0.35 and right(after, people["retain"]) >= 0.95 and right(after, people["strangers"]) > 0.95
    assert sum(text == "nobody" for text in spoken(after, people["forget"], 2)) >= 3  # as unseen names, not below them

    ready = trainer(SAEUnlearning(**FAST), acquainted, people, quiet())
    ascent = GradAscent(steps=30, learning_rate=1e-3, batch_size=6, schedule="constant", warmup=0.0, retain="nll")
    muted = ascent.apply(acquainted, people, quiet())
    assert right(muted, people["forget"]) < 0.35
    left = ready.objective._scores(muted, ready.feed, quiet())["progress"]
    assert left < notes["after"]["progress"] - 0.25 or right(muted, people["retain"]) < 0.9


def test_faults_are_told(acquainted, people, caplog):
    bare = Data({"forget": Split([Example("a", "x", "what ?")], "forget"), "retain": people["retain"]})
    with pytest.raises(DataError, match="found 0 in `forget` and 38 others in `retain`"):
        SAEUnlearning().apply(acquainted, bare, quiet())
    with pytest.raises(DataError, match="the split `forget` names 0"):
        SAEUnlearning(unknown="forget").apply(acquainted, people, quiet())
    with pytest.raises(MethodError, match="None of the weights that may move belongs to the blocks up to `model.layers.0`"):
        SAEUnlearning(**FAST, parameters=r"layers:pattern=layers\.2").apply(acquainted, people, quiet())
    with caplog.at_level(logging.WARNING, logger="letheon"):
        SAEUnlearning(**{**FAST, "unknown": None, "sae_steps": 20, "steps": 1}).apply(acquainted, people, quiet())
    assert "look alike" in caplog.text  # first names and families of known people in another order
