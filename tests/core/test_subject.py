"""Subject: digest, fork, and saving that never harms what stood there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from letheon.core import files
from letheon.core.encode import TextEncoder
from letheon.core.errors import RunError, SubjectError
from letheon.core.subject import Step, Subject
from letheon.testing.toys import toy_subject


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_digest_follows_weights_and_encoder():
    subject = toy_subject()
    first = subject.digest
    assert first == toy_subject().digest != toy_subject(1).digest
    other = Subject(subject.module, TextEncoder(subject.encoder.tokenizer, "{prompt}"))
    assert other.digest != first
    weight = subject.module.get_input_embeddings().weight
    with torch.no_grad():
        weight[0, 0] += 1e-3
    assert subject.digest != first
    with torch.no_grad():
        weight[0, 0] -= 1e-3
        weight.copy_(toy_subject().module.get_input_embeddings().weight)
    assert subject.digest == first
    weight.data[1, 2] += 1e-3  # counts no version
    assert subject.digest != first
    weight.data[1, 2] = toy_subject().module.get_input_embeddings().weight[1, 2]
    assert subject.digest == first
    weight.detach().numpy()[3] *= -1.0
    assert subject.digest != first


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight"])
def test_the_digest_follows_an_exchange_that_keeps_the_sum(name):
    subject = toy_subject()
    weight = subject.module.get_parameter(name)
    weight.data[:] = (torch.arange(weight.numel()).view(weight.shape) % 97) / 8  # summed exactly in any order
    first, total, version = subject.digest, weight.sum(), weight._version
    weight.data[[3, 4]] = weight.data[[4, 3]]
    assert weight.sum() == total and weight._version == version and subject.digest != first


def test_a_fork_is_a_copy_unless_the_subject_is_disposable():
    subject = toy_subject()
    fork = subject.fork()
    assert fork.module is not subject.module and fork.digest == subject.digest
    with torch.no_grad():
        next(fork.module.parameters()).zero_()
    assert fork.digest != subject.digest == toy_subject().digest
    subject.disposable = True
    module = subject.module
    assert subject.fork().module is module
    with pytest.raises(SubjectError, match="handed over to a change and is gone"):
        subject.module  # noqa: B018 - the access is what is tested


def test_steps_are_added_at_the_end():
    step = Step("npo", {}, 0, "d", "b", "1")
    subject = toy_subject()
    assert subject.with_step(step).with_step(step).lineage == (step, step) and subject.lineage == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_numbers_are_named(value):
    subject = toy_subject()
    subject.check_finite()
    with torch.no_grad():
        subject.module.model.norm.weight[2] = value
    with pytest.raises(SubjectError, match=r"`toy-llama` hold NaN or infinity in `model\.norm\.weight`"):
        subject.check_finite()


def test_saving_over_a_folder_needs_to_be_asked_for(tmp_path):
    toy_subject(0).save(tmp_path / "out")
    before = listing(tmp_path)
    with pytest.raises(RunError, match="already exists"):
        toy_subject(1).save(tmp_path / "out")
    assert listing(tmp_path) == before
    toy_subject(1).save(tmp_path / "out", replace=True)
    toy_subject(1).save(tmp_path / "other")
    assert listing(tmp_path / "out") == listing(tmp_path / "other") and len(list(tmp_path.iterdir())) == 2


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["weights", "notes", "flush", "move"])
def test_a_full_disk_leaves_the_old_model(tmp_path, monkeypatch, where):
    old, new = toy_subject(0), toy_subject(1)
    old.save(tmp_path / "out")
    before = listing(tmp_path)
    monkeypatch.setattr(files, "_exchanged", lambda *_: False)
    if where == "weights":
        from safetensors import SafetensorError

        def refuse(*_, **__):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        monkeypatch.setattr("transformers.modeling_utils.safe_save_file", refuse)
    elif where == "move":
        move, refused = os.replace, []

        def refuse(source, target):
            if Path(target) == tmp_path / "out" and not refused:
                refused.append(source)
                full()
            move(source, target)

        monkeypatch.setattr(os, "replace", refuse)
    else:
        monkeypatch.setattr(f"letheon.core.{'subject.write_text' if where == 'notes' else 'files._flush'}", full)
    with pytest.raises(RunError, match="No space left on the disk while writing .*out"):
        new.save(tmp_path / "out", replace=True)
    assert listing(tmp_path) == before and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_disk_that_really_refuses(tmp_path, no_file_beyond):
    """Safetensors meets the limit in its own code, and the fault is still one sentence."""
    toy_subject().save(tmp_path / "out")
    before = listing(tmp_path)
    with no_file_beyond(40_000), pytest.raises(RunError, match="out cannot be written: File too large"):
        toy_subject(1).save(tmp_path / "out", replace=True)
    assert listing(tmp_path) == before


def test_the_folder_a_model_came_from_may_be_replaced_by_its_successor(tmp_path):
    from letheon.subjects.hf import load

    toy_subject().save(tmp_path / "m")
    subject = load(tmp_path / "m").fork()
    with torch.no_grad():
        next(subject.module.parameters()).mul_(2)
    subject.save(tmp_path / "m", replace=True)
    assert load(tmp_path / "m").digest == subject.digest
