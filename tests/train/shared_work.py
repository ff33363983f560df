"""What `test_processes.py` has one process do alone and two processes do together."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path

PLAIN = {"name": "npo", "steps": 4, "batch_size": 5, "learning_rate": 1e-3, "tokens_per_batch": 128}
CASES = {
    "npo, nll": PLAIN | {"retain": "nll"},
    "npo, kl": PLAIN | {"retain": "kl"},
    "npo, geometric": PLAIN | {"retain": "nll", "rule": "geometric:vectors=2"},
    "npo, pcgrad": PLAIN | {"retain": "nll", "rule": "pcgrad"},
    "pdu": PLAIN | {"name": "logit-flattening", "retain_weight": 100.0, "rule": "primal-dual:start_rows=8"},
    "loku": PLAIN | {"name": "inverted-hinge", "parameters": "fila:rank=2,alpha=4"},
    "reglu": PLAIN | {"parameters": "reglu:rank=2,alpha=4"},
    "sure": PLAIN | {"parameters": "sure:percentile=60", "retain": "kl"},
    "layers": PLAIN | {"parameters": "layers:pattern=mlp"},
    "one row": PLAIN | {"batch_size": 1, "rule": "pcgrad", "steps": 2},  # nothing falls to the second process
}


def trained(settings: dict, out: Path | None = None, cls: type | None = None, architecture: str = "llama", **more):
    """The toy subject after a method given as in a recipe, or after a class."""
    import letheon as lt
    from letheon.core.run import Run
    from letheon.testing.toys import toy_data, toy_subject

    settings = dict(settings)
    name = settings.pop("name")
    run = Run(out=out, device="cpu", dtype="float32", **more)
    try:
        return (cls(**settings) if cls else lt.method(name, **settings)).apply(toy_subject(architecture=architecture), toy_data(), run)
    finally:
        run.close()


def at_step(number: int, act):
    """NPO that does something when step `number` is done."""
    from letheon.erase.npo import NPO

    class Acting(NPO):
        def stepped(self, subject, step):
            if step == number:
                act()

        def loss(self, subject, batches):
            if number == 0:
                act()
            return super().loss(subject, batches)

    Acting.__module__ = NPO.__module__  # the same name: the same work
    return Acting


def process(rank: int, port: int, folder: Path, jobs: list[str], world: int = 2) -> None:
    """One of several processes: does all jobs, and writes what came of them to `folder/rank.json`."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LETHEON_TIMEOUT": "120"}
    import torch

    torch.set_num_threads(1)
    found = {}
    for job in jobs:
        try:
            found[job] = globals()[job](rank, folder)
        except Exception as error:
            found[job] = {"error": type(error).__name__, "message": str(error), "trace": traceback.format_exc()}
        (folder / f"{rank}.json").write_text(json.dumps(found))


def cases(rank: int, folder: Path) -> dict:
    """Every case; both call `save`. The digest that each ends with."""
    found = {}
    for name, settings in CASES.items():
        after = trained(settings, folder / name)
        after.save(folder / name / "model")
        found[name] = after.digest
    return found


SHARDED = {
    "npo": PLAIN,
    "npo, kl, one row": PLAIN | {"retain": "kl", "batch_size": 1},
    "layers": PLAIN | {"parameters": "layers:pattern=mlp"},
    **{name: CASES[name] for name in ("npo, geometric", "npo, pcgrad", "pdu", "loku", "one row")},
}


def sharded(rank: int, folder: Path) -> dict:
    """With FSDP: digests, the share of all weights that each process holds while it trains, what resuming gives, and what is refused."""
    from letheon.core.errors import MethodError
    from letheon.train.loop import Trainer

    found, held, advance = {"refused": []}, [], Trainer.advance
    Trainer.advance = lambda self: (held.append([sum(t.numel() for t in shares(self, part)) for part in ("here", "all")]), advance(self))[1]
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    try:
        for name, settings in SHARDED.items():
            after = trained(settings, folder / f"sharded {name}")
            after.save(folder / f"sharded {name}" / "model")
            found[name] = after.digest
        found["held"] = [here / everywhere for here, everywhere in held]
        trained(PLAIN, architecture="gpt2").save(folder / "sharded gpt2")
        trained(PLAIN, folder / "cut", at_step_refused(2), checkpoint_every=2)
    except Exception as error:
        found["stopped"] = str(error)
    try:
        found["resumed"] = trained(PLAIN, folder / "cut", resume=True).digest
        for wrong in ({"parameters": "sure"}, {"parameters": "reglu"}, {"name": "rmu"}):
            try:
                trained(PLAIN | wrong)
            except MethodError as error:
                found["refused"].append(str(error))
    finally:
        Trainer.advance = advance
        del os.environ["ACCELERATE_USE_FSDP"]
    return found


def shares(trainer, part: str) -> list:
    """The weights of a trainer: the parts of them that are here, or all."""
    return [p.to_local() if part == "here" else p for p in trainer.parameters]


def at_step_refused(number: int):
    """NPO that cannot take more than so many steps."""
    from letheon.core.errors import RunError
    from letheon.erase.npo import NPO

    class Ending(NPO):
        def done(self, values):
            self.taken = getattr(self, "taken", 0) + 1
            if self.taken > number:
                raise RunError("Enough", "for a test")
            return False

    Ending.__module__ = NPO.__module__
    return Ending


