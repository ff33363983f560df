"""Does unlearning one form leave the others? Several seeds, each a world, a model and two unlearned ones.

    python benchmarks/ort.py --seeds 0 1 2 --out runs/ort.json

Thirty invented people with two facts in five forms (question, cloze, choice, characters, paraphrase). NPO gets the question rows of eight
of them, or all their forms, and all rows of the others to keep. Passes where the form-dependence index is on average above 0.5 for the
first and below 0.25 for the second.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import _timing
import torch

import letheon as lt
from letheon.audit._forms import by_character
from letheon.audit.ort import Ort
from letheon.core.data import Data, Split
from letheon.core.readings import Readings
from letheon.core.registry import load
from letheon.core.run import Run

FORMS = ("question", "cloze", "choice", "paraphrase")
SIZE = {"width": 48, "layers": 2, "heads": 2, "intermediate": 96, "vocabulary": 512}
MODEL = {**SIZE, "epochs": 45, "batch_size": 16, "learning_rate": 4e-3, "prompt_weight": 0}
NPO = {"steps": 40, "learning_rate": 1.5e-3, "batch_size": 16, "beta": 0.1, "retain_weight": 3.0, "warmup": 0.0, "schedule": "constant"}


def world(seed: int) -> Data:
    """People, eight of them to be forgotten."""
    full = [row for row in lt.data("authors", people=40, seed=seed)["full"] if row.id.split("/")[1] in ("birth-city", "genre")]
    people = list(dict.fromkeys(row.group for row in full))[:30]
    splits: dict[str, list[Any]] = {}
    for family, who in (("forget", people[:8]), ("retain", people[8:])):
        rows = {form: [row for row in full if row.form == form and row.group in who] for form in FORMS}
        rows["characters"] = [by_character(row, cloze.answer) for row, cloze in zip(rows["question"], rows["cloze"], strict=True)]
        splits |= {family if form == "question" else f"{family}-{form}": some for form, some in rows.items()}
        splits[f"all-{family}"] = [row for some in rows.values() for row in some]
    splits["full"] = splits["all-forget"] + splits["all-retain"]
    return Data({name: Split(rows, name) for name, rows in splits.items()})


def one(seed: int) -> dict[str, Any]:
    """Indices and drops on one seed."""
    data, run = world(seed), Run(seed, device="cpu", dtype="float32")
    original = load("micro", "subjects")(**MODEL, split="full", text="full").build(data, run)
    before, audit = Readings(original, run), Ort(families=("forget", "retain"))
    found: dict[str, Any] = {"seed": seed}
    for what, rows in (("question", data["forget"]), ("all", data["all-forget"])):
        given = Data({"forget": Split(rows, "forget"), "retain": data["all-retain"]})
        after = Readings(lt.method("npo", **NPO).apply(original, given, run), run)
        began = time.process_time()
        told = {finding.split: finding for finding in audit.measure(after, data, run, None, before) if finding.name == "form-dependence"}
        index = told["forget"]
        found[what] = {"index": index.value, "low": index.low, "high": index.high, "drops": index.extra["drops"]}
        found[what] |= {"kept": told["retain"].extra["drops"], "seconds": time.process_time() - began}
    _timing.say(f"seed {seed}: questions alone {found['question']['index']:.2f}, all forms {found['all']['index']:.2f}")
    return found


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [one(seed) for seed in arguments.seeds]
    means = {what: statistics.mean(found[what]["index"] for found in seeds) for what in ("question", "all")}
    result = {"benchmark": "ort", "machine": _timing.machine(), "seeds": seeds, "means": means}
    result["passed"] = means["question"] > 0.5 and means["all"] < 0.25
    _timing.write(result, arguments.out)
    if not result["passed"]:
        sys.exit("the index does not tell one form from all")


if __name__ == "__main__":
    main()
