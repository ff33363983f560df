"""Two processes against one: the same losses and weights, one writer, one sentence when something fails, and no waiting for the dead.

In float32 the two differ from one in the order of sums only. Losses and norms then agree to 1e-5 of their size; what `geometric` tells of
angles, where gradients are divided by Adam's denominators, to 1e-3. Weights move by up to the step size, 1e-3, per step, in directions
that Adam divides by their own size; where a gradient is itself rounding noise that shows. So weights agree to a tenth of one step, 1e-4, and
on average to 1e-6.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import socket

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from letheon.core.errors import RunError
from letheon.core.run import Run
from letheon.testing.toys import toy_data, toy_subject

from . import shared_work
from .shared_work import CASES, PLAIN, SHARDED, one_feed, trained

NUMBERS, WEIGHTS, MEAN, MOVED = 1e-5, 1e-4, 1e-6, 1e-3
ANGLES = {"dot", "cosine", "cut", "forget_slope", "retain_slope"}
JOBS = ["cases", "frozen", "resumed", "failing", "diverging", "other_seed", "alone", "sharded", "gone"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder that two processes have worked in, and what each says of its jobs."""
    folder = tmp_path_factory.mktemp("two")
    return folder, started(folder, JOBS)


def started(folder, jobs, world=2):
    """What each of several processes says of its jobs."""
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("this PyTorch has no gloo: see tests/SKIPS.md")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["letheon.testing.toys", "transformers.models.llama.modeling_llama", "peft", "accelerate"])
    all_of_them = [context.Process(target=shared_work.process, args=(rank, port, folder, jobs, world)) for rank in range(world)]
    for one in all_of_them:
        one.start()
    for one in all_of_them:
        one.join(200)
    hung = [one.is_alive() for one in all_of_them]
    for one in all_of_them:
        one.kill()
    assert not any(hung)
    said = [folder / f"{rank}.json" for rank in range(world)]
    return [json.loads(file.read_text()) if file.is_file() else {} for file in said]


def close(weights, found):
    """Whether two sets of weights are the same but for the order of sums."""
    assert weights.keys() == found.keys()
    differ = torch.cat([(weights[key] - found[key]).abs().flatten() for key in weights])
    assert float(differ.max()) <= WEIGHTS and float(differ.mean()) <= MEAN


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", CASES)
def test_losses_and_weights_are_those_of_one_process(two, name, tmp_path):
    folder, (first, second) = two
    assert first["cases"].get("trace") is None, first["cases"]["trace"]
    assert first["cases"][name] == second["cases"][name], "both end with the same bits"
    one = trained(CASES[name], tmp_path)
    alone, shared = lines(tmp_path), lines(folder / name)
    assert [line["step"] for line in shared] == list(range(1, CASES[name]["steps"] + 1)), "one line per step: one process writes"
    for a, b in zip(alone, shared, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"time", "dot_after", "cosine_after"}:  # the last two are 0 on paper, and noise
            apart = 1e-3 if key in ANGLES else NUMBERS
            assert b[key] == pytest.approx(a[key], rel=apart, abs=apart), key
    start, weights, found = toy_subject().module.state_dict(), one.module.state_dict(), load_file(folder / name / "model" / "model.safetensors")
    close(weights, found)
    assert max(float((weights[key] - start[key]).abs().max()) for key in weights) > MOVED
    still = {key for key in weights if torch.equal(weights[key], start[key])}
    assert still == {key for key in weights if torch.equal(found[key], start[key])}


def test_frozen_numbers_are_shared_and_have_the_bits_of_one_process(two):
    from letheon.train.frozen import FrozenStates, FrozenScores, frozen_nll

    shares = [told["frozen"] for told in two[1]]
    subject = toy_subject()
    feed, run = one_feed(subject, toy_data())
    everything = {"rows": frozen_nll(subject, feed, "forget", run).tolist(), "states": FrozenStates(subject, feed, "forget", run).states.tolist()}
    everything["tokens"] = FrozenScores(subject, feed, "forget", run).values.tolist()
    for key, expected in everything.items():
        assert shares[0][key] == expected and shares[1][key] == expected
    assert sorted(shares[0]["seen"] + shares[1]["seen"]) == feed.used("forget").tolist(), "each row is measured once"
    assert shares[0]["seen"] and shares[1]["seen"]


