"""Two processes with one thread each against one process with one thread: NPO with a retain loss, the same steps, in turn.

    python benchmarks/processes.py

A small random Llama-architecture model on the toy rows, over and over; no files needed. All three processes live through the whole
measurement, so that start-up is on nobody's clock, and only one side works at a time. Wall time is what several processes are for; on a
machine where other work takes the cores it says little. Beside it stands processor time: of one process, by that of the busier one of two.
That counts uneven shares and the work of passing gradients on, and leaves out only the waiting.

Two processes cannot be faster than the cores let them be: in the same turns, between the measurements, each process multiplies matrices on
its own, one of them alone and two at once. Twice the time of one alone by that of two at once is the ceiling of this machine at that
moment, 2 where two cores are free; the wall ratio is reported as a share of it too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import sys
import time
from typing import Any

import _timing

AT_LEAST = 1.6
SHARE = 0.8  # of the ceiling: 1.6 of 2


def trainer(arguments: argparse.Namespace) -> Any:
    """A run before its first step."""
    from _setup import many
    from step_speed import subject

    import letheon as lt
    from letheon.core.data import Data
    from letheon.testing._changes import trainer_for
    from letheon.testing.toys import toy_data

    toy = toy_data()
    data = Data({split: many(toy[split], 4 * arguments.batch) for split in ("forget", "retain")})
    method = lt.method("npo", retain="nll", steps=100_000, batch_size=arguments.batch, learning_rate=1e-6)
    return trainer_for(method, subject(arguments.width, arguments.layers), data, lt.Run(seed=0, device="cpu", dtype="float32"))


def process(name: str, rank: int, world: int, port: int, arguments: argparse.Namespace, orders: Any, answers: Any) -> None:
    """Take steps when told to; answer with the seconds they took."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch

    torch.set_num_threads(1)
    ready = trainer(arguments)
    for _ in range(3):  # kernels are made, moments are there
        ready.advance()
    parameters = sum(p.numel() for p in ready.parameters)
    tokens = sum(int(ready.feed.encoded[split].lengths[rows].sum()) for split, rows in ready.feed.plan[0].items())
    answers.put((name, rank, (0.0, 0.0), {"parameters": parameters, "tokens_per_step": tokens}))
    square = torch.randn(512, 512)
    while order := orders.get():
        if order == "multiply":
            began = time.perf_counter()
            for _ in range(arguments.products):
                square @ square
            answers.put((name, rank, (time.perf_counter() - began, 0.0), {}))
            continue
        began = time.perf_counter(), time.process_time()
        for _ in range(arguments.steps):
            loss = ready.advance()["loss"]
        took = time.perf_counter() - began[0], time.process_time() - began[1]
        answers.put((name, rank, took, {"loss": loss}))


def main() -> None:
    """Measure, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32, help="rows of each split per step, over all processes")
    parser.add_argument("--steps", type=int, default=4, help="steps per measurement")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--products", type=int, default=200, help="matrix products that measure what the cores give")
    parser.add_argument("--out", help="write the result to this file as well")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sides = {"one": 1, "two": 2}
    answers, orders, started = context.Queue(), {}, []
    for name, world in sides.items():
        orders[name] = [context.Queue() for _ in range(world)]
        for rank, order in enumerate(orders[name]):
            started.append(context.Process(target=process, args=(name, rank, world, port, arguments, order, answers), daemon=True))
            started[-1].start()
    about = [answers.get(timeout=300)[3] for _ in started][0]
    seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in sides}
    losses: dict[str, float] = {}
    ceilings = []

    def multiplied(count: int) -> float:
        for order in orders["two"][:count]:
            order.put("multiply")
        return max(answers.get(timeout=300)[2][0] for _ in range(count))

    for k in range(arguments.repeats):
        ceilings.append(2 * multiplied(1) / multiplied(2))
        for name in list(sides) if k % 2 == 0 else list(sides)[::-1]:
            for order in orders[name]:
                order.put("step")
            found = [answers.get(timeout=300) for _ in orders[name]]
            seconds[name].append(tuple(map(max, zip(*(took for _, _, took, _ in found), strict=True))))
            losses[name] = found[0][3]["loss"]
            _timing.say(f"{name}: {seconds[name][-1][0]:.2f} s wall, {seconds[name][-1][1]:.2f} s processor")
    for side in orders.values():
        for order in side:
            order.put("")
    for each in started:
        each.join(30)
    medians = {name: [statistics.median(column) for column in zip(*took, strict=True)] for name, took in seconds.items()}
    wall, processor = (one / two for one, two in zip(medians["one"], medians["two"], strict=True))
    result: dict[str, Any] = {
        "benchmark": "processes",
        "machine": _timing.machine() | {"threads": 1},
        **about,
        "steps": arguments.steps,
        "batch": arguments.batch,
        "seconds": {name: {"wall": took[0], "processor": took[1]} for name, took in medians.items()},
        "wall_ratio": wall,
        "processor_ratio": processor,
        "ceiling": statistics.median(ceilings),
        "share_of_ceiling": wall / statistics.median(ceilings),
        "loss": losses,
        "at_least": AT_LEAST,
    }
    result["passed"] = wall >= AT_LEAST or (result["share_of_ceiling"] >= SHARE and processor >= AT_LEAST)
    _timing.write(result, arguments.out)
    if not result["passed"]:
        by = f"{processor:.2f} by processor time; the cores allow {result['ceiling']:.2f}"
        sys.exit(f"two processes are {wall:.2f} times as fast as one ({by}), and {AT_LEAST} was asked for")


if __name__ == "__main__":
    main()
