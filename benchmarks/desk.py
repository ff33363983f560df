"""A team at a desk: 12 requests over 4 batches on the embedded world, with the process killed in the middle of the third.

    python benchmarks/desk.py --out runs/desk [--pair PAIR] [--seed 1] [--method retrain]

Each request is an invented author with 30 rows in three forms, asked for by name, by query or by rows. A scripted reviewer keeps rows about
others. Batch 3 is killed (SIGKILL) while it trains and again while it audits, and the same command is given again. Then, against the exact
retrain without the 12 authors:

    gone         every author, after the last batch: still-known = (p(now) - p(never)) / (p(before) - p(never)) at most 0.2
    own batch    the same of every author right after its own batch
    verdict      the default audit of the last model on all 12 calls them gone: `Gone as far as measured` or `Mostly gone`
    came back    by how much still-known of an author has risen since its own batch; at most 0.1
    utility      model utility of the last model, at least 0.97 of the retrain's, by the default audit
    verified     every bundle
    tampering    200 random one-byte changes of bundle, model, findings or report; all must be found

p is the mean of exp(-mean nll) over the author's rows of all forms. The method's settings were chosen on the world of seed 0, so numbers of
that seed are no test of them. Prints JSON. The pair is trained unless it is given (`letheon micro`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from letheon import api
from letheon.audit.earlier_requests import probabilities
from letheon.core.data import Data, Example, Split
from letheon.core.readings import Readings
from letheon.core.run import Run
from letheon.data._authors_people import make_person, make_world
from letheon.ledger.desk import Desk
from letheon.ledger.records import Generation
from letheon.ledger.verify import verify
from letheon.report import verdict

PEOPLE, ASKED, BATCHES = 60, 12, 4
DATA: dict[str, Any] = {"people": PEOPLE, "forget": ASKED, "forms": ("question", "cloze", "paraphrase")}
LEARNED = ("name=finetune", "epochs=16", "learning_rate=2e-3", "schedule=cosine", "warmup=0.05", "weight_decay=0.0", "prompt_weight=0.2")
METHODS = {
    "npo": ("npo:retain=nll,learning_rate=7e-4,epochs=12,beta=1.0,retain_weight=3.0",),
    "retrain": ("retrain", *(part for one in LEARNED for part in ("--set", f"inner.{one}"))),
}
GONE, BACK, USEFUL, CHANGES = 0.2, 0.1, 0.97, 200


def letheon(*arguments: object) -> str:
    """One command; its output."""
    done = subprocess.run([sys.executable, "-m", "letheon", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"letheon {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def killed(seen: Path, pattern: str, *arguments: object) -> bool:
    """Start a command and kill it as soon as a file that matches `pattern` stands below `seen`; whether it was still running."""
    command = [sys.executable, "-m", "letheon", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        while job.poll() is None:
            if any(seen.glob(pattern)):
                os.kill(job.pid, signal.SIGKILL)
                job.wait()
                return True
            time.sleep(0.05)
    return False


def written(path: Path, rows: list[Example]) -> Path:
    """Rows as JSONL."""
    lines = [
        json.dumps({"id": r.id, "prompt": r.prompt_text, "answer": r.answer, "wrong": r.wrong, "group": r.group, "form": r.form}
                   | ({"paraphrase": r.paraphrase} if r.paraphrase else {}), ensure_ascii=False)
        for r in rows
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def reviewed(path: Path, about: str, corpus: dict[str, Example]) -> None:
    """What a person does to a review file: keep what is about somebody else."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines[1:]:
        line["keep"] = line["row"] not in corpus or corpus[line["row"]].group != about
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n", encoding="utf-8")


def team(out: Path, pair: Path, data: Data, people: list[str], seed: int, method: str) -> dict[str, Any]:
    """All requests, batch by batch, at a new desk."""
    world = make_world(seed)
    desk, rows = out / "desk", [row for row in data["full"] if row.group in {r.group for r in (*data["forget"], *data["retain"])}]
    corpus = {row.id: row for row in rows}
    written(out / "people.jsonl", rows)
    written(out / "world.jsonl", [row for row in data["full"] if row.id not in corpus])
    written(out / "holdout.jsonl", list(data["holdout"]))
    letheon("requests", "init", pair / "original", "--corpus", f"people={out / 'people.jsonl'}", "--corpus", f"world={out / 'world.jsonl'}",
            "--holdout", out / "holdout.jsonl", "--desk", desk)  # fmt: skip
    told: dict[str, Any] = {"requests": {}, "kills": []}
    size = ASKED // BATCHES
    for batch in range(BATCHES):
        for place, group in enumerate(people[size * batch : size * (batch + 1)]):
            name = make_person(world, int(group.removeprefix("person-"))).name
            given = written(out / f"rows-{batch}.jsonl", [row for row in rows if row.group == group])
            asked = (["--entity", name], ["--query", f"contains={name}"], ["--rows", given])[place]
            made = json.loads(letheon("requests", "add", "--who", f"case-{batch}-{place}", *asked, "--desk", desk, "--json"))
            found = json.loads(letheon("requests", "locate", made["id"], "--desk", desk, "--json"))
            reviewed(Path(found["review"]), group, corpus)
            done = json.loads(letheon("requests", "locate", made["id"], "--accept", found["review"], "--desk", desk, "--json"))
            count = sum(done[how] for how in ("exact", "near", "given"))
            told["requests"][made["id"]] = {"name": name, "found": count, "kept": done["kept"]}
        sets = ("--set", "checkpoint_every=10", "--set", "device=cpu")
        command = ("requests", "fulfil", "--all", "--method", *METHODS[method], *sets, "-q", "--desk", desk)
        if batch == BATCHES // 2:
            told["kills"].append(killed(desk / "work", "*.run/checkpoints/step-*", *command))
            told["kills"].append(killed(desk / "work", "*/model", *command))
        letheon(*command)
        print(f"batch {batch + 1} done", file=sys.stderr)
    return told