def test_only_the_first_writes_and_both_resume_from_what_it_wrote(two):
    folder, both = two
    for told in both:
        assert told["resumed"]["interrupted"].startswith("Interrupted after step 3 of 4"), told["resumed"]
        assert told["resumed"]["digest"] == told["resumed"]["whole"] == both[0]["resumed"]["whole"]
    assert [line["step"] for line in lines(folder / "resumed")] == [1, 2, 4]  # as with one process: the line of step 3 was never written
    assert not (folder / "elsewhere").exists()


def test_an_error_in_one_process_is_the_same_error_in_both(two):
    for told in two[1]:
        assert told["failing"]["error"] == "MethodError"
        assert told["failing"]["message"] == "The second process cannot go on. Do without it"


def test_divergence_stops_both_after_the_first_has_saved(two):
    folder, both = two
    assert both[0]["diverging"]["message"] == both[1]["diverging"]["message"]
    assert "diverged at step 1 of 4" in both[1]["diverging"]["message"]
    assert str(folder / "diverging" / "checkpoints" / "step-000000") in both[1]["diverging"]["message"]
    assert (folder / "diverging" / "checkpoints" / "step-000000").is_dir()


def test_processes_that_were_started_differently_are_refused(two):
    first, second = (told["other_seed"] for told in two[1])
    assert first["error"] == second["error"] == "RunError"
    assert "another `seed`" in first["message"] and "another `seed`" in second["message"]


def test_what_one_does_alone_is_what_one_process_does(two):
    assert two[1][0]["alone"] == trained(PLAIN).digest and two[1][1]["alone"] is None


def test_a_process_that_disappears_is_not_waited_for(two):
    folder, both = two
    assert both[0]["gone"]["error"] == "RunError" and "gone" not in both[1]
    assert both[0]["gone"]["message"].startswith("Another of 2 processes has ended")
    assert "after step 2 of 4" in both[0]["gone"]["message"] and "--resume" in both[0]["gone"]["message"]
    after = trained(PLAIN, folder / "gone", resume=True)  # by one process, which may go on with what two began
    close(trained(PLAIN).module.state_dict(), after.module.state_dict())


@pytest.mark.parametrize("name", SHARDED)
def test_cut_up_weights_give_the_weights_of_one_process_in_a_plain_folder(two, name, tmp_path):
    folder, (first, second) = two
    assert first["sharded"][name] == second["sharded"][name]
    one = trained(SHARDED[name], tmp_path).module.state_dict()
    found = load_file(folder / f"sharded {name}" / "model" / "model.safetensors")
    close(one, found)
    alone, shared = lines(tmp_path), lines(folder / f"sharded {name}")
    assert [line["loss"] for line in shared] == pytest.approx([line["loss"] for line in alone], rel=NUMBERS)
    assert [line["gradient_norm"] for line in shared] == pytest.approx([line["gradient_norm"] for line in alone], rel=NUMBERS)


def test_each_process_holds_half_of_cut_up_weights(two):
    shares = [told["sharded"]["held"] for told in two[1]]
    assert len(shares[0]) == sum(settings["steps"] for settings in SHARDED.values()) and all(a + b == 1 and 0.4 < a < 0.6 for a, b in zip(*shares, strict=True))


def test_cut_up_tied_weights_stay_tied(two):
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(two[0] / "sharded gpt2")
    assert module.lm_head.weight is module.transformer.wte.weight
    one, found = trained(PLAIN, architecture="gpt2").module.state_dict(), module.state_dict()
    for key in one:  # a bias of all keys of attention has no gradient on paper: Adam makes steps out of what rounding leaves of it
        differ = (one[key] - found[key]).abs() > WEIGHTS
        assert not (differ[:32].any() or differ[64:].any() if key.endswith("c_attn.bias") else differ.any()), key


