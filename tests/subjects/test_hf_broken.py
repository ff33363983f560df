"""Folders that are broken, adapters that do not fit, pickles and foreign code: one sentence each, and nothing is run or written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from letheon.core.errors import SettingsError, SubjectError
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.subjects.hf import HuggingFace, load
from letheon.testing.toys import toy_subject
from letheon.train.parameters.lora import LoRA

IDS = torch.tensor([[5, 9, 30, 77, 4, 250, 31]])


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


def logits(module) -> torch.Tensor:
    with torch.no_grad():
        return module(input_ids=IDS).logits


@pytest.fixture()
def folder(tmp_path) -> Path:
    """A small Llama that another tool has saved."""
    return Path(HuggingFace.example(tmp_path)["path"])


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def shards(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="8KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    sorted(folder.glob("model-*"))[1].unlink()


def weights(folder: Path, change) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def pickled(folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def poisoned(value: float):
    return lambda folder: weights(folder, lambda tensors: tensors["model.norm.weight"].__setitem__(3, value))


def grown(folder: Path) -> None:
    file = folder / "tokenizer.json"
    words = json.loads(file.read_text())
    words["model"]["vocab"]["Zz"] = 300
    file.write_text(json.dumps(words))


NORM, GATE = "model.norm.weight", "model.layers.0.mlp.gate_proj.weight"
BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
    "broken config": (lambda f: (f / "config.json").write_text('{\n "a": 1,\n "b"\n}'), r"config\.json is not valid JSON: .* in line 4"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "holds list, not a JSON object"),
    "unknown type": (lambda f: edit(f / "config.json", model_type="lama"), r"names the model type 'lama'.*Did you mean `llama`\?"),
    "own code": (
        lambda f: edit(f / "config.json", model_type="mine", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"}),
        r"brings its own Python code \(modeling_mine\.py\), which runs .*--trust-remote-code",
    ),
    "unknown format": (lambda f: edit(f / "config.json", dtype="bfloat17"), r"number format 'bfloat17', which.*Did you mean `bfloat16`\?"),
    "format of no tensor": (lambda f: edit(f / "config.json", dtype="nn"), "number format 'nn', which torch does not know.*float32"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer"),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer in .* cannot be read"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"has no weights \(model\.safetensors\)"),
    "pickle": (pickled, r"only as a pickle \(pytorch_model\.bin\), which can run any code .*--allow-pickle"),
    "cut short": (truncate, r"model\.safetensors is damaged: it has \d+ bytes and should have \d+"),
    "no safetensors": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 50), "not a safetensors file"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "not a safetensors file"),
    "missing shard": (shards, r"lacks 1 of \d+ weight files, first model-00002"),
    "NaN": (poisoned(float("nan")), r"hold NaN or infinity in `model\.norm\.weight`"),
    "infinity": (poisoned(float("inf")), "hold NaN or infinity"),
    "missing weight": (lambda f: weights(f, lambda t: t.pop(NORM)), r"lack `model\.norm\.weight`, which would be random"),
    "wrong shape": (lambda f: weights(f, lambda t: t.update({GATE: t[GATE][:4].clone()})), "cannot be loaded"),
    "wrong tokenizer": (grown, r"^Wrong tokenizer: .* goes up to token 300 \('Zz'\), the model has embeddings for 0 to 256"),
    "classifier": (
        lambda f: edit(f / "config.json", architectures=["LlamaForSequenceClassification"]),
        "not a causal language model: it is LlamaForSeq",
    ),
    "encoder": (
        lambda f: edit(f / "config.json", model_type="bert", architectures=["BertForMaskedLM"]),
        "not a causal language model: it is BertFor",
    ),
    "no end token": (
        lambda f: (edit(f / "config.json", eos_token_id=None), edit(f / "tokenizer_config.json", eos_token=None)),
        "has no end token",
    ),
    "notes of the future": (
        lambda f: (f / "letheon.json").write_text('{"format": "letheon.subject/9"}'),
        "has the format 'letheon.subject/9'",
    ),
    "damaged notes": (
        lambda f: (f / "letheon.json").write_text('{"format": "letheon.subject/1", "encoder": {}, "lineage": [{}]}'),
        "letheon.json is damaged",
    ),
    "adapter alone": (
        lambda f: ((f / "config.json").unlink(), (f / "adapter_config.json").write_text("{}")),
        "does not name its base model",
    ),
    "lost base": (
        lambda f: ((f / "config.json").unlink(), (f / "adapter_config.json").write_text('{"base_model_name_or_path": "/nowhere/x"}')),
        r"base model of the adapter .* cannot be found: There is no folder /nowhere/x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_has_its_sentence(folder, case):
    damage, message = BROKEN[case]
    damage(folder)
    with pytest.raises(SubjectError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_pickled_weights_load_with_the_flag(folder):
    expected = logits(load(folder).module)
    pickled(folder)
    assert torch.equal(logits(load(folder, allow_pickle=True).module), expected)


def test_a_pickle_that_runs_code_does_not_run_even_with_the_flag(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    (folder / "model.safetensors").unlink()
    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(SubjectError):
        load(folder, allow_pickle=True)
    assert not (tmp_path / "ran").exists()


def test_code_beside_the_model_does_not_run_without_the_flag(folder, tmp_path):
    (folder / "modeling_mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for kind in ("mine", "llama"):  # a type that transformers knows is loaded with the code of transformers
        edit(folder / "config.json", model_type=kind, auto_map={"AutoModelForCausalLM": "modeling_mine.A", "AutoConfig": "modeling_mine.B"})
        if kind == "mine":
            with pytest.raises(SubjectError, match="--trust-remote-code"):
                load(folder)
        else:
            assert load(folder).module.config.model_type == "llama"
    assert not (tmp_path / "ran").exists()


def test_a_wrong_path_names_the_nearest(folder, tmp_path, monkeypatch):
    with pytest.raises(SubjectError, match=rf"There is no folder {tmp_path}/modle\. Did you mean {folder}\?"):
        load(tmp_path / "modle")
    with pytest.raises(SubjectError, match=rf"has no config\.json.*Did you mean {folder}\?"):
        load(tmp_path)
    with pytest.raises(SubjectError, match=r"config\.json is a file, not a model folder\. Give the folder"):
        load(folder / "config.json")
    with pytest.raises(SubjectError, match=r"There is no folder .*There is no folder .* either"):
        load(tmp_path / "no" / "such")
    with pytest.raises(SubjectError, match=rf"Give the folder itself: {folder}"):
        load(f"hf:path={folder},dtype=auto")
    with pytest.raises(SettingsError, match="`path` of `hf`"):
        load("")


def test_hub_names_go_through_the_same_checks(folder, monkeypatch):
    asked = {}

    def fetch(name, **more):
        asked.update(more, name=name)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    subject = load("someone/tiny-model", revision="v2")
    assert subject.name == "someone/tiny-model" and subject.module.name_or_path == "someone/tiny-model"
    assert asked["name"] == "someone/tiny-model" and asked["revision"] == "v2"
    assert not {"*.bin", "*.py"} & set(asked["allow_patterns"])  # neither pickles nor code are even fetched
    load("someone/tiny-model", allow_pickle=True, trust_remote_code=True)
    assert {"*.bin", "*.py"} < set(asked["allow_patterns"])


def test_a_hub_that_does_not_answer(folder, tmp_path, monkeypatch):
    def fail(name, **_):
        raise ConnectionError("no route to host\nmore lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.chdir(tmp_path)
    message = r"`modell` is no folder here and cannot be fetched from the hub: no route to host\. Did you mean model\?"
    with pytest.raises(SubjectError, match=message):
        load("modell")


def test_a_half_adapter_is_refused(folder, tmp_path):
    adapted(load(folder)).save(tmp_path / "adapter")
    from safetensors.torch import load_file, save_file

    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    key = sorted(tensors)[0]
    save_file({k: v for k, v in tensors.items() if k != key}, file)
    with pytest.raises(SubjectError, match=f"lacks `{key}`, which would be random"):
        load(tmp_path / "adapter")
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(SubjectError, match=r"adapter_model\.safetensors is damaged"):
        load(tmp_path / "adapter")
    file.unlink()
    with pytest.raises(SubjectError, match=r"has no adapter_model\.safetensors"):
        load(tmp_path / "adapter")
    with pytest.raises(SubjectError, match=r"has no adapter_config\.json, so it is not an adapter"):
        load(folder, adapter=str(folder))


def test_an_adapter_of_another_model_is_refused(folder, tmp_path):
    adapted(toy_subject()).save(tmp_path / "adapter")
    with pytest.raises(SubjectError, match="does not fit the model|Wrong tokenizer"):
        load(folder, adapter=str(tmp_path / "adapter"))


def test_peft_that_is_not_installed(folder, tmp_path, monkeypatch):
    adapted(load(folder)).save(tmp_path / "adapter")
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(SubjectError, match=r"needs the package peft, which is not installed\. pip install peft"):
        load(tmp_path / "adapter")
