"""A team at a desk, in small: `benchmarks/desk.py` on the toy model. Four requests in three batches, the second killed by SIGKILL.

The toy model learns its rows first, so that there is something to erase; that they are gone is measured against the model that knows them.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("sqlalchemy", reason="the extra `desk` (tests/SKIPS.md)")
pytest.importorskip("cryptography", reason="the extra `desk` (tests/SKIPS.md)")

from letheon import api
from letheon.audit.earlier_requests import probabilities
from letheon.core.data import Split
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.ledger.desk import Desk
from letheon.ledger.fulfil import fulfil
from letheon.ledger.verify import verify
from letheon.testing.toys import toy_data, toy_subject

from .desks import about, lines

METHOD = {"name": "npo", "retain": "nll", "steps": 30, "batch_size": 8, "learning_rate": 2e-3, "beta": 0.3, "retain_weight": 2.0}
RECIPE = {"method": METHOD, "audit": {"name": "memorisation"}, "device": "cpu", "dtype": "float32", "checkpoint_every": 5}
BATCHES = (("Ilva Torrend",), ("Bram Okelly", "Sanne Quist"), ("Petra Lund",))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX only (tests/SKIPS.md)")
def test_four_requests_three_batches_and_a_kill(tmp_path, monkeypatch):
    monkeypatch.setenv("LETHEON_CACHE", str(tmp_path / "cache"))
    data, run = toy_data(), Run(0, device="cpu", dtype="float32", progress=False)
    learned = api.method("finetune", split="full", epochs=60, batch_size=10, learning_rate=3e-3).apply(toy_subject(), data, run)
    learned.save(tmp_path / "model")
    rows = [{"id": r.id, "prompt": r.prompt_text, "answer": r.answer, "group": r.group} for r in data["full"]]
    desk = Desk.create(tmp_path / "desk", tmp_path / "model", {"people": lines(tmp_path / "people.jsonl", rows)}, digest=learned.digest)
    for batch, names in enumerate(BATCHES):
        ids = [about(desk, name).id for name in names]
        if batch == 1:
            kill_while_training(desk, ids)
            assert {desk.get(id_).state for id_ in ids} == {"located"}
        fulfil(desk, ids, RECIPE, progress=False)
    models = [api.subject(desk.model_folder(one)) for one in desk.generations()]
    gone = {name: Split([row for row in data["full"] if row.group == name], name) for names in BATCHES for name in names}
    before, *after = ([probabilities(Readings(model, run), split).mean() for split in gone.values()] for model in models)
    kept = Split([row for row in data["full"] if row.group not in gone], "kept")
    assert min(before) > 0.5, "there was something to erase"
    assert max(after[-1]) < 0.2 * min(before), "all are gone, and none came back"
    assert after[0][0] < 0.2 * before[0], "it was gone after its own batch"
    assert probabilities(Readings(models[-1], run), kept).mean() > 0.9 * probabilities(Readings(models[0], run), kept).mean()
    assert {one.state for one in desk.all()} == {"audited"}
    ids = [one.id for one in desk.all()]
    assert [set(one.requests) for one in desk.generations()[1:]] == [{ids[0]}, {*ids[1:3]}, {ids[3]}]
    assert desk.check() == []
    for one in desk.all():
        generation = next(made for made in desk.generations() if one.id in made.requests)
        assert verify(desk.evidence(one.id), desk.model_folder(generation), [desk.keys_folder / "desk.pub"]).good
    assert changes_found(desk, tmp_path / "changed", 40) == 40


def kill_while_training(desk: Desk, ids: list[str]) -> None:
    """Start the fulfilment in a process of its own and end it by SIGKILL after its first checkpoint."""
    recipe = desk.folder.parent / "recipe.toml"
    more = {**METHOD, "steps": 60}  # the job that is gone on with keeps these
    settings = "\n".join(f"{key} = {json.dumps(value)}" for key, value in more.items())
    top = 'subject="hf"\ndata="x"\nout="x"\naudit="memorisation"\ndevice="cpu"\ndtype="float32"\ncheckpoint_every=5'
    recipe.write_text(f"{top}\n[method]\n{settings}\n", encoding="utf-8")
    command = [sys.executable, "-m", "letheon", "requests", "fulfil", *ids, "--recipe", str(recipe), "--desk", str(desk.folder), "-q"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as job:
        while not any(desk.work_folder.glob("*.run/checkpoints/step-*")):
            assert job.poll() is None, job.stderr.read()
            time.sleep(0.02)
        os.kill(job.pid, signal.SIGKILL)
    assert desk.job()["requests"] == ids
    assert desk.job()["number"] == 2


def changes_found(desk: Desk, place, count: int) -> int:
    """How many of `count` random one-byte changes of bundle, model, findings or report are found."""
    rng, found = random.Random(0), 0
    for _ in range(count):
        one = rng.choice(desk.generations()[1:])
        bundle = desk.evidence(rng.choice(one.requests))
        shutil.copytree(desk.run_folder(one), place)
        shutil.copy(bundle, place)
        files = [place / bundle.name, place / "findings.json", place / "report.html", *sorted((place / "model").iterdir())]
        file = rng.choice(files)
        content = bytearray(file.read_bytes())
        content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
        file.write_bytes(content)
        found += not verify(place / bundle.name, place / "model", [desk.keys_folder / "desk.pub"]).good
        shutil.rmtree(place)
    return found
