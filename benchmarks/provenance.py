"""Does the palimpsestic test find the parent of a model, and nothing else? Many small models, each trained once in an order of its own.

    python benchmarks/provenance.py --repeats 20 --out runs/provenance.json

Model k is trained for one epoch on the same rows with seed k. Repeat k asks of the order of model k: does model k descend from it, and does
model k + 1, with model k + 2 as the reference? The order of model k is independent of all later models, so the p-values of the wrong
parent are independent of one another. The same is asked of what the models answer to the prompts (n-gram test). Then the reshuffle test on
a few pairs. Passes where every true parent has p < 1e-4 and the p-values of the others look uniform (Kolmogorov-Smirnov p above 0.01).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _timing
import torch

import letheon as lt
from letheon.audit.provenance import Provenance
from letheon.core.readings import Readings
from letheon.core.registry import load
from letheon.core.run import Run

MODEL = {"width": 32, "layers": 1, "heads": 2, "intermediate": 64, "vocabulary": 600, "epochs": 1, "batch_size": 4, "learning_rate": 1e-2}
CONSTANT = "finetune:schedule=constant"


def run_in(folder: Path, seed: int) -> Run:
    """A run that writes its order and no checkpoints."""
    return Run(seed, folder, device="cpu", dtype="float32", checkpoint_every=0)


def query(folder: Path, repeats: int, people: int, epochs: int) -> dict[str, Any]:
    """p-values of parents and of others, of models and of their text."""
    world = lt.data("authors", people=people, forms=["question"])
    micro = load("micro", "subjects")(**{**MODEL, "epochs": epochs}, train=CONSTANT)
    runs = [run_in(folder / f"{k}", k) for k in range(repeats + 2)]
    began = time.process_time()
    models = [Readings(micro.build(world, run), run) for run in runs]
    trained = time.process_time() - began
    found: dict[str, list[float]] = {}
    began = time.process_time()
    for k in range(repeats):
        audit = Provenance(order=str(runs[k].out), max_new_tokens=24)
        for who, model in (("parent", models[k]), ("other", models[k + 1])):
            told = {one.name: one for one in audit.measure(model, world, Run(k), models[k + 2])}
            for what in ("provenance", "provenance-text"):
                found.setdefault(f"{who} {what}", []).append(told[f"{what}-p"].value)
                found.setdefault(f"{who} {what} rho", []).append(told[f"{what}-rho"].value)
            found.setdefault(f"{who} without reference", []).append(told["provenance-p"].extra["without_reference"]["p"])
            found.setdefault(f"{who} by law", []).append(told["provenance-p"].extra["p_law"])
        _timing.say(f"order {k}: parent {found['parent provenance'][-1]:.5f}, other {found['other provenance'][-1]:.5f}")
    return {
        "rows": len(world["full"]),
        "p": found,
        "uniform": {name: ks(values) for name, values in found.items() if name.startswith("other") and "rho" not in name},
        "seconds_per_model": trained / len(models),
        "seconds_per_audit": (time.process_time() - began) / (2 * repeats),
    }


def ks(values: list[float]) -> float:
    """p-value of a Kolmogorov-Smirnov test against the uniform distribution."""
    from scipy.stats import kstest

    return float(kstest(values, "uniform").pvalue)


def reshuffle(folder: Path, pairs: int, people: int) -> dict[str, Any]:
    """Rank p-values and z of the reshuffle test, from 40 answers of each model."""
    world = lt.data("authors", people=people)
    base = load("micro", "subjects")(**{**MODEL, "batch_size": 8}, split="kept").build(world, Run(pairs, device="cpu", dtype="float32"))
    base.save(folder / "base")
    tune = {"split": "retain", "epochs": 1, "batch_size": 4, "learning_rate": 3e-3, "schedule": "constant", "warmup": 0}
    runs = [run_in(folder / f"tuned-{k}", k) for k in range(pairs + 1)]
    models = [Readings(lt.method("finetune", **tune).apply(base, world, run), run) for run in runs]
    found: dict[str, Any] = {}
    for k in range(pairs):
        audit = Provenance(order=str(runs[k].out), before=str(folder / "base"), asked=40, max_new_tokens=24)
        for who, model in (("parent", models[k]), ("other", models[k + 1])):
            one = audit.measure(model, world, Run(k))[-1]
            found.setdefault(f"{who} p", []).append(one.value)
            found.setdefault(f"{who} z", []).append(round(one.extra["z"], 2))
            _timing.say(f"reshuffle {k}: {who} p {one.value:.2f}, z {one.extra['z']:.2f}")
    return found


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=2, help="pairs of the reshuffle test; 0: none")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"benchmark": "provenance", "machine": _timing.machine()}
    with tempfile.TemporaryDirectory() as folder:
        result |= query(Path(folder), arguments.repeats, arguments.people, arguments.epochs)
        result["reshuffle"] = reshuffle(Path(folder), arguments.pairs, arguments.people) if arguments.pairs else {}
    worst = max(result["p"]["parent provenance"])
    result |= {"worst_parent": worst, "passed": worst < 1e-4 and result["uniform"]["other provenance"] > 0.01}
    _timing.write(result, arguments.out)
    if not result["passed"]:
        sys.exit("a parent is not found, or the p-values of others are not uniform")


if __name__ == "__main__":
    main()
