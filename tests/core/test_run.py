"""Run: seeds by purpose, number formats, metrics, folders, and modules left as found."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
import torch

from letheon.core.errors import RunError
from letheon.core.run import Run, kept_as_found


def draw(run: Run, *purpose) -> list[float]:
    return torch.rand(3, generator=run.rng(*purpose)).tolist()


def test_numbers_depend_on_seed_and_purpose_alone():
    run = Run(3)
    first = draw(run, "noise", 1)
    draw(run, "other")
    torch.rand(5)
    assert draw(run, "noise", 1) == first == draw(Run(3), "noise", 1)
    others = [draw(Run(4), "noise", 1), draw(run, "noise", 2), draw(run, "noise"), draw(run, "noise", "1"), draw(run, "noise1")]
    assert all(other != first for other in others) and len({tuple(other) for other in others}) == len(others)


def test_the_seed_behind_a_generator_is_a_hash():
    text = json.dumps([3, "noise", 1])
    assert Run(3).derived_seed("noise", 1) == int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1 < 2**63


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"seed": -1}, "`seed` must be a whole number of 0 or more, got -1"),
        ({"seed": 1.5}, "`seed` must be"),
        ({"dtype": "float64"}, "`dtype` must be auto, float32, bfloat16 or float16, got 'float64'"),
    ],
)
def test_wrong_values_are_refused(values, says):
    with pytest.raises(RunError, match=says):
        Run(**values)


def test_a_device_that_is_not_here_is_one_sentence():
    with pytest.raises(RunError, match="`nonsense` cannot be used here"):
        Run(device="nonsense").device  # noqa: B018
    assert Run(device="cpu").device == torch.device("cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_number_formats(dtype):
    run = Run(device="cpu", dtype=dtype)
    assert run.compute_dtype == getattr(torch, dtype)
    with run.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == run.compute_dtype
    assert run.described() == {"seed": 0, "device": "cpu", "dtype": dtype}
    assert Run(device="cpu").compute_dtype in (torch.float32, torch.bfloat16)


def test_metrics_are_lines_that_can_be_rewound(tmp_path):
    run = Run(out=tmp_path / "deep" / "run")
    for step in (1, 2, 3):
        run.record(step=step, loss=step / 2)
    path = run.out / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "lo')  # killed while writing
    run.rewind(2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    run.record(step=3, loss=9)
    run.close()
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [0.5, 1.0, 9]


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run()
    run.record(step=1, loss=2.0)
    run.rewind(0)
    run.close()
    assert list(tmp_path.iterdir()) == [] and run.checkpoint_every == 0


def test_a_tracker_gets_the_numbers_and_nothing_else(tmp_path):
    from accelerate.tracking import GeneralTracker

    class Kept(GeneralTracker):
        name, requires_logging_directory, tracker = "kept", False, None

        def __init__(self):
            self.seen, self.settings, self.ended = [], None, False

        def store_init_configuration(self, values):
            self.settings = values

        def log(self, values, step=None, **_):
            self.seen.append((values, step))

        def finish(self):
            self.ended = True

    kept = Kept()
    run = Run(seed=4, out=tmp_path, device="cpu", trackers=(kept,))
    run.record(step=3, loss=1.5, kind="text")
    run.close()
    assert kept.seen == [({"step": 3, "loss": 1.5}, 3)] and kept.settings["seed"] == 4 and kept.ended


def test_a_file_where_the_folder_should_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="a file stands where a folder is needed"):
        Run(out=tmp_path / "file")
    with pytest.raises(RunError, match="a file stands where a folder is needed"):
        Run(out=tmp_path / "file" / "deeper")


@pytest.mark.skipif(os.geteuid() == 0, reason="no permission stops root: see tests/SKIPS.md")
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="permission denied or read-only"):
        Run(out=tmp_path)
    tmp_path.chmod(0o700)


def test_several_processes_are_seen_from_the_environment(monkeypatch):
    assert not Run().distributed
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Run().distributed


@pytest.mark.parametrize("fails", [False, True])
def test_a_module_is_left_as_found(fails):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
    module[0].eval()
    module[0].bias.requires_grad_(False)
    try:
        with kept_as_found(module):
            assert not module[1].training
            module.train()
            module.requires_grad_(True)
            if fails:
                raise ValueError
    except ValueError:
        pass
    assert (module.training, module[0].training, module[1].training) == (True, False, True)
    assert (module[0].weight.requires_grad, module[0].bias.requires_grad) == (True, False)
