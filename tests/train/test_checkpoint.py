"""Checkpoints: whole or absent, no pickle, one at a time, damage told in one sentence."""

from __future__ import annotations

import json

import pytest
import torch

from letheon.core import files
from letheon.core.errors import RunError
from letheon.train import checkpoint


def work(seed: int = 0):
    """Two weights after two steps of AdamW."""
    generator = torch.Generator().manual_seed(seed)
    named = {"a.weight": torch.nn.Parameter(torch.randn(3, 2, generator=generator)), "b": torch.nn.Parameter(torch.randn(4, generator=generator))}
    optimizer = torch.optim.AdamW(named.values(), lr=0.1, fused=True)
    for _ in range(2):
        advance(named, optimizer)
    return named, optimizer


def advance(named, optimizer) -> None:
    for parameter in named.values():
        parameter.grad = parameter.detach() ** 2 + 1
    optimizer.step()


def test_restored_work_goes_on_to_the_same_bits(tmp_path):
    named, optimizer = work()
    extra = {"weights": torch.arange(3.0)}
    checkpoint.save(tmp_path, 2, "mark", named, optimizer, extra)
    other = work(seed=1)[0]
    fresh = torch.optim.AdamW(other.values(), lr=0.1, fused=True)
    step, mark, folder = checkpoint.newest(tmp_path)
    found = checkpoint.restore(folder, other, fresh)
    assert (step, mark) == (2, "mark") and torch.equal(found["weights"], extra["weights"])
    for _ in range(2):
        advance(named, optimizer)
        advance(other, fresh)
    assert all(torch.equal(named[name], other[name]) for name in named)


def test_before_the_first_step_there_are_no_moments(tmp_path):
    named = {"w": torch.nn.Parameter(torch.ones(2))}
    optimizer = torch.optim.AdamW(named.values())
    folder = checkpoint.save(tmp_path, 0, "m", named, optimizer, {})
    fresh = torch.optim.AdamW(named.values())
    assert checkpoint.restore(folder, named, fresh) == {} and len(fresh.state) == 0


def test_only_the_newest_is_kept_and_nothing_is_pickled(tmp_path):
    named, optimizer = work()
    for step in (2, 50, 9):
        checkpoint.save(tmp_path, step, "m", named, optimizer, {})
    (kept,) = (tmp_path / "checkpoints").iterdir()
    assert kept.name == "step-000009"
    assert sorted(file.name for file in kept.iterdir()) == ["about.json", "state.safetensors"]
    checkpoint.clear(tmp_path)
    assert checkpoint.newest(tmp_path) is None and not (tmp_path / "checkpoints").exists()


def test_a_crash_while_writing_leaves_the_old_one(tmp_path, monkeypatch):
    named, optimizer = work()
    checkpoint.save(tmp_path, 1, "m", named, optimizer, {})

    def crash(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", crash)
    with pytest.raises(RunError, match="No space left"):
        checkpoint.save(tmp_path, 2, "m", named, optimizer, {})
    assert checkpoint.newest(tmp_path)[0] == 1
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]


def test_a_disk_that_really_refuses_leaves_the_old_one(tmp_path, no_file_beyond):
    named, optimizer = work()
    checkpoint.save(tmp_path, 1, "m", named, optimizer, {})
    with no_file_beyond(200), pytest.raises(RunError, match="step-000002 cannot be written: File too large"):
        checkpoint.save(tmp_path, 2, "m", named, optimizer, {})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]


def test_a_part_that_another_process_cannot_write_is_one_sentence_too(tmp_path, monkeypatch, no_file_beyond):
    """The first process makes the folder; here it is this one's own, as that of a process that is not the first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint.processes, "first", lambda: False)
    monkeypatch.setattr(checkpoint, "is_cut", lambda tensor: True)
    monkeypatch.setattr(checkpoint, "here", lambda tensor: tensor)
    with no_file_beyond(200), pytest.raises(RunError, match="step-000002 cannot be written: File too large"):
        checkpoint.save(tmp_path, 2, "m", *work(), {})


def test_a_folder_appears_only_when_it_is_whole(tmp_path, monkeypatch):
    named, optimizer = work()
    seen = []
    replace = files.os.replace

    def watch(source, target):
        seen.append((sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*")), str(target)))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", watch)
    folder = checkpoint.save(tmp_path, 3, "m", named, optimizer, {})
    assert seen[-1] == ([], str(folder)), "until the last move no folder has the right name"


@pytest.mark.parametrize("broken", ["about.json", "state.safetensors"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_damage_is_one_sentence(broken, how, tmp_path):
    named, optimizer = work()
    folder = checkpoint.save(tmp_path, 1, "m", named, optimizer, {})
    path = folder / broken
    path.write_bytes(path.read_bytes()[:7]) if how == "cut" else path.unlink()
    with pytest.raises(RunError, match="cannot be read") as caught:
        checkpoint.restore(checkpoint.newest(tmp_path)[2], named, optimizer)
    assert "--resume" in caught.value.hint


def test_a_checkpoint_without_a_step_is_damaged(tmp_path):
    folder = tmp_path / "checkpoints" / "step-000001"
    folder.mkdir(parents=True)
    (folder / "about.json").write_text(json.dumps({"fingerprint": "m"}))
    with pytest.raises(RunError, match="cannot be read"):
        checkpoint.newest(tmp_path)


def test_a_checkpoint_of_other_weights_is_one_sentence(tmp_path):
    named, optimizer = work()
    folder = checkpoint.save(tmp_path, 1, "m", {"b": named["b"]}, optimizer, {})
    with pytest.raises(RunError, match=r"has no weight `a\.weight` of the right shape"):
        checkpoint.restore(folder, named, optimizer)


def test_fingerprints_depend_on_every_part_and_not_on_order():
    one = checkpoint.fingerprint(seed=0, settings={"a": 1, "b": (1, 2)})
    assert one == checkpoint.fingerprint(settings={"b": (1, 2), "a": 1}, seed=0)
    assert len({one, checkpoint.fingerprint(seed=1, settings={"a": 1, "b": (1, 2)}), checkpoint.fingerprint(seed=0, settings={"a": 1, "b": (1, 3)})}) == 3
