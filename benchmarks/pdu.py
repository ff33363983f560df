"""Does PDU keep the retain loss within its bound on rows it was not given? Several seeds, each a world and a model of its own.

    python benchmarks/pdu.py --seeds 1 2 3

Logit flattening under the rule `primal-dual` on the embedded world. The rows of `retain-check` are taken out of `retain`, so that nothing
holds them but what holds their like. The bound is derived from the start (the larger of 1.1 L0 and L0 + 0.05 nats a token). Passes where
the loss on the checked rows is at most the bound plus two standard errors, on every seed. A fixed retain weight is shown beside it.
"""

from __future__ import annotations

import argparse
from typing import Any

import _timing
import numpy as np
from kfade import model

import letheon as lt
from letheon.core.readings import Readings


def losses(subject: Any, split: Any, run: Any) -> np.ndarray:
    """Mean nll per answer token of every row, nats."""
    return Readings(subject, run).answers(split).nll()


def one(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One world: the loss on checked and on forgotten rows, before and after, and the bound."""
    world, subject = model(seed, arguments.people)
    run = lt.Run(seed=seed, dtype="float32", device="cpu")
    start = float(losses(subject, world["retain"], run).mean())
    bound = max(1.1 * start, start + 0.05)
    settings = {"epochs": arguments.epochs, "learning_rate": arguments.rate, "retain": "nll", "retain_weight": arguments.weight}
    found: dict[str, Any] = {"seed": seed, "bound": bound, "start": start, "rows": len(world["retain-check"])}
    for name, rule in (("primal-dual", {"name": "primal-dual", "epsilon": bound, "rate": arguments.dual}), ("fixed", {"name": "sum"})):
        after = lt.method("logit-flattening", rule=rule, **settings).apply(subject, world, run)
        each = losses(after, world["retain-check"], run)
        error = float(each.std(ddof=1) / len(each) ** 0.5)
        found[name] = {
            "checked": float(each.mean()),
            "standard_error": error,
            "within": bool(each.mean() <= bound + 2 * error),
            "given": float(losses(after, world["retain"], run).mean()),
            "forget": float(losses(after, world["forget"], run).mean()),
        }
    return found


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rate", type=float, default=3e-4, help="step size of the weights")
    parser.add_argument("--dual", type=float, default=100.0, help="step size of the multiplier")
    parser.add_argument("--weight", type=float, default=100.0, help="where the multiplier begins")
    parser.add_argument("--out", help="write the result to this file as well")
    arguments = parser.parse_args()
    worlds = [one(seed, arguments) for seed in arguments.seeds]
    passed = all(world["primal-dual"]["within"] for world in worlds)
    _timing.write({"benchmark": "pdu", "machine": _timing.machine(), "worlds": worlds, "passed": passed}, arguments.out)
    if not passed:
        raise SystemExit("the retain loss on checked rows is above the bound")


if __name__ == "__main__":
    main()