def left(desk: Desk, pair: Path, data: Data, people: list[str], run: Run) -> np.ndarray:
    """still-known of every author (columns) under every model (rows)."""
    splits = [Split([row for row in data["full"] if row.group == name], name) for name in people]
    folders = [pair / "original", pair / "retrained", *(desk.model_folder(one) for one in desk.generations()[1:])]
    known = np.array([[probabilities(Readings(model, run), split).mean() for split in splits] for model in map(api.subject, folders)])
    before, never, now = known[0], known[1], known[2:]
    return (now - never) / (before - never)


def tampered(desk: Desk, out: Path, seed: int) -> dict[str, int]:
    """One byte changed at a time; how many of the changes were found, by file."""
    rng, made = random.Random(seed), desk.generations()[1:]
    missed, tried = 0, {}
    for _ in range(CHANGES):
        one = rng.choice(made)
        place = out / "tampered"
        folder = desk.model_folder(one).parent
        bundle = desk.evidence_folder / f"{rng.choice(one.requests)}.intoto.jsonl"
        shutil.copytree(folder, place)
        shutil.copy(bundle, place / bundle.name)
        files = [place / bundle.name, place / "findings.json", place / "report.html", *sorted((place / "model").iterdir())]
        file = rng.choice(files)
        content = bytearray(file.read_bytes())
        content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
        file.write_bytes(content)
        found = verify(place / bundle.name, place / "model", [desk.keys_folder / "desk.pub"])
        kind = "bundle" if file.suffix == ".jsonl" else file.name
        tried[kind] = tried.get(kind, 0) + 1
        missed += found.good
        shutil.rmtree(place)
    return {"changes": CHANGES, "missed": missed, **tried}


def verified(desk: Desk, made: Generation, id_: str) -> bool:
    """Whether the bundle of a request holds, both models at hand."""
    bundle, before = desk.evidence(id_), desk.model_folder(desk.generations()[made.number - 1])
    return bundle is not None and verify(bundle, desk.model_folder(made), [desk.keys_folder / "desk.pub"], before=before).good


def main() -> None:
    """Run the scenario and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pair", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", choices=METHODS, default="npo", help="retrain: each batch trains anew, exactly")
    options = parser.parse_args()
    began, out, seed = time.process_time(), options.out, options.seed
    out.mkdir(parents=True)
    data = api.data("authors", seed=seed, **DATA)
    people = list(dict.fromkeys(str(row.group) for row in data["forget"]))
    pair = options.pair or out / "pair"
    if options.pair is None:
        source = f"authors:people={PEOPLE},forget={ASKED},seed={seed},forms={json.dumps(DATA['forms'], separators=(',', ':'))}"
        letheon("micro", "--out", pair, "--data", source, "--set", "epochs=16", "--seed", seed, "--device", "cpu", "-q")
    told = team(out, pair, data, people, seed, options.method)
    desk, run = Desk.open(out / "desk"), Run(seed, device="cpu", progress=False)
    share = left(desk, pair, data, people, run)
    last, size = share[-1], ASKED // BATCHES
    own = np.array([share[k // size, k] for k in range(ASKED)])
    models = {"before": pair / "original", "retrained": pair / "retrained"}
    subjects = {name: api.subject(folder) for name, folder in models.items()}
    findings = api.audit("general", api.subject(desk.model_folder(desk.current())), data, run, **subjects)
    findings.save(out / "findings.json")
    api.report(findings).save(out / "report.html")
    said = verdict(findings)
    useful = [findings.value(label, "model-utility") for label in ("before", "after", "retrained")]
    checks = [verified(desk, made, id_) for made in desk.generations()[1:] for id_ in made.requests]
    changes = tampered(desk, out, seed)
    passed = {
        "gone": bool((last <= GONE).all()), "own batch": bool((own <= GONE).all()),
        "verdict": said.word.startswith(("Gone as far as measured", "Mostly gone")), "none came back": bool((last - own <= BACK).all()),
        "utility": useful[1] >= USEFUL * useful[2], "verified": all(checks) and len(checks) == ASKED, "tampering": changes["missed"] == 0,
        "killed twice": told["kills"] == [True, True], "ledger whole": desk.check() == [],
        "all audited": all(one.state == "audited" for one in desk.all()),
    }  # fmt: skip
    print(json.dumps({
        "seed": seed, "method": options.method, "passed": passed,
        "still_known_last": last.round(3).tolist(), "still_known_own_batch": own.round(3).tolist(),
        "utility": dict(zip(("before", "after", "retrained"), useful, strict=True)), "verdict": str(said),
        "verdicts": [one.verdict for one in desk.generations()[1:]], "bundles": sum(checks), "tampering": changes,
        "processor_seconds": round(time.process_time() - began + sum(os.times()[2:4]), 1), **told,
    }, indent=1, ensure_ascii=False))  # fmt: skip


if __name__ == "__main__":
    main()
