"""Where the time goes: operators, phases of the loop, and the share of the floor that is reached.

    python benchmarks/where_time_goes.py erase --size 20m [--method npo --dtype float32 --tofu TOFU]
    python benchmarks/where_time_goes.py audit [--model MODEL --tofu TOFU]
    python benchmarks/where_time_goes.py demo

`erase` trains a Llama of about 20 million nearly random weights (or `--model`). The floor is the time that the useful operations take at the
rate of a plain matrix product, measured in the same run, plus the bytes that AdamW has to move at the measured rate of a long copy. Phases
are forward, backward, optimiser, what the loop itself takes, and what stands before and after the steps; operators are those that torch
dispatches on a CPU, by processor time of one thread.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import _setup
import _timing

SIZES = {"1m": (128, 4, 2, 384), "20m": (448, 8, 7, 1216), "80m": (768, 12, 12, 2048)}  # width, layers, heads, intermediate
SHARE, OVERHEAD = 0.45, 0.05
WEIGHT_BYTES = 7 * 4  # AdamW reads weight, gradient and two moments, and writes all but the gradient


def llama(arguments: Any, data: Any) -> Any:
    """The model to train: the one given, or a Llama with nearly random weights (one step old)."""
    import letheon as lt
    from letheon.core.settings import Choice
    from letheon.subjects.micro import Micro

    if arguments.model:
        return lt.subject(arguments.model)
    shape = dict(zip(("width", "layers", "heads", "intermediate"), SIZES[arguments.size], strict=True))
    begun = Choice(name="finetune", steps=1)
    return Micro(split="retain", text="retain", vocabulary=4096, train=begun, **shape).build(data, lt.Run(seed=0))


def useful(subject: Any, data: Any, plan: list[Any]) -> float:
    """Operations of a training run that no loop can go without, as erase_speed.py counts them."""
    module, config = subject.module, subject.module.config
    embedding = module.get_input_embeddings().weight.numel()
    body = sum(p.numel() for p in module.parameters()) - embedding * (1 if config.tie_word_embeddings else 2)
    encoded = {name: subject.encoder.encode(data[name]) for name in {name for step in plan for name in step}}
    total = 0.0
    for step in plan:
        for name, chosen in step.items():
            for t, scored in zip(encoded[name].lengths[chosen].tolist(), encoded[name].scored[chosen].tolist(), strict=True):
                total += 2 * body * t + 2 * embedding * scored + 4 * config.hidden_size * config.num_hidden_layers * t * (t + 1) / 2
    return 3 * total


def copy_rate(seconds: float = 1.0) -> float:
    """Bytes per second of a long copy, read and write counted."""
    import torch

    a, b, best, stop = torch.zeros(1 << 26), torch.zeros(1 << 26), 0.0, time.perf_counter() + seconds
    while time.perf_counter() < stop:
        best = max(best, 2 * a.numel() * 4 / _timing.timed(lambda: b.copy_(a)).wall)
    return best


class Phases:
    """Seconds inside some methods of the loop; what they call in turn counts for the innermost."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[list[float]] = []

    def around(self, owner: Any, name: str, phase: str) -> Callable[[], None]:
        """Count calls of `owner.name`; returns what puts it back."""
        inner = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self._open.append([0.0])
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                took, (within,) = time.perf_counter() - began, self._open.pop()
                self.seconds[phase] += took - within
                if self._open:
                    self._open[-1][0] += took

        setattr(owner, name, counted)
        return lambda: setattr(owner, name, inner)


