"""Which utility measures carry signal? The four criteria of `maths/signal.py` on learning curves of small models.

    python benchmarks/task_signal.py

Models of three widths learn the embedded world with three seeds each (weights and order of rows); ten times on the way every measure is
taken on rows to keep. A measure that does not pass should not decide anything in an audit of models of this size.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import letheon as lt
from letheon.core.encode import TextEncoder
from letheon.core.readings import Readings
from letheon.core.registry import load
from letheon.core.run import Run
from letheon.core.subject import Subject
from letheon.maths.signal import Signal, signal
from letheon.subjects.micro import MicroSettings, _module, _tokenizer
from letheon.train.loop import Trainer, feed_for, start

PROBES = {
    "probability": ("retain-check", "retain-check-choice", "world-facts"),
    "rouge": ("retain-check", "world-facts"),
    "truth-ratio": ("retain-check", "world-facts"),
    "choices": ("retain-check", "retain-check-choice"),
}


def curve(width: int, seed: int, data, marks: list[int], arguments) -> list[dict[str, tuple[float, float]]]:
    """For each mark: measure -> value and the score of guessing."""
    run = Run(seed, device="cpu", dtype="float32")
    settings = MicroSettings(width=width, intermediate=3 * width, epochs=arguments.epochs)
    encoder = TextEncoder(_tokenizer(data["kept"], settings), settings.template, settings.context)
    subject = Subject(_module(settings, encoder, run), encoder, name="micro")
    values = {"split": "full", "prompt_weight": 0.2, "epochs": arguments.epochs, "schedule": "cosine", "learning_rate": 2e-3, "warmup": 0.05}
    method = lt.method("finetune", **values)
    feed = feed_for(method, subject, data, run)
    start(method, subject, feed, run)
    trainer = Trainer(method, method.space.open(subject, run), feed, run, "curve")
    found = []
    for mark in np.linspace(0, len(feed.plan), arguments.marks + 1)[1:].round().astype(int):
        while trainer.step < mark:
            trainer.advance()
        found.append(measured(trainer.subject, data, run, arguments.limit))
        marks.append(int(mark)) if len(marks) < arguments.marks else None
    return found


def measured(subject: Subject, data, run: Run, limit: int) -> dict[str, tuple[float, float]]:
    """Every measure on rows to keep."""
    readings, found = Readings(subject, run), {}
    for name, splits in PROBES.items():
        probe = load(name, "audit")
        values = {"splits": [split for split in splits if split in data], "limit": limit}
        if "max_new_tokens" in probe.Settings.model_fields:
            values["max_new_tokens"] = 32
        for one in probe(**values).measure(readings, data, run):
            if one.value is not None and not one.name.startswith("format"):
                found[f"{one.split}/{one.name}"] = one.value, float(one.extra.get("chance") or 0.0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 96])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--marks", type=int, default=10)
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    data = lt.data("authors", people=40, forms=("question", "cloze", "paraphrase", "choice"))
    marks: list[int] = []
    curves = [[curve(width, seed, data, marks, arguments) for seed in arguments.seeds] for width in arguments.widths]
    names = [name for name in curves[0][0][0] if all(name in mark for model in curves for seed in model for mark in seed)]
    print(f"{'measure':44} {'monotone':>9} {'snr':>8} {'non-random':>10} {'ordering':>9} (by chance)  verdict")
    kept: dict[str, Signal] = {}
    for name in names:
        scores = np.array([[[mark[name][0] for mark in seed] for seed in model] for model in curves])
        kept[name] = one = signal(scores, marks, curves[0][0][0][name][1])
        why = f" ({', '.join(one.failed)})" if one.failed else ""
        print(
            f"{name:44} {one.monotonicity:9.2f} {one.snr:8.1f} {one.non_randomness:10.1f} {one.ordering:9.2f}"
            f" ({one.ordering_by_chance:.2f})       {one.verdict}{why}"
        )
    if arguments.out:
        arguments.out.write_text(json.dumps({name: vars(one) for name, one in kept.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
