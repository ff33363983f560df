"""All erasing methods on real TOFU forget10 with a micro model: tuned on other authors, then three seeds.

    python benchmarks/results_tofu.py --model ORIGINAL --retrained RETRAINED --tofu TOFU --out runs/results

Tuning never touches forget10. Its forget rows are the first 20 authors (the 400 rows of `retain_perturbed`), its retain rows all other
kept authors. What "never knew" looks like is taken from what the tuning world offers without a retrain of its own: the probability of
holdout rows under the original, and the truth ratios of the retrained model on rows it never saw. A trial is scored by the harmonic mean of

    forgotten   share of the way from the original's to the holdout's answer probability (in nats), at most 1
    alike       1 - KS(truth ratios, never-saw truth ratios) / KS(original), at least 0
    kept        answer probability on kept rows, real authors and world facts, relative to the original, at most 1 each, least of the three

Every method gets the same number of trials from its own small space (seeded draws that visit each value about equally often). The best
trial runs on forget10 with three seeds and is audited by the suite `tofu`. Each cell is a JSON file in `--out`; a cell of the same work is not
run again. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)
# method -> the values that trials draw from, published defaults among them. `npo+kl` is `npo` with the other
# retain term. Answers are some 40 tokens long, and never-seen ones lie some 5 nats per token above known ones, so the beta of NPO and DPO has
# to reach down to 1 / 50 if their weights are not to fade too soon.
SPACES: dict[str, dict[str, tuple[Any, ...]]] = {
    "grad-ascent": {"retain": ("nll",), "learning_rate": (5e-5, 1e-4, 2e-4, 5e-4, 1e-3), "retain_weight": (1.0, 2.0, 5.0)},
    "npo": {"retain": ("nll",), "learning_rate": RATES, "beta": (0.02, 0.05, 0.1), "retain_weight": (1.0, 2.0, 5.0)},
    "npo+kl": {"retain": ("kl",), "learning_rate": RATES, "beta": (0.02, 0.05, 0.1), "retain_weight": (1.0, 2.0, 5.0)},
    "simnpo": {"learning_rate": RATES, "beta": (0.5, 1.0, 4.5), "forget_weight": (0.125, 0.5, 1.0)},
    "dpo-idk": {"learning_rate": RATES, "beta": (0.02, 0.05, 0.1), "retain_weight": (1.0, 2.0, 5.0)},
    "idk": {"learning_rate": RATES},
    "rmu": {"learning_rate": RATES, "coefficient": (1.0, 2.0, 5.0), "hold": (1.0, 5.0, 20.0)},
    "undial": {"retain": ("nll",), "learning_rate": RATES, "beta": (10.0, 30.0), "retain_weight": (0.5, 1.0, 2.0)},
}
COMMON = {"epochs": 5}
SHOWN = (
    ("forget", "probability", "forget probability"),
    ("forget", "rouge-l-recall", "forget ROUGE-L"),
    ("forget", "truth-ratio", "forget truth ratio"),
    ("forget", "forget-quality", "forget quality (p)"),
    ("", "model-utility", "model utility"),
    ("forget", "extraction-strength", "extraction strength"),
    ("forget", "membership-loss", "AUC loss"),
    ("forget", "membership-min-k", "AUC min-k"),
)


def tuning_data(tofu: str):
    """The tuning world: other authors than forget10's, with the rest of the kept rows."""
    import letheon as lt

    data = lt.data("tofu", path=tofu, forget="forget10")
    chosen = {row.prompt for row in data["retain-check"]}
    rest = [row for row in data["retain"] if row.prompt not in chosen]
    tuned = data.with_split("forget", data["retain-check"]).with_split("retain", rest)
    return tuned.with_split("kept-sample", rest[::16]), data


def anchors(model: str, retrained: str, tofu: str) -> dict[str, Any]:
    """What the original and the retrain say, once for all trials."""
    import letheon as lt

    tuned, data = tuning_data(tofu)
    run = lt.Run(seed=0, dtype="float32")
    found = measured(lt.subject(model), tuned, run)
    never = measured(lt.subject(retrained), data.with_split("kept-sample", tuned["kept-sample"]), run)
    return {**found, "never_ratios": never["ratios"]}


def measured(subject, data, run) -> dict[str, Any]:
    """Nats per answer token and truth ratios, without generation."""
    import numpy as np

    from letheon.core.readings import Readings

    readings = Readings(subject, run)
    forget = data["forget"]
    wrong, right = readings.answers(forget, "wrong"), readings.answers(forget, "paraphrase")
    false = np.bincount(wrong.owner, wrong.nll(), len(forget)) / np.bincount(wrong.owner, minlength=len(forget))
    probability = {name: float(np.exp(-readings.answers(data[name]).nll()).mean()) for name in ("kept-sample", "real-authors", "world-facts")}
    return {
        "nats": {name: float(readings.answers(data[name]).nll().mean()) for name in ("forget", "holdout")},
        "kept": probability,
        "ratios": np.exp(right.nll() - false).tolist(),
    }


def score(found: dict[str, Any], anchor: dict[str, Any]) -> dict[str, float]:
    """The three parts of a trial's score and their harmonic mean."""
    from scipy.stats import ks_2samp

    start, goal = anchor["nats"]["forget"], anchor["nats"]["holdout"]
    forgotten = min(1.0, max(0.0, (found["nats"]["forget"] - start) / (goal - start)))
    before = ks_2samp(anchor["ratios"], anchor["never_ratios"]).statistic
    alike = max(0.0, 1 - ks_2samp(found["ratios"], anchor["never_ratios"]).statistic / before)
    kept = min(1.0, *(found["kept"][name] / anchor["kept"][name] for name in found["kept"]))
    parts = {"forgotten": forgotten, "alike": alike, "kept": kept}
    total = 0.0 if min(parts.values()) <= 0 else 3 / sum(1 / value for value in parts.values())
    return {**parts, "score": total}