def operators(work: Callable[[], Any], most: int = 15) -> list[dict[str, Any]]:
    """The operators that take the most processor time of this thread, with their share of the time of all.

    Each call is timed as it comes: torch's profiler keeps every event, gigabytes for a whole demo.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)

    class Timed(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            began = time.thread_time()
            try:
                return function(*args, **(kwargs or {}))
            finally:
                name = function.overloadpacket.__name__
                seconds[name] += time.thread_time() - began
                calls[name] += 1

    with Timed():
        work()
    total = sum(seconds.values())
    first = sorted(seconds, key=lambda name: -seconds[name])[:most]
    return [{"operator": name, "calls": calls[name], "share": round(seconds[name] / total, 4)} for name in first]


def erase(arguments: Any) -> dict[str, Any]:
    """One method on one model: phases, operators, share of the floor."""
    import torch

    import letheon as lt
    from letheon.core.data import Data
    from letheon.core.registry import make
    from letheon.train.loop import Trainer, plan_steps

    data = _setup.data(arguments)
    subject = llama(arguments, data)
    data = Data({name: data[name][: arguments.rows] for name in ("forget", "retain")}, data.name)
    method = lt.method(arguments.method, epochs=1, learning_rate=1e-6, batch_size=arguments.batch)
    dtype = torch.float32 if arguments.dtype == "float32" else lt.Run(seed=0).compute_dtype
    plan = plan_steps(method, make(method.settings.sampler, "train/samplers"), data, lt.Run(seed=0))

    def work() -> Any:
        return method.apply(subject, data, lt.Run(seed=0, dtype=arguments.dtype))

    work()
    phases = Phases()
    put_back = [
        phases.around(Trainer, "advance", "loop"),
        phases.around(Trainer, "_means", "forward"),
        phases.around(Trainer, "_backward", "backward"),
        phases.around(torch.optim.AdamW, "step", "optimiser"),
    ]
    runs = []
    for _ in range(arguments.repeats):
        phases.seconds.clear()
        one = _timing.timed(work)
        inside = dict(phases.seconds)
        runs.append((one, inside | {"before and after the steps": one.wall - sum(inside.values())}))
    took, spent = min(runs, key=lambda pair: pair[0].cpu)
    for back in put_back:
        back()
    flops, peak, moved = useful(subject, data, plan), _timing.matmul_peak(dtype), copy_rate()
    weights = sum(p.numel() for p in subject.module.parameters())
    floor = flops / peak["cpu"] + len(plan) * weights * WEIGHT_BYTES / moved
    return {
        "parameters": weights, "steps": len(plan), "dtype": str(dtype), **{"wall_seconds": took.wall, "cpu_seconds": took.cpu},
        "matmul_peak_gigaflops": peak["cpu"] / 1e9, "copy_gigabytes_per_second": moved / 1e9,
        "share_of_matmul_peak": flops / took.cpu / peak["cpu"], "share_of_floor": floor / took.cpu,
        "phases": {name: seconds / took.wall for name, seconds in spent.items()}, "operators": operators(work),
    }  # fmt: skip


def distinct(subject: Any, data: Any) -> dict[str, float]:
    """Operations that readings of the TOFU suite cannot go without, by kind of reading.

    Answers: one forward pass over every beginning that differs within the rows of a prompt, and logits where one is scored. Gradient norms:
    forward, backward to the activations, and for each weight the cheaper of both forms of a row's squared norm. Generations are left out.
    """
    import numpy as np
    from letheon.core.answers import _texts
    from letheon.core.trees import groves, plant
    from torch import nn

    module, config = subject.module, subject.module.config
    linears = [tuple(part.weight.shape) for part in module.modules() if type(part) is nn.Linear]  # with the head
    v, d = module.get_output_embeddings().weight.shape
    body = sum(i * o for i, o in linears) - v * d
    attention = 4 * d * config.num_hidden_layers  # for each pair of a token and one that it sees
    answers = norms = 0.0
    for name in ("forget", "retain-check", "real-authors", "world-facts", "holdout"):
        if name not in data:
            continue
        pairs = [(k, text) for k in range(len(data[name])) for _, text in _texts(data[name][k])]
        encoded = subject.encoder.pairs([data[name][k].prompt for k, _ in pairs], [text for _, text in pairs])
        trees = [plant(encoded, rows) for rows in groves(encoded, np.array([k for k, _ in pairs]), 1 << 30)]
        seen = sum(float((tree.depth + 1).sum()) for tree in trees)
        answers += 2 * body * sum(map(len, trees)) + 2 * v * d * sum(len(np.unique(tree.node)) for tree in trees) + attention * seen
        if name in ("forget", "holdout"):
            own = subject.encoder.encode(data[name])
            for t, scored in zip((own.lengths - 1).tolist(), (own.scored - 1).tolist(), strict=True):
                norms += 4 * body * t + 4 * v * d * scored + 3 * attention * t * (t + 1) / 2
                norms += sum(2 * min(t * t * (i + o), t * i * o) for i, o in linears)
    return {"answers": answers, "gradient_norms": norms}


def audit(arguments: Any) -> dict[str, Any]:
    """The TOFU suite without attacks, by reading and by operator, and the share of the floor."""
    import torch

    import letheon as lt
    from letheon.audit.tofu import TofuSuite
    from letheon.core.readings import Readings
    from letheon.core.subject import Subject

    data, (subject, _) = _setup.data(arguments), _setup.subjects(arguments)
    suite, run, costs = TofuSuite(attacks="none"), lt.Run(seed=0), []

    def work() -> Any:
        readings = Readings(Subject(subject.module, subject.encoder, name=subject.name), run)
        found = suite.measure(readings, data, run)
        costs.append(dict(readings.costs))
        return found

    took = _timing.timed(work)
    peak, flops = _timing.matmul_peak(torch.float32)["cpu"], distinct(subject, data)
    floor = {name: operations / peak for name, operations in flops.items()}
    return {
        "wall_seconds": took.wall, "cpu_seconds": took.cpu, "readings": costs[0], "matmul_peak_gigaflops": peak / 1e9,
        "floor_by_reading": floor, "floor_seconds": sum(floor.values()), "share_of_floor": sum(floor.values()) / took.cpu,
        "operators": operators(work),
    }  # fmt: skip


def demo(arguments: Any) -> dict[str, Any]:
    """The demo, by part and by operator."""
    import tempfile
    from pathlib import Path

    from letheon.cli.demo import show

    with tempfile.TemporaryDirectory() as folder:
        plain = show(Path(folder) / "plain", people=40, seed=0, progress=False)
        first = operators(lambda: show(Path(folder) / "timed", people=40, seed=0, progress=False))
    return {"seconds": plain["seconds"], "operators": first}


def main() -> None:
    """Measure, print."""
    parser = _setup.parser(__doc__ or "")
    parser.add_argument("what", choices=("erase", "audit", "demo"))
    parser.add_argument("--size", choices=SIZES, default="20m", help="random Llama to train, where no model is given")
    parser.add_argument("--method", default="npo")
    parser.add_argument("--dtype", choices=("auto", "float32"), default="float32")
    parser.add_argument("--rows", type=int, default=64, help="forget rows")
    parser.add_argument("--batch", type=int, default=32, help="forget rows of a step")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    _setup.threads(arguments)
    result = {"benchmark": f"where_time_goes {arguments.what}", "machine": _timing.machine()}
    result |= {"erase": erase, "audit": audit, "demo": demo}[arguments.what](arguments)
    if arguments.what == "erase":
        result |= {"at_least": SHARE, "overhead_at_most": OVERHEAD}
        result["passed"] = result["share_of_matmul_peak"] >= SHARE and result["phases"]["loop"] <= OVERHEAD
    _timing.write(result, arguments.out)


if __name__ == "__main__":
    main()
