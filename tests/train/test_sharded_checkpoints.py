"""Checkpoints of weights that are cut up: a file for each process, whole or absent, for any number of processes."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from letheon.core.errors import RunError
from letheon.train import checkpoint

from .shared_work import CUT, trained
from .test_processes import close, lines, started


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """The folder of a run of two processes, one of which was killed while it wrote its part of the fourth checkpoint."""
    folder = tmp_path_factory.mktemp("cut")
    said = started(folder, ["killed"])
    assert said[0]["killed"]["message"].startswith("Another of 2 processes has ended") and said[1] == {}
    return folder / "cut"


@pytest.fixture
def copied(cut, tmp_path):
    shutil.copytree(cut, tmp_path / "cut")
    return tmp_path


def test_each_process_writes_its_rows_and_a_half_written_checkpoint_is_none(cut):
    assert [path.name for path in (cut / "checkpoints").glob("step-*")] == ["step-000003"]
    step, _, folder = checkpoint.newest(cut)
    assert step == 3
    assert sorted(path.name for path in folder.iterdir()) == ["about.json", *(f"state-0000{k}-of-00002.safetensors" for k in (1, 2))]
    sizes = [path.stat().st_size for path in sorted(folder.glob("*.safetensors"))]
    assert 0.8 < sizes[0] / sizes[1] < 1.25, "about half each"
    tensors = checkpoint.load(folder)
    shapes = {name: p.shape for name, p in trained(CUT | {"steps": 1}).module.named_parameters()}
    for kind in ("weight", "exp_avg", "exp_avg_sq"):
        assert {key.removeprefix(f"{kind}/"): t.shape for key, t in tensors.items() if key.startswith(f"{kind}/")} == shapes
    assert all(float(tensors[f"step/{name}"]) == 3 for name in shapes)
    assert any(key.startswith("extra/000/") for key in tensors), "the rule's state is there"


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_any_number_of_processes_reads_its_own_rows(cut, world):
    folder = checkpoint.newest(cut)[2]
    whole, parts = checkpoint.load(folder), [checkpoint.load(folder, (rank, world)) for rank in range(world)]
    for key, tensor in whole.items():
        if key.startswith("extra/") or not tensor.ndim:
            assert all(torch.equal(part[key], tensor) for part in parts)
        else:
            assert [len(part[key]) for part in parts if len(part[key])] == [len(piece) for piece in tensor.chunk(world)]
            assert torch.equal(torch.cat([part[key] for part in parts]), tensor)


@pytest.mark.parametrize("world", [2, 3])
def test_the_run_is_taken_up_by_as_many_processes_and_by_more(copied, world):
    for told in started(copied, ["taken_up"], world):
        assert told["taken_up"].get("trace") is None, told["taken_up"]["trace"]
        if world == 2:
            assert told["taken_up"]["resumed"] == told["taken_up"]["whole"], "to the bit"
    assert [line["step"] for line in lines(copied / "cut")] == list(range(1, 7))
    tensors = checkpoint.load(checkpoint.newest(copied / "cut")[2])
    close(dict(trained(CUT).module.named_parameters()), {k.removeprefix("weight/"): t for k, t in tensors.items() if k.startswith("weight/")})


def test_one_process_takes_it_up(copied):
    close(trained(CUT).module.state_dict(), trained(CUT, copied / "cut", resume=True).module.state_dict())


def test_a_missing_part_is_said(copied):
    folder = checkpoint.newest(copied / "cut")[2]
    (folder / "state-00002-of-00002.safetensors").unlink()
    with pytest.raises(RunError, match="a part of it is missing"):
        checkpoint.load(folder)
    (folder / "about.json").write_text(json.dumps({"step": 3}))
    (folder / "state-00001-of-00002.safetensors").write_bytes(b"half")
    with pytest.raises(RunError, match="cannot be read"):
        checkpoint.load(folder)
