"""ECO saved, loaded and refused: a guard comes back whole or the model does not load."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch

from letheon.core.data import Data, Example, Message, Split
from letheon.core.encode import TextEncoder
from letheon.core.errors import DataError, MethodError, SettingsError, SubjectError
from letheon.core.guard import watches
from letheon.core.subject import Subject
from letheon.guard.eco import Eco
from letheon.subjects.hf import load
from letheon.testing.toys import toy_tokenizer
from letheon.train.parameters.lora import LoRA

from .looks import caught, embedded


@pytest.fixture
def folder(guarded, tmp_path):
    guarded.save(tmp_path / "guarded")
    return tmp_path / "guarded"


def test_the_folder_says_that_only_letheon_brings_the_guard_back(guarded, tmp_path, caplog):
    guarded.save(tmp_path / "a")
    assert "other tools load it unguarded" in caplog.text
    assert {path.suffix for path in (tmp_path / "a" / "guards" / "0-eco").iterdir()} == {".json", ".safetensors"}
    text = "".join(path.read_text(errors="ignore") for path in (tmp_path / "a" / "guards").rglob("*.*"))
    assert "Torrend" not in text and "torrend" not in text  # words are hashed


def test_it_comes_back_with_another_template_and_under_an_adapter(folder, guarded, world, quiet, tmp_path):
    again = load(folder)
    assert again.digest == guarded.digest and again.lineage == guarded.lineage
    other = load(folder, template="Q: {prompt}\nA: ")
    prompts = other.encoder.prompts([*world["forget"], *world["retain"]])
    assert caught(other, prompts) == [True] * 10 + [False] * 30
    adapted = LoRA(merge=False, rank=2).open(again, quiet)
    adapted.save(tmp_path / "adapter")
    back = load(tmp_path / "adapter")
    assert back.digest == adapted.digest and len(watches(back.module)) == 1
    merged = load(tmp_path / "adapter", merge=True)
    assert caught(merged, merged.encoder.prompts(world["forget"])) == [True] * 10


@pytest.mark.parametrize("harm", ["gone", "unnamed", "other", "format", "number"])
def test_a_guard_that_cannot_be_brought_back_is_an_error(folder, harm):
    place = folder / "guards" / "0-eco"
    if harm == "gone":
        shutil.rmtree(folder / "guards")
    elif harm == "unnamed":
        (folder / "letheon.json").unlink()
    else:
        numbers = json.loads((place / "eco.json").read_text())
        numbers |= {"other": {"strength": 0.0}, "format": {"format": "letheon.eco/9"}, "number": {"no_such": 1}}[harm]
        (place / "eco.json").write_text(json.dumps(numbers))
    with pytest.raises(SubjectError, match=r"guard"):
        load(folder)


# 7. what it refuses


def test_too_few_prompts(knower, world, quiet):
    few = Split([Example(f"{i}", "x", world["forget"][i % 2].prompt_text) for i in range(9)], "forget")
    with pytest.raises(DataError, match="needs 4 different `forget` prompts, got 2"):
        Eco().apply(knower, Data({"forget": few, "retain": world["retain"]}), quiet)
    with pytest.raises(DataError, match="needs 4 different `retain` prompts, got 3"):
        Eco().apply(knower, Data({"forget": world["forget"], "retain": world["retain"][:3]}), quiet)
    with pytest.raises(DataError, match="needs a `retain` split"):
        Eco().apply(knower, Data({"forget": world["forget"]}), quiet)


def test_prompts_that_cannot_be_told_apart(knower, world, quiet):
    with pytest.raises(MethodError, match="catches only 0% of the forget prompts"):
        Eco().apply(knower, Data({"forget": world["retain"], "retain": world["retain"]}), quiet)


def test_too_many_coordinates_and_settings_out_of_bounds(knower, world, quiet):
    with pytest.raises(MethodError, match="`dims` of `eco` must be at most 32"):
        Eco(dims=33).apply(knower, world, quiet)
    with pytest.raises(SettingsError, match="`threshold` of `eco` must be below 1"):
        Eco(threshold=1.0)


def test_a_template_that_hides_the_end_of_the_prompt(knower, world, quiet):
    blind = Subject(knower.module, TextEncoder(knower.encoder.tokenizer, "{prompt} "))
    with pytest.raises(SubjectError, match="no words between prompt and answer"):
        Eco().apply(blind, world, quiet)


def test_a_guarded_model_refuses_embeddings(guarded):
    with pytest.raises(SubjectError, match="reads tokens, and was given embeddings"):
        guarded.module(inputs_embeds=torch.zeros(1, 3, 32))


def test_a_threshold_of_ones_own(knower, world, quiet):
    subject = Eco(strength=1.0, threshold=0.9).apply(knower, world, quiet)
    assert subject.lineage[-1].notes["threshold"] == pytest.approx(math.log(9))


def test_chats_are_guarded_in_every_turn(knower, world, quiet):
    chat = Subject(knower.module, TextEncoder(toy_tokenizer(chat=True)), name="chat")
    subject = Eco(strength=100.0).apply(chat, world, quiet)
    gone, kept = world["forget"][0].prompt_text, world["retain"][0].prompt_text
    turns = [(kept, gone), (kept, world["retain"][4].prompt_text)]
    talks = [
        Example(f"{k}", "x", (Message("user", first), Message("assistant", "Tasket"), Message("user", then)))
        for k, (first, then) in enumerate(turns)
    ]
    prompts = subject.encoder.prompts(talks)
    assert caught(subject, prompts) == [True, False]
    ids = torch.tensor([prompts[0]])
    changed = (embedded(subject, ids) != embedded(chat, ids)).any(-1)[0].tolist()
    assert changed == [True] * (len(prompts[0]) - 1) + [False]
