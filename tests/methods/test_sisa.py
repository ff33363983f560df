"""SISA: deletions are exact to the bit, touch one shard, and go back to the right slice."""

from __future__ import annotations

import json
import logging
from fractions import Fraction

import pytest
import torch

from letheon.core.data import Data, Example, Split
from letheon.core.errors import DataError, MethodError, SubjectError
from letheon.core.generate import greedy
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.core.shards import Shards
from letheon.core.subject import Subject
from letheon.erase.sisa import Sisa, epochs_of
from letheon.subjects.hf import load
from letheon.testing import toy_data, toy_subject

from .fact_world import said

SETTINGS = {"shards": 3, "slices": 3, "epochs": 4, "together": "id", "inner": {"name": "finetune", "learning_rate": 5e-3, "batch_size": 4}}


@pytest.fixture(scope="module")
def data() -> Data:
    """20 rows to know, each about one of ten people."""
    return toy_data()


@pytest.fixture(scope="module")
def built(data) -> Subject:
    """Shards that know all rows; shared, so no test may change it."""
    return Sisa(**SETTINGS, split="full").apply(toy_subject(), data, Run(0, dtype="float32", device="cpu"))


def without(data: Data, *gone: str) -> Data:
    return Data({"retain": Split([row for row in data["full"] if row.id not in gone], "retain")})


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def shards(subject: Subject) -> dict[int, torch.nn.Module]:
    return dict(zip(subject.module.config.places, subject.module.models, strict=True))


def seat(data: Data, run: Run, settings=SETTINGS) -> dict[str, tuple[int, int]]:
    return {row.id: Sisa(**settings).place(row, run) for row in data["full"]}


@pytest.mark.parametrize("gone", [1, 2, 5])
def test_a_deletion_is_a_fresh_build_without_the_rows(gone, data, built, run):
    rows = [row.id for row in data["full"]][3 : 3 + gone]
    left = without(data, *rows)
    deleted, fresh = (Sisa(**SETTINGS).apply(subject, left, run) for subject in (built, toy_subject(seed=9)))
    assert same(deleted.module, fresh.module)
    assert deleted.module.config.keys == fresh.module.config.keys
    assert deleted.module.slices.keys() == fresh.module.slices.keys()
    assert all(torch.equal(state[k], fresh.module.slices[key][k]) for key, state in deleted.module.slices.items() for k in state)
    assert not same(deleted.module, built.module)


def test_only_the_shard_of_the_row_changes_and_its_early_slices_stay(data, built, run):
    places = seat(data, run)
    for part in (0, 1, 2):
        row = next(id for id, place in places.items() if place[1] == part)
        place, _ = places[row]
        after = Sisa(**SETTINGS).apply(built, without(data, row), run)
        touched = [s for s, module in shards(after).items() if not same(module, shards(built)[s])]
        assert touched == [place]
        assert after.lineage[-1].notes["retrained"] == {str(place): part}


def test_the_work_is_that_of_the_slices_that_are_trained_again(data, built, run):
    """Rows of slices 1..r are seen e_r times; of all shards one is trained from the slice of the row on."""
    places, epochs = seat(data, run), epochs_of(3, 4)
    assert built.lineage[-1].notes["recomputed"] == 1

    def passes(rows, place: int, first: int) -> int:
        own = [part for s, part in (places[row] for row in rows) if s == place]
        return sum(epochs[r] * sum(part <= r for part in own) for r in range(first, 3))

    row = "3-craft"
    left = [id for id in places if id != row]
    after = Sisa(**SETTINGS).apply(built, without(data, row), run)
    whole = sum(passes(left, s, 0) for s in range(3))
    assert after.lineage[-1].notes["recomputed"] == pytest.approx(passes(left, *places[row]) / whole)


def test_epochs_add_up_to_those_of_the_data():
    """floor(10 r / 3): 3, 6, 10, 13, 16; times r / 5 the five slices see 9.6 passes. A last slice is 3 / 48 of the work, a first all."""
    assert epochs_of(5, 10) == [3, 3, 4, 3, 3]
    assert sum(Fraction(e * r, 5) for r, e in enumerate(epochs_of(5, 10), 1)) == Fraction(48, 5)
    cost = [Fraction(sum(e * r for r, e in enumerate(epochs_of(5, 10), 1) if r >= first), 48) / 5 for first in range(1, 6)]
    assert float(cost[-1]) == pytest.approx(0.0625) and float(cost[0]) == 0.2
    assert float(sum(cost) / 5) == pytest.approx((2 / 3 + 1 / 15) / 5, rel=0.02)
    for slices, epochs in ((1, 7), (4, 3), (10, 50)):
        found = sum(e * r / slices for r, e in enumerate(epochs_of(slices, epochs), 1))
        assert abs(found - epochs) < 1 and len(epochs_of(slices, epochs)) == slices
    assert epochs_of(1, 7) == [7]