def frozen(rank: int, folder: Path) -> dict:
    """Which rows each process has measured, and the numbers that it has in the end."""
    from letheon.core.forward import Batches
    from letheon.testing.toys import toy_data, toy_subject
    from letheon.train.frozen import FrozenStates, FrozenScores, frozen_nll

    subject, seen, nll = toy_subject(), [], Batches.nll
    feed, run = one_feed(subject, toy_data())
    Batches.nll = lambda self, module, split: (seen.extend(self[split].rows.tolist()), nll(self, module, split))[1]
    try:
        rows = frozen_nll(subject, feed, "forget", run).tolist()
    finally:
        Batches.nll = nll
    states, tokens = FrozenStates(subject, feed, "forget", run).states, FrozenScores(subject, feed, "forget", run).values
    return {"seen": seen, "rows": rows, "states": states.tolist(), "tokens": tokens.tolist()}


def one_feed(subject, data):
    """What NPO eats in four steps, and a run."""
    import letheon as lt
    from letheon.core.run import Run
    from letheon.train.loop import feed_for

    run = Run(device="cpu", dtype="float32")
    settings = {key: value for key, value in PLAIN.items() if key != "name"}
    return feed_for(lt.method("npo", **settings | {"tokens_per_batch": 64}), subject, data, run), run


def resumed(rank: int, folder: Path) -> dict:
    """Interrupted after step 3, and taken up again; the second process is given a folder that it must leave alone."""
    out = folder / ("resumed" if rank == 0 else "elsewhere")

    def stop():
        raise KeyboardInterrupt

    found = {}
    try:
        trained(PLAIN | {"rule": "primal-dual"}, out, at_step(3, stop), checkpoint_every=2)
    except Exception as error:
        found["interrupted"] = str(error)
    found["digest"] = trained(PLAIN | {"rule": "primal-dual"}, out, resume=True).digest
    found["whole"] = trained(PLAIN | {"rule": "primal-dual"}).digest
    return found


def failing(rank: int, folder: Path) -> None:
    """The second process meets an error in its part of the first step."""
    from letheon.core.errors import MethodError

    def fail():
        if rank == 1:
            raise MethodError("The second process cannot go on", "Do without it")

    trained(PLAIN, None, at_step(0, fail))


def diverging(rank: int, folder: Path) -> None:
    """All weights run away in the first step."""
    trained(PLAIN | {"runaway": 1e-9}, folder / "diverging")


def other_seed(rank: int, folder: Path) -> None:
    """The two were not started alike."""
    trained(PLAIN, None, seed=rank)


def alone(rank: int, folder: Path) -> str | None:
    """What the first process does alone does not wait for the second."""
    from letheon.core import processes

    with processes.alone():
        return trained(PLAIN).digest if rank == 0 else None


def gone(rank: int, folder: Path) -> None:
    """The second process disappears after the second step."""
    trained(PLAIN, folder / "gone", at_step(2, lambda: os._exit(0) if rank else None))


CUT = PLAIN | {"retain": "nll", "rule": "geometric:vectors=2", "steps": 6}


def killed(rank: int, folder: Path) -> None:
    """With FSDP: the second process is killed while it writes its part of the fourth checkpoint."""
    import signal

    from letheon.train import checkpoint

    os.environ["ACCELERATE_USE_FSDP"] = "true"
    written, save = [], checkpoint.save_file

    def save_file(tensors, path):
        written.append(path)
        if rank == 1 and len(written) == 4:
            path.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        save(tensors, path)

    checkpoint.save_file = save_file
    trained(CUT, folder / "cut", checkpoint_every=1)


def taken_up(rank: int, folder: Path) -> dict:
    """With FSDP: the run goes on from what is in the folder; and the run that nothing disturbed."""
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    found = {"resumed": trained(CUT, folder / "cut", resume=True, checkpoint_every=1).digest}
    found["whole"] = trained(CUT).digest
    return found


def read_together(rank: int, folder: Path) -> dict | None:
    """The first process reads, the second its share: what was found, which rows each has measured, and what is told of an error."""
    from letheon.core import answers, crew
    from letheon.core.errors import LetheonError
    from letheon.core.readings import Readings
    from letheon.core.run import Run
    from letheon.testing.toys import toy_data, toy_subject

    subject, other, data, run, seen, facts = toy_subject(), toy_subject(seed=1), toy_data(), Run(device="cpu", dtype="float32"), [], answers._facts
    answers._facts = lambda subject, encoded, owner, *more: (seen.append(len(set(owner.tolist()))), facts(subject, encoded, owner, *more))[1]
    found = {"seen": seen}
    with crew.together({"after": subject, "retrained": None}, run) as leads:
        if leads:
            found |= readings_of(Readings(subject, run), data)
            one = len(seen)
            Readings(other, run).answers(data["retain"])
            found["alone"] = seen[one:]
            try:
                Readings(subject, run).answers(too_long(data["retain"]))
            except LetheonError as error:
                found["error"] = str(error)
            again = Readings(subject, run).answers(data["holdout"]).sum_nll()
            found["after the error"] = again.tolist()
    found["leads"] = leads
    return found


def too_long(split):
    """A split with one row beyond the context."""
    from dataclasses import replace

    from letheon.core.data import Split

    return Split([replace(row, answer=row.answer * (400 if i == 3 else 1)) for i, row in enumerate(split)], split.name)


def readings_of(readings, data) -> dict:
    """All kinds of readings of a split."""
    found = readings.answers(data["retain"], "wrong", moments=True)
    columns = {name: getattr(found, name).tolist() for name in ("log_probability", "mean", "variance", "rank", "target", "owner", "offsets")}
    said = readings.generations(data["retain"], 6)
    return {**columns, "said": said, "norms": readings.gradient_norms(data["retain"]).tolist(), "hits": dict(readings.hits)}
