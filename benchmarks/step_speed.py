"""Time of a training step: NPO under each gradient rule, and its relatives, against plain NPO; same rows, in turn, in one process.

    python benchmarks/step_speed.py

A small random Llama-architecture model on the toy rows, all with a retain loss, no files needed. Processor time decides, as other work on
the machine hits wall time alone; warm-up steps are on nobody's clock.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import _timing

RULE_AT_LEAST, FAMILY_AT_LEAST = 0.6, 0.9  # of the speed of plain NPO: `geometric`, and the objectives of its family
RULES = {
    "geometric": "geometric",
    "geometric of 4 vectors": "geometric:vectors=4",
    "pcgrad": "pcgrad",
    "primal-dual": "primal-dual",
}
FAMILY = ("simnpo", "tnpo", "wga", "satimp", "simsat", "simimp", "catnip", "ce-u", "inverted-hinge", "logit-flattening")


def subject(width: int, layers: int) -> Any:
    """The toy subject at another size."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from letheon.core.subject import Subject
    from letheon.testing.toys import toy_subject

    toy = toy_subject()
    values = toy.module.config.to_dict() | {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": layers}
    values |= {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": width // 8}
    config = AutoConfig.for_model("llama", **{key: value for key, value in values.items() if key != "model_type"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Subject(AutoModelForCausalLM.from_config(config, dtype=torch.float32), toy.encoder, name="toy")


def trainer(name: str, rule: str, arguments: argparse.Namespace) -> Any:
    """A run of an objective under a rule, before its first step."""
    import letheon as lt
    from letheon.testing._changes import trainer_for
    from letheon.testing.toys import toy_data

    settings = {"steps": 10_000, "batch_size": 8, "rule": rule, "betas": (0.0, 0.999), "weight_decay": 0.0, "learning_rate": 1e-6}
    method = lt.method(name, retain="nll", parameters="all", **settings)  # the default of some is an adapter
    return trainer_for(method, subject(arguments.width, arguments.layers), toy_data(), lt.Run(seed=0, device="cpu", dtype="float32"))


def main() -> None:
    """Measure, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5, help="steps per measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", help="write the result to this file as well")
    arguments = parser.parse_args()
    ready = {"npo": trainer("npo", "sum", arguments)}
    ready |= {f"npo, {name}": trainer("npo", rule, arguments) for name, rule in RULES.items()}
    ready |= {name: trainer(name, "sum", arguments) for name in FAMILY}
    for each in ready.values():
        for _ in range(4):  # kernels are made, moments and past gradients are there
            each.advance()
    loops = {name: lambda each=each: [each.advance() for _ in range(arguments.steps)] for name, each in ready.items()}
    took = _timing.alternate(loops, arguments.repeats)
    speed = {name: _timing.ratios(took["npo"], runs)["cpu_ratio"] for name, runs in took.items() if name != "npo"}
    slow = [f"{name} {speed[name]:.2f} (at least {FAMILY_AT_LEAST})" for name in FAMILY if speed[name] < FAMILY_AT_LEAST]
    if speed["npo, geometric"] < RULE_AT_LEAST:
        slow.append(f"geometric {speed['npo, geometric']:.2f} (at least {RULE_AT_LEAST})")
    result: dict[str, Any] = {
        "benchmark": "step_speed",
        "machine": _timing.machine(),
        "parameters": sum(p.numel() for p in ready["npo"].parameters),
        "steps": arguments.steps,
        "npo": _timing.medians(took["npo"]),
        "speed_against_npo": {name: round(value, 3) for name, value in speed.items()},
        "at_least": {"geometric": RULE_AT_LEAST, "family": FAMILY_AT_LEAST},
        "passed": not slow,
    }
    _timing.write(result, arguments.out)
    if slow:
        sys.exit(f"slower than asked, as a share of the speed of npo: {', '.join(slow)}")


if __name__ == "__main__":
    main()
