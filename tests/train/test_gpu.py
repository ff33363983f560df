"""What only a GPU can show: bfloat16 training, the fused kernels, the numbers of the CPU, and that memory is accounted for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import letheon as lt
from letheon.core.errors import RunError
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.testing._changes import trainer_for
from letheon.testing.toys import toy_data, toy_subject

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: see tests/SKIPS.md")
SETTINGS = {"steps": 4, "batch_size": 5, "learning_rate": 1e-3, "retain": "nll"}


def npo(device: str, **more):
    """The toy after NPO."""
    return lt.method("npo", **SETTINGS).apply(toy_subject(), toy_data(), Run(seed=0, device=device, **more))


@gpu
def test_float32_training_on_the_gpu_is_that_on_the_cpu():
    here, there = (npo(device, dtype="float32").module.state_dict() for device in ("cpu", "cuda"))
    assert max(float((here[key] - there[key].cpu()).abs().max()) for key in here) <= 1e-3


@gpu
def test_bfloat16_is_what_the_gpu_trains_in_and_weights_stay_float32():
    run = Run(seed=0, device="cuda")
    assert run.compute_dtype == torch.bfloat16
    after = npo("cuda")
    assert {p.dtype for p in after.module.parameters()} == {torch.float32} and next(after.module.parameters()).device.type == "cuda"
    assert after.lineage[-1].notes["dtype"] == "bfloat16"


@gpu
def test_steps_are_fused_and_attention_is_sdpa():
    trainer = trainer_for(lt.method("npo", **SETTINGS), toy_subject(), toy_data(), Run(seed=0, device="cuda"))
    trainer.advance()
    assert trainer.optimizer.defaults["fused"] and trainer.subject.module.config._attn_implementation == "sdpa"
    assert all(state["step"].device.type == "cuda" for state in trainer.optimizer.state.values())


@gpu
def test_readings_of_the_gpu_are_those_of_the_cpu():
    found = []
    for device in ("cpu", "cuda"):
        subject = toy_subject()
        subject.to(torch.device(device))
        readings, split = Readings(subject, Run(device=device)), toy_data()["retain"]
        found.append((readings.answers(split, moments=True).log_probability, readings.gradient_norms(split), readings.generations(split, 6)))
    for a, b in zip(found[0][:2], found[1][:2], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert found[0][2] == found[1][2]


@gpu
def test_a_resumed_run_on_the_gpu_is_the_uninterrupted_one(tmp_path):
    from .shared_work import at_step_refused

    cls, run = at_step_refused(2), Run(out=tmp_path, device="cuda", checkpoint_every=2)
    with pytest.raises(RunError, match="Enough"):
        cls(**SETTINGS).apply(toy_subject(), toy_data(), run)
    run.close()
    again = lt.method("npo", **SETTINGS).apply(toy_subject(), toy_data(), Run(out=tmp_path, device="cuda", resume=True)).module.state_dict()
    whole = npo("cuda").module.state_dict()
    assert max(float((again[key] - whole[key]).abs().max()) for key in whole) <= 1e-3


@gpu
def test_the_benchmark_accounts_for_memory():
    arguments = ["--size", "tiny", "--rows", "8", "--batch", "4", "--length", "32", "--new", "4", "--repeats", "2"]
    done = subprocess.run([sys.executable, str(BENCHMARK), *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert set(results) == {"npo", "finetune", "audit readings", "generation"}
    assert all(0 < one["share_of_peak"] < 1 and one["peak_memory_gib"] > 0 for one in results.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what is said where there is no GPU: see tests/SKIPS.md")
def test_without_a_gpu_the_benchmark_says_so():
    done = subprocess.run([sys.executable, str(BENCHMARK)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "there is no GPU" in done.stderr and "--device cpu --size tiny" in done.stderr