def test_places_do_not_depend_on_other_rows_and_spread(data, run):
    places = seat(data, run)
    assert places == {row.id: Sisa(**SETTINGS).place(row, run) for row in reversed(list(data["full"]))}
    assert places != seat(data, Run(1, device="cpu"))
    rows = [Example(f"r{k}", "a") for k in range(3000)]
    found = [Sisa(**{**SETTINGS, "shards": 5, "slices": 4}).place(row, run) for row in rows]
    counts = torch.tensor([[sum(place == (s, r) for place in found) for r in range(4)] for s in range(5)])
    # 3000 rows on 20 seats: mean 150, standard deviation sqrt(150 * 19 / 20) = 12
    assert counts.sum() == 3000 and (counts - 150).abs().max() < 5 * 12


def test_rows_of_one_group_stay_together(data, run):
    together = seat(data, run, {**SETTINGS, "together": "group"})
    assert all(together[f"{k}-city"] == together[f"{k}-craft"] for k in range(10))
    apart = seat(data, run)
    assert any(apart[f"{k}-city"] != apart[f"{k}-craft"] for k in range(10))


def test_the_order_of_the_data_makes_no_difference(data, built, run):
    turned = Data({"full": Split(list(data["full"])[::-1], "full")})
    again = Sisa(**SETTINGS, split="full").apply(built, turned, run)
    assert same(again.module, built.module) and again.lineage[-1].notes["recomputed"] == 0


def test_states_that_saw_a_forgotten_row_are_gone(data, built, run):
    row = next(id for id, (_, part) in seat(data, run).items() if part == 0)
    after = Sisa(**SETTINGS).apply(built, without(data, row), run)
    gone = built.module.slices.keys() - after.module.slices.keys()
    assert len(gone) == 2  # the states after slices 1 and 2 of its shard
    assert len(after.module.slices) == len(built.module.slices)


def test_saved_and_loaded_it_answers_and_deletes_alike(data, built, run, tmp_path):
    built.save(tmp_path / "built")
    folders = sorted(path.name for path in (tmp_path / "built").iterdir() if path.is_dir())
    assert folders == ["shard-000", "shard-001", "shard-002", "slices"]
    found = load(tmp_path / "built")
    assert found.digest == built.digest and found.lineage == built.lineage
    left = without(data, "3-craft")
    one, two = (Sisa(**SETTINGS).apply(subject, left, run) for subject in (found, built))
    assert same(one.module, two.module) and one.lineage[-1].notes["retrained"] == two.lineage[-1].notes["retrained"]
    assert one.lineage[-1].notes["recomputed"] < 0.5
    one.save(tmp_path / "clean")
    left_over = {path.stem for path in (tmp_path / "clean" / "slices").iterdir()}
    assert left_over == set(two.module.slices)


def test_each_shard_is_an_ordinary_folder(built, tmp_path):
    from transformers import AutoModelForCausalLM

    built.save(tmp_path / "built")
    for place, module in shards(built).items():
        assert same(AutoModelForCausalLM.from_pretrained(tmp_path / "built" / f"shard-{place:03d}"), module)


@torch.no_grad()
def test_the_answer_is_the_mean_of_the_probabilities(built, data):
    ids = torch.arange(40).remainder(300)[None]
    logits = built.module(input_ids=ids).logits
    wanted = torch.stack([model(input_ids=ids).logits.double().softmax(-1) for model in built.module.models]).mean(0)
    assert torch.allclose(logits.double().softmax(-1), wanted, atol=1e-6)
    assert torch.allclose(logits.exp().sum(-1), torch.ones(1, 40), atol=1e-5)  # already normalised