def test_cut_up_weights_resume_and_what_they_cannot_do_is_refused(two):
    for told in two[1]:
        assert told["sharded"]["stopped"] == "Enough. for a test"
        assert told["sharded"]["resumed"] == told["sharded"]["npo"]
        for word, message in zip(("sure", "reglu", "rmu"), told["sharded"]["refused"], strict=True):
            assert f"`{word}`" in message and "Start without FSDP" in message


@pytest.mark.parametrize("world", [2, 3, 7])
def test_rows_of_a_step_are_dealt_once_and_evenly(world):
    subject = toy_subject()
    feed, _ = one_feed(subject, toy_data())
    step = {"forget": np.arange(8), "retain": np.arange(12)[::-1].copy()}
    shares = [feed.share(step, ("forget",), rank, world) for rank in range(world)]
    for split, rows in step.items():
        dealt = [share.get(split, np.zeros(0, dtype=int)) for share in shares]
        assert sorted(np.concatenate(dealt).tolist()) == sorted(rows.tolist())
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
        lengths = [float(feed.encoded[split].lengths[part].mean()) for part in dealt if len(part)]
        assert world > 2 or max(lengths) - min(lengths) <= 2, "of every length as many"


def test_tied_rows_stay_together():
    feed, _ = one_feed(toy_subject(), toy_data())
    step = {"forget": np.arange(8), "retain": np.arange(8)[::-1].copy()}
    for rank in (0, 1):
        share = feed.share(step, ("forget", "retain"), rank, 2)
        assert (share["forget"] + share["retain"] == 7).all() and len(share["forget"]) == 4
    assert feed.micro_steps(feed.share({"forget": np.array([3])}, ("forget",), 1, 2), ("forget",)) == []


def test_one_process_exchanges_nothing(monkeypatch):
    from letheon.core import processes

    monkeypatch.setattr(processes, "join", lambda **more: pytest.fail("there is nobody to meet"))
    tensor = torch.ones(2)
    processes.summed([tensor])
    with processes.agreed() as here:
        here.value = 3
    assert here.all == [3] and processes.exchanged(4) == [4] and processes.once(lambda: 5) == 5 and processes.share([1, 2]) == [1, 2]
    assert processes.sent({"a": tensor}, "cpu")["a"] is tensor and torch.equal(tensor, torch.ones(2))
    with pytest.raises(ValueError), processes.agreed():
        raise ValueError


def test_who_is_who_stands_in_the_environment(monkeypatch, tmp_path):
    from letheon.core import processes

    assert (processes.size(), processes.rank(), processes.first(), processes.speaks()) == (1, 0, True, True)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert (processes.size(), processes.rank(), processes.first(), processes.share(range(10))) == (4, 2, False, range(2, 10, 4))
    run = Run(out=tmp_path / "out", progress=True)
    run.record(step=1)
    assert not run.progress and not (tmp_path / "out").exists() and run.distributed
    with processes.alone():
        assert (processes.size(), processes.rank(), processes.first()) == (1, 0, True)
    for wrong in ("0", "soon", "inf"):
        monkeypatch.setenv("LETHEON_TIMEOUT", wrong)
        with pytest.raises(RunError, match="LETHEON_TIMEOUT"):
            processes.timeout()


def test_numbers_travel_in_buckets_of_one_type(monkeypatch):
    from letheon.core import processes

    monkeypatch.setattr(processes, "BUCKET", 5)
    tensors = [torch.ones(2), torch.ones(3), torch.ones(1), torch.ones(1, dtype=torch.float64), torch.ones(9)]
    assert [sum(t.numel() for t in bucket) for bucket in processes._buckets(tensors)] == [5, 1, 1, 9]
    assert math.isclose(processes.timeout(), 600)
