"""NPO with a retain loss under each gradient rule: time of a step against that of the plain sum, same rows, in turn, in one process.

    python benchmarks/rules_speed.py

A small random Llama-architecture model on the toy rows, no files needed. Processor time decides, as other work on the machine hits wall
time alone; warm-up steps are on nobody's clock.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import _timing

AT_LEAST = 0.6  # of the speed of `sum`, for `geometric`
RULES = {
    "sum": "sum",
    "geometric": "geometric",
    "geometric of 4 vectors": "geometric:vectors=4",
    "pcgrad": "pcgrad",
    "primal-dual": "primal-dual",
}


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


def trainer(rule: str, arguments: argparse.Namespace) -> Any:
    """A run of NPO under a rule, before its first step."""
    import letheon as lt
    from letheon.testing._changes import trainer_for
    from letheon.testing.toys import toy_data

    settings = {"steps": 10_000, "batch_size": 8, "rule": rule, "betas": (0.0, 0.999), "weight_decay": 0.0, "learning_rate": 1e-6}
    method = lt.method("npo", **settings)
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
    ready = {name: trainer(rule, arguments) for name, rule in RULES.items()}
    for each in ready.values():
        for _ in range(4):  # kernels are made, moments and past gradients are there
            each.advance()
    loops = {name: lambda each=each: [each.advance() for _ in range(arguments.steps)] for name, each in ready.items()}
    took = _timing.alternate(loops, arguments.repeats)
    parameters = sum(p.numel() for p in ready["sum"].parameters)
    result: dict[str, Any] = {"benchmark": "rules_speed", "machine": _timing.machine(), "parameters": parameters, "steps": arguments.steps}
    result |= {name: _timing.medians(runs) for name, runs in took.items()}
    result["speed_against_sum"] = {name: _timing.ratios(took["sum"], runs) for name, runs in took.items() if name != "sum"}
    found = result["speed_against_sum"]["geometric"]["cpu_ratio"]
    result |= {"at_least": AT_LEAST, "passed": found >= AT_LEAST}
    _timing.write(result, arguments.out)
    if not result["passed"]:
        sys.exit(f"`geometric` runs at {found:.2f} of the speed of `sum` (at least {AT_LEAST})")


if __name__ == "__main__":
    main()