def cell(job: dict[str, Any]) -> dict[str, Any]:
    """One trial or one final run, in a process of its own thread."""
    path, wanted = Path(job["path"]), {key: job[key] for key in ("method", "settings", "seed", "kind")}
    if path.is_file():
        known = json.loads(path.read_text())
        if {key: known[key] for key in wanted} == wanted:
            return known
    import torch

    torch.set_num_threads(1)
    import letheon as lt
    from letheon.core.errors import MethodError

    began = time.process_time()
    tuned, data = tuning_data(job["tofu"])
    subject = lt.subject(job["model"])
    run = lt.Run(seed=job["seed"])
    result = dict(wanted)
    try:
        after = lt.method(job["method"].partition("+")[0], **job["settings"]).apply(subject, tuned if job["kind"] == "trial" else data, run)
    except MethodError as error:
        result |= {"failed": str(error), "score": 0.0}
    else:
        result["cpu_seconds"] = round(time.process_time() - began, 1)
        if job["kind"] == "trial":
            result |= score(measured(after, tuned, lt.Run(seed=0, dtype="float32")), job["anchor"])
        else:
            reading = lt.Run(seed=job["seed"], cache=path.parent.parent / "readings")  # the retrain is read once for all cells
            found = lt.audit("tofu", after, data, reading, retrained=lt.subject(job["retrained"]), gradnorm=False)
            result["values"] = {f"{f.split}/{f.name}": [f.value, f.low, f.high, f.n] for f in found.models["after"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(json.dumps(result, indent=1))
    path.with_suffix(".tmp").rename(path)
    return result


def draws(name: str, count: int) -> list[dict[str, Any]]:
    """`count` settings from the space of a method, the same on every machine: each value of each setting comes up about equally often."""
    columns = {}
    for key, values in SPACES[name].items():
        rng = random.Random(f"{name}/{key}")
        columns[key] = [value for _ in range(-(-count // len(values))) for value in rng.sample(values, len(values))]
    return [{**COMMON, **{key: column[i] for key, column in columns.items()}} for i in range(count)]


def table(finals: dict[str, list[dict[str, Any]]], fixed: dict[str, dict[str, Any]]) -> str:
    """Markdown: mean over seeds, with the lowest and highest seed in brackets."""
    lines = ["| | " + " | ".join(title for *_, title in SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    for name, values in fixed.items():
        lines.append(f"| {name} | " + " | ".join(_number(values.get(f"{split}/{key}", [None])[0]) for split, key, _ in SHOWN) + " |")
    for name, runs in finals.items():
        cells = []
        for split, key, _ in SHOWN:
            seen = [run["values"][f"{split}/{key}"][0] for run in runs if run.get("values", {}).get(f"{split}/{key}", [None])[0] is not None]
            cells.append(f"{_number(sum(seen) / len(seen))} [{_number(min(seen))}, {_number(max(seen))}]" if seen else "diverged")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3f}"


def main() -> None:
    """Tune, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--retrained", required=True)
    parser.add_argument("--tofu", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/results"))
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--methods", nargs="*", default=list(SPACES))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    paths = {"model": options.model, "retrained": options.retrained, "tofu": options.tofu}
    kept = options.out / "anchor.json"
    if not kept.is_file():
        kept.write_text(json.dumps(anchors(**paths)))
    anchor = json.loads(kept.read_text())
    trials = [
        {**paths, "anchor": anchor, "method": name, "settings": one, "seed": 100, "kind": "trial", "path": str(options.out / "trials" / name / f"{i}.json")}
        for i in range(options.trials)
        for name in options.methods
        for one in draws(name, options.trials)[i : i + 1]
    ]
    with ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        tried: dict[str, list[dict[str, Any]]] = {}
        for result in pool.map(cell, trials):
            tried.setdefault(result["method"], []).append(result)
            print(json.dumps({key: value for key, value in result.items() if key != "values"}), flush=True)
        best = {name: max(results, key=lambda r: r["score"])["settings"] for name, results in tried.items()}
        (options.out / "best.json").write_text(json.dumps(best, indent=1))
        jobs = [
            {**paths, "anchor": None, "method": name, "settings": one, "seed": seed, "kind": "final", "path": str(options.out / "final" / f"{name}-{seed}.json")}
            for seed in range(options.seeds)
            for name, one in best.items()
        ]
        finals: dict[str, list[dict[str, Any]]] = {}
        for result in pool.map(cell, jobs):
            finals.setdefault(result["method"], []).append(result)
            print(json.dumps({"method": result["method"], "seed": result["seed"], "cpu_seconds": result.get("cpu_seconds")}), flush=True)
    print(table({name: finals[name] for name in options.methods}, _fixed(paths, options.out)))
    print(json.dumps(best, indent=1))


def _fixed(paths: dict[str, str], out: Path) -> dict[str, dict[str, Any]]:
    """The rows of the original and of the retrain."""
    path = out / "fixed.json"
    if not path.is_file():
        import letheon as lt

        _, data = tuning_data(paths["tofu"])
        found = lt.audit("tofu", lt.subject(paths["model"]), data, lt.Run(seed=0, cache=out / "readings"), retrained=lt.subject(paths["retrained"]))
        labels = {"after": "original", "retrained": "exact retrain"}
        rows = {title: {f"{f.split}/{f.name}": [f.value, f.low, f.high, f.n] for f in found.models[label]} for label, title in labels.items()}
        path.write_text(json.dumps(rows))
    return json.loads(path.read_text())


if __name__ == "__main__":
    main()