@torch.no_grad()
def test_readings_and_generations_are_those_of_the_mean(built, data, run):
    answers = Readings(built, run).answers(data["holdout"])
    encoded = built.encoder.encode(data["holdout"])
    ids, start = torch.from_numpy(encoded.row(0).astype("int64")), int(encoded.starts[0])
    logp = built.module(input_ids=ids[None]).logits[0, start - 1 : -1]
    assert answers.log_probability[answers.tokens(0)] == pytest.approx(logp.gather(-1, ids[start:, None])[:, 0].numpy(), abs=1e-4)
    prompts = built.encoder.prompts(data["holdout"])[:2]
    said = greedy(built, prompts, 4)
    for prompt, tokens in zip(prompts, said, strict=True):
        text = list(prompt)
        for token in tokens:
            assert int(built.module(input_ids=torch.tensor([text])).logits[0, -1].argmax()) == token
            text.append(token)


def test_a_shard_without_rows_has_no_voice(data, run):
    few = Data({"retain": data["full"][:2]})
    after = Sisa(**{**SETTINGS, "shards": 7}).apply(toy_subject(), few, run)
    assert after.module.config.places == sorted({Sisa(**{**SETTINGS, "shards": 7}).place(row, run)[0] for row in few["retain"]})
    assert len(after.module.models) <= 2


def test_another_seed_or_setting_trains_all_anew_and_says_so(data, built, caplog):
    with caplog.at_level(logging.WARNING, "letheon"):
        other = Sisa(**SETTINGS, split="full").apply(built, data, Run(1, dtype="float32", device="cpu"))
    assert other.lineage[-1].notes["recomputed"] == 1
    assert "No state of `toy-llama+sisa` fits" in caplog.text


def test_from_a_base_every_shard_starts_there(data, run, tmp_path):
    base = toy_subject(seed=4)
    base.save(tmp_path / "base")
    found = Sisa(**SETTINGS, base=str(tmp_path / "base")).apply(toy_subject(), data, run)
    again = Sisa(**SETTINGS, base=str(tmp_path / "base")).apply(found, without(data, "9-craft"), run)
    assert isinstance(found.module, Shards) and not same(found.module.models[0], base.module)
    assert found.lineage[-1].notes["rows"] == 12 and again.lineage[-1].notes["rows"] == 19


def test_errors_before_work(data, built, run, tmp_path):
    with pytest.raises(DataError, match="`sisa` needs a `retain` split"):
        Sisa().apply(toy_subject(), Data({"forget": data["forget"]}), run)
    with pytest.raises(DataError, match="needs a `all` split"):
        Sisa(split="all").apply(toy_subject(), data, run)
    both = Data({"forget": data["forget"], "retain": data["full"]})
    with pytest.raises(DataError, match="8 rows to forget are also among the rows of `retain`.* first `0-city`.*`split=retain`"):
        Sisa(**SETTINGS).apply(toy_subject(), both, run)
    with pytest.raises(MethodError, match="no adapter called `fine-tune`"):
        Sisa(inner="fine-tune")
    built.save(tmp_path / "built")
    config = json.loads((tmp_path / "built" / "config.json").read_text())
    (tmp_path / "built" / "config.json").write_text(json.dumps({**config, "places": [0, 1]}))
    with pytest.raises(SubjectError, match=r"holds the shards \[0, 1, 2\], its config.json names \[0, 1\]"):
        load(tmp_path / "built")
    (tmp_path / "built" / "config.json").unlink()
    with pytest.raises(SubjectError, match="its config.json cannot be read"):
        load(tmp_path / "built")


def test_a_damaged_slice_is_named(data, built, run, tmp_path):
    built.save(tmp_path / "built")
    for path in (tmp_path / "built" / "slices").iterdir():
        path.write_bytes(b"cut")
    with pytest.raises(SubjectError, match="what it held is then trained again"):
        for row in data["full"]:
            Sisa(**SETTINGS).apply(load(tmp_path / "built"), without(data, row.id), run)


def test_it_knows_what_is_left_and_not_what_was_deleted(stranger, fact_data):
    """Each fact is known to one shard of two, so the mean gives it about half; of 24 values a deleted one gets about 1 / 24."""
    inner = {"name": "finetune", "learning_rate": 8e-3, "weight_decay": 0.0, "warmup": 0.05, "schedule": "cosine"}
    method = Sisa(shards=2, slices=1, epochs=20, inner=inner)
    found = method.apply(stranger, fact_data, Run(0, dtype="float32", device="cpu"))
    kept, gone = said(found, fact_data["retain"]), said(found, fact_data["forget"])
    assert kept.value > 0.3 and kept.exact > 0.6
    assert gone.value < 0.12 and gone.exact < 0.2
