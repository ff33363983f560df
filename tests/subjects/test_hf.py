"""Loading and saving Hugging Face folders: to the bit, never random, and one sentence for everything that can be wrong."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import letheon as lt
from letheon.core.errors import LetheonError, SettingsError, SubjectError
from letheon.core.run import Run
from letheon.core.subject import Step, Subject
from letheon.subjects.hf import HuggingFace, load
from letheon.testing.toys import toy_data, toy_subject
from letheon.train.parameters.lora import LoRA

STEP = Step("npo", {"beta": 0.1}, 3, "data-digest", "subject-digest", "0.1.0", {"steps": 5})
IDS = torch.tensor([[5, 9, 30, 77, 4, 250, 31]])


def logits(module) -> torch.Tensor:
    with torch.no_grad():
        return module(input_ids=IDS).logits


@pytest.fixture(params=["llama", "gpt2"])
def subject(request) -> Subject:
    return toy_subject(3, request.param)  # gpt2 ties its embeddings, llama does not


@pytest.fixture()
def folder(tmp_path) -> Path:
    """A small Llama that another tool has saved."""
    return Path(HuggingFace.example(tmp_path)["path"])


def adapted(base: Subject) -> Subject:
    """The subject with a LoRA adapter that changes what it says."""
    subject = LoRA(merge=False, rank=2).open(base, Run(seed=1, device="cpu"))
    with torch.no_grad():
        for name, parameter in subject.module.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.linspace(-0.5, 0.5, parameter.numel()).reshape(parameter.shape))
    return subject


def edit(file: Path, **values) -> None:
    config = json.loads(file.read_text())
    config.update(values)
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_a_saved_subject_comes_back_whole(subject, tmp_path):
    subject = Subject(subject.module, type(subject.encoder)(subject.encoder.tokenizer, "Q {prompt} A", 99), (STEP,), "toy")
    subject.save(tmp_path / "a")
    again = load(tmp_path / "a")
    assert again.digest == subject.digest and again.lineage == (STEP,) and again.name == "a"
    assert again.encoder.described() == {"template": "Q {prompt} A", "system": None, "max_length": 99}
    assert not again.module.training


def test_plain_transformers_reads_it_to_the_bit(subject, tmp_path):
    from transformers import AutoTokenizer

    subject.save(tmp_path / "a")
    assert {path.suffix for path in (tmp_path / "a").iterdir()} == {".json", ".safetensors"}
    module = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    mine, other = subject.module.state_dict(), module.state_dict()
    assert mine.keys() == other.keys() and all(torch.equal(mine[key], other[key]) for key in mine)
    tied = subject.module.get_input_embeddings().weight is subject.module.get_output_embeddings().weight
    assert tied == (module.get_input_embeddings().weight is module.get_output_embeddings().weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "a")("Where?").input_ids == subject.encoder.tokenizer("Where?").input_ids


def test_bfloat16_stays_bfloat16_and_can_be_widened(subject, tmp_path, caplog):
    subject.module.bfloat16()
    subject.save(tmp_path / "a")
    caplog.set_level("INFO", "letheon")
    kept = load(tmp_path / "a", dtype="auto")
    assert not caplog.text
    wide = load(tmp_path / "a")
    assert "rounded to the bfloat16 of the files (`store=float32`: not)" in caplog.text
    assert kept.digest == subject.digest and next(kept.module.parameters()).dtype == torch.bfloat16
    for mine, other in zip(wide.module.parameters(), subject.module.parameters(), strict=True):
        assert mine.dtype == torch.float32 and torch.equal(mine, other.float())


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_what_is_made_of_a_narrow_model_is_saved_as_it_was_audited_in_the_size_that_came(subject, tmp_path, narrow):
    subject.module.to(narrow)
    subject.save(tmp_path / "before")
    before = load(tmp_path / "before")
    after = lt.method("npo", steps=2, learning_rate=1e-2).apply(before, toy_data(), Run(seed=1, device="cpu", dtype="float32"))
    folder = after.save(tmp_path / "after")
    file, given = folder / "model.safetensors", tmp_path / "before" / "model.safetensors"
    assert abs(file.stat().st_size - given.stat().st_size) < 0.01 * given.stat().st_size
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert plain.dtype == narrow and json.loads((folder / "config.json").read_text())["dtype"] == str(narrow).removeprefix("torch.")
    again = load(folder)
    assert again.digest == after.digest != before.digest and again.stored == after.stored == before.stored
    assert torch.equal(logits(after.module), logits(plain.float())) and not torch.equal(logits(after.module), logits(before.module))


@pytest.mark.parametrize("disposable", [False, True])
def test_steps_too_small_for_the_format_are_counted_and_warned_of(folder, tmp_path, caplog, disposable):
    subject = load(folder)
    subject.module.bfloat16()
    subject.save(tmp_path / "before")
    start = load(tmp_path / "before").module.state_dict()
    for rate, few in ((1e-6, False), (3e-2, True)):
        wide, narrow = (load(tmp_path / "before", store=store) for store in ("float32", "auto"))
        wide.disposable = narrow.disposable = disposable
        caplog.clear()
        moved, after = (
            lt.method("npo", steps=1, learning_rate=rate).apply(one, toy_data(), Run(seed=1, device="cpu", dtype="float32")) for one in (wide, narrow)
        )
        away = {name: tensor != start[name] for name, tensor in moved.module.state_dict().items()}
        back = sum(int((away[name] & (tensor == start[name])).sum()) for name, tensor in after.module.state_dict().items())
        share = back / sum(int(mask.sum()) for mask in away.values())
        assert after.lineage[-1].notes["rounded"] == {"to": "bfloat16", "taken_back": round(share, 4)}
        assert (share < 0.5) == few and ("of the changed weights back" in caplog.text) == (not few)


def test_a_narrow_model_is_saved_wide_where_that_is_wanted(folder, tmp_path):
    subject = load(folder)
    subject.module.bfloat16()
    subject.save(tmp_path / "before")
    before = load(tmp_path / "before", store="float32")
    after = lt.method("npo", steps=1, learning_rate=1e-2).apply(before, toy_data(), Run(seed=1, device="cpu", dtype="float32"))
    after.save(tmp_path / "after")
    assert after.stored is None and AutoModelForCausalLM.from_pretrained(tmp_path / "after").dtype == torch.float32


def test_weights_that_were_stored_wider_stay_so(subject, tmp_path):
    subject.module.bfloat16()
    subject.save(tmp_path / "a")
    name = next(name for name, tensor in subject.module.state_dict().items() if "norm" in name or "ln_f" in name)
    file = tmp_path / "a" / "model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if key.endswith(name.removeprefix("transformer.")))
    tensors[key] = tensors[key].float() + 1e-4
    save_file(tensors, file, {"format": "pt"})
    wide = load(tmp_path / "a")
    assert name not in wide.stored.names and len(wide.stored.names) == len(wide.module.state_dict()) - 1
    wide.save(tmp_path / "b")
    assert load(tmp_path / "b").digest == wide.digest and load_file(tmp_path / "b" / "model.safetensors")[key].dtype == torch.float32


def test_an_adapter_merged_into_a_narrow_model_is_rounded_before_anybody_looks(subject, tmp_path):
    subject.module.bfloat16()
    subject.save(tmp_path / "base")
    adapted(load(tmp_path / "base")).save(tmp_path / "adapter")
    merged = load(tmp_path / "base", adapter=str(tmp_path / "adapter"), merge=True)
    merged.save(tmp_path / "merged")
    assert load(tmp_path / "merged").digest == merged.digest != load(tmp_path / "base").digest


def test_what_does_not_fit_a_narrow_format_is_refused(subject, tmp_path):
    subject.module.half()
    subject.save(tmp_path / "a")
    before = load(tmp_path / "a")
    module = before.fork().module
    with torch.no_grad():
        next(module.parameters()).view(-1)[3] = 1e5
    with pytest.raises(SubjectError, match="too large for float16, the number format of the model's files.*store=float32"):
        before.changed(module, lt.method("npo"), data="", before=before.digest, seed=0, notes={})


def test_saving_twice_gives_the_same_weights_file(subject, tmp_path):
    for name in "ab":
        subject.save(tmp_path / name)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_an_adapter_is_saved_alone_beside_a_base_that_is_on_disk(subject, tmp_path, monkeypatch):
    subject.save(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    changed = adapted(load("base"))
    changed.save(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "base").exists() and not (tmp_path / "adapter" / "model.safetensors").exists()
    monkeypatch.chdir("/")  # the base is found from anywhere
    again = load(tmp_path / "adapter")
    assert again.digest == changed.digest and torch.equal(logits(again.module), logits(changed.module))
    assert not torch.equal(logits(again.module), logits(subject.module))
    assert {name.split(".")[-2] for name, p in again.module.named_parameters() if p.requires_grad} == {"default"}
    same = load(tmp_path / "base", adapter=str(tmp_path / "adapter"))
    assert same.digest == changed.digest


def test_an_adapter_takes_along_a_base_that_stands_nowhere(subject, tmp_path):
    before = logits(subject.module)
    changed = adapted(subject)
    changed.save(tmp_path / "adapter")
    shutil.move(tmp_path / "adapter", tmp_path / "moved")
    assert torch.equal(logits(load(tmp_path / "moved").module), logits(changed.module))
    assert torch.equal(logits(load(tmp_path / "moved" / "base").module), before)
    assert not torch.equal(logits(changed.module), before)


def test_an_adapter_on_changed_weights_does_not_point_to_the_old_ones(subject, tmp_path):
    subject.save(tmp_path / "base")
    base = load(tmp_path / "base")
    with torch.no_grad():
        next(base.module.parameters())[0, 0] += 1
    changed = adapted(base)
    changed.save(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"
    assert torch.equal(logits(load(tmp_path / "adapter").module), logits(changed.module))


def test_a_merged_adapter_is_an_ordinary_model(subject, tmp_path):
    changed = adapted(subject)
    changed.save(tmp_path / "adapter")
    merged = load(tmp_path / "adapter", merge=True)
    merged.save(tmp_path / "merged")
    assert load(tmp_path / "merged").digest == merged.digest
    assert torch.allclose(logits(merged.module), logits(changed.module), atol=1e-4)
    with pytest.raises(SettingsError, match="`merge` of `hf` is set, but .* is not an adapter"):
        load(tmp_path / "merged", merge=True)


def test_loading_draws_nothing_and_says_nothing(folder, tmp_path, capfd):
    adapted(load(folder)).save(tmp_path / "adapter")
    from transformers.utils import logging

    level, bars, state = logging.get_verbosity(), logging.is_progress_bar_enabled(), torch.get_rng_state()
    capfd.readouterr()
    load(tmp_path / "adapter").save(tmp_path / "again")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (level, bars)
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")


def test_the_context_of_the_model_is_the_limit(folder):
    assert load(folder).encoder.max_length == 512  # the tokenizer says 1e30
    assert load(folder, max_length=40).encoder.max_length == 40
    with pytest.raises(SettingsError, match="`max_length` of `hf` is 600, the model's context has only 512"):
        load(folder, max_length=600)


def test_settings_beat_what_was_saved(tmp_path):
    toy_subject(chat=True).save(tmp_path / "a")
    assert load(tmp_path / "a").encoder.chat and load(tmp_path / "a", system="Be brief").encoder.system == "Be brief"
    assert load(tmp_path / "a", template="{prompt}").encoder.template == "{prompt}"


def test_the_end_token_may_stand_in_the_model_only(folder):
    edit(folder / "tokenizer_config.json", eos_token=None)
    assert load(folder).encoder.end == 0


def test_the_plug_in_moves_nothing_in_the_folder(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    load(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_model_in_memory_is_a_subject():
    made = toy_subject(chat=True)
    tokenizer = made.encoder.tokenizer
    found = lt.subject(made.module.train(), tokenizer, max_length=64)
    assert found.module is made.module and not found.module.training and found.encoder.max_length == 64
    assert lt.subject(made.module, tokenizer).digest == lt.subject(made.module, tokenizer, max_length=256).digest == made.digest
    flags = [parameter.requires_grad_(k % 2 == 0).requires_grad for k, parameter in enumerate(made.module.parameters())]
    lt.method("npo", steps=1).apply(found, toy_data(), Run(device="cpu"))
    assert [parameter.requires_grad for parameter in made.module.parameters()] == flags and made.digest == toy_subject(chat=True).digest


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (lambda made: (made.module,), {}, "A model in memory needs its tokenizer, got nothing"),
        (lambda made: (made.module, "gpt2"), {}, "A model in memory needs its tokenizer, got str"),
        (lambda made: (made.module.model, made.encoder.tokenizer), {}, "got LlamaModel"),
        (lambda made: (None,), {}, "got NoneType"),
        (lambda made: ("MODEL", made.encoder.tokenizer), {}, "got str"),
        (lambda made: (made.module, made.encoder.tokenizer), {"merge": True}, "`merge` of `hf` is for models that are loaded"),
        (lambda made: (made.module, made.encoder.tokenizer), {"max_length": 9999}, "the model's context has only 256 tokens"),
    ],
)
def test_what_is_no_subject(arguments, settings, message):
    with pytest.raises(LetheonError, match=re.escape(message)):
        lt.subject(*arguments(toy_subject()), **settings)
