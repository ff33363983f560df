"""How cost grows: with rows, row length, model size and forget requests; and what peak memory depends on.

    python benchmarks/scaling.py --threads 1 [--axes rows length size requests memory]

All of it by processor time of NPO with a retain loss, on Llamas of nearly random weights and the rows of the embedded world.

    rows        an epoch over 400, 4,000 and 40,000 forget rows of 32 tokens with a retain row for each: the same rows over and over, with
                ids of their own. The shorter epochs are run in pauses of the longest, spread over it, so that a machine that slows
                down hits all alike; their time is taken off. Cost per row includes what is paid once a run, which a fitted line shows
    length      the same number of tokens as rows of 32 to 512 tokens: cost per token, and the exponent of cost per row in length
    size        the same rows on 0.2 to 20 million weights: cost per token and weight, and the exponent of cost in weights
    requests    12 requests one after another, each on the model before: with its own rows, and with those of all earlier requests too,
                as `letheon requests fulfil` does it
    memory      peak of an epoch over 400 and 40,000 rows (`--epoch-size`) and of an audit over 400 and 4,000 (`--model`, or the micro
                model), each in a process of its own. What must be held for each row (tokens, facts, values) is reported and taken off
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import Any

import _setup
import _timing

TINY = {"width": 32, "layers": 1, "heads": 2, "intermediate": 64}
MICRO = {"width": 128, "layers": 4, "heads": 4, "intermediate": 352}
SIZES = {
    "0.2M": {"width": 64, "layers": 3, "heads": 2, "intermediate": 160},
    "1M": {"width": 128, "layers": 5, "heads": 4, "intermediate": 352},
    "5M": {"width": 256, "layers": 6, "heads": 4, "intermediate": 704},
    "20M": {"width": 448, "layers": 8, "heads": 7, "intermediate": 1216},
}
LENGTHS = (32, 64, 128, 256, 512)
ROW, FEW = 32, 400  # tokens and number of the rows that come over and over
REQUESTS, SLICE = 12, 32
DEARER, MORE_MEMORY = 1.05, 1.10  # the bars: cost per row from few to many rows, and working memory
BYTES_PER_ROW = 2 * 8 + 4 + 2 * 12  # of a forget row and its partner, beside tokens: places in the plan, frozen nll, offsets and starts


def npo(**settings: Any) -> Any:
    """The method that is measured, at a rate that leaves the weights as they are."""
    import letheon as lt

    return lt.method("npo", retain="nll", learning_rate=1e-7, **({"epochs": 1} | settings))


def grown(base: Any, rows: int) -> Any:
    """`rows` forget rows and as many to retain: those of `base` over and over."""
    from letheon.core.data import Data

    return Data({name: _setup.many(base[name], rows) for name in ("forget", "retain")}, "grown")


def exponent(x: list[float], y: list[float]) -> float:
    """Slope of log y in log x."""
    import numpy as np

    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def by_rows(arguments: Any) -> dict[str, Any]:
    """Epochs over few and many rows, the shorter ones in pauses of the longest."""
    import numpy as np

    import letheon as lt
    from letheon.core.data import Data

    data = _setup.data(arguments)
    subject, sizes = _setup.random_llama(data, **TINY), sorted(arguments.rows)
    mixed = Data({"forget": data["full"][:FEW], "retain": data["full"][FEW : 2 * FEW]})
    base = mixed if arguments.mixed else pair_of(subject, ROW, FEW)
    worlds = {n: grown(base, n) for n in sizes}
    took: dict[int, list[_timing.Took]] = {n: [] for n in sizes}

    class Pausing(lt.Run):
        """Runs shorter epochs in between, and knows how long they took."""

        steps, wall, cpu = 0, 0.0, 0.0
        turns = [*sizes[:-1], sizes[0]] * arguments.repeats
        every = max(1, sizes[-1] // npo().settings.batch_size // (len(turns) + 1))

        def record(self, **values: Any) -> None:
            self.steps += 1
            if self.steps % self.every == 0 and self.steps // self.every <= len(self.turns):
                pause = _timing.timed(lambda: epoch(self.turns[self.steps // self.every - 1]))
                self.wall, self.cpu = self.wall + pause.wall, self.cpu + pause.cpu

    def epoch(n: int) -> None:
        took[n].append(_timing.timed(lambda: npo().apply(subject, worlds[n], lt.Run(seed=0))))

    epoch(sizes[0])  # kernels are made and probes run once per process
    took[sizes[0]].clear()
    run = Pausing(seed=0)
    long = _timing.timed(lambda: npo().apply(subject, worlds[sizes[-1]], run))
    took[sizes[-1]] = [_timing.Took(long.wall - run.wall, long.cpu - run.cpu, None)]
    seconds = {n: _timing.medians(runs)["cpu_seconds"] for n, runs in took.items()}
    fit = np.linalg.lstsq(np.array([[1 / s, n / s] for n, s in seconds.items()]), np.ones(len(seconds)), rcond=None)[0]
    per_row = {n: 1e3 * s / n for n, s in seconds.items()}
    return {
        "turns": {n: len(runs) for n, runs in took.items()}, "cpu_seconds": seconds,
        "cpu_milliseconds_per_row": per_row, "few_spread": [min(t.cpu for t in took[sizes[0]]), max(t.cpu for t in took[sizes[0]])],
        "line": {"seconds_once": float(fit[0]), "milliseconds_per_row": 1e3 * float(fit[1])},
        "many_over_few": per_row[sizes[-1]] / per_row[sizes[0]], "at_most": DEARER,
    }  # fmt: skip


def of_worlds(subjects: dict[str, Any], worlds: dict[str, Any], repeats: int, **settings: Any) -> dict[str, float]:
    """Median processor seconds of an epoch over each world, in turn."""
    import letheon as lt

    work = {name: lambda name=name: npo(**settings).apply(subjects[name], worlds[name], lt.Run(seed=0)) for name in worlds}
    for one in work.values():
        one()
    return {name: _timing.medians(runs)["cpu_seconds"] for name, runs in _timing.alternate(work, repeats).items()}


def pair_of(subject: Any, length: int, rows: int) -> Any:
    """Forget and retain rows of one length."""
    from letheon.core.data import Data

    return Data({"forget": _setup.of_length(subject, length, rows), "retain": _setup.of_length(subject, length, rows, seed=1)})


def by_length(arguments: Any) -> dict[str, Any]:
    """The same number of tokens in short and in long rows."""
    subject = _setup.random_llama(_setup.data(arguments), **MICRO)
    worlds = {str(length): pair_of(subject, length, arguments.tokens // length) for length in LENGTHS}
    seconds = of_worlds(dict.fromkeys(worlds, subject), worlds, arguments.repeats, batch_size=8)
    per_token = {name: 1e6 * s / (2 * arguments.tokens) for name, s in seconds.items()}
    return {
        "tokens": 2 * arguments.tokens, "turns": arguments.repeats, "cpu_microseconds_per_token": per_token,
        "exponent": exponent([*map(float, LENGTHS)], [per_token[str(n)] * n for n in LENGTHS]),
        "longest_over_shortest": per_token[str(LENGTHS[-1])] / per_token[str(LENGTHS[0])],
    }  # fmt: skip


def by_size(arguments: Any) -> dict[str, Any]:
    """The same rows on models of several sizes."""
    data = _setup.data(arguments)
    subjects = {name: _setup.random_llama(data, **shape) for name, shape in SIZES.items()}
    weights = {name: sum(p.numel() for p in subject.module.parameters()) for name, subject in subjects.items()}
    worlds = {name: pair_of(subject, 96, 32) for name, subject in subjects.items()}
    seconds = of_worlds(subjects, worlds, arguments.repeats, batch_size=16)
    cost = {name: 1e12 * s / (2 * 96 * 32) / weights[name] for name, s in seconds.items()}
    names = list(SIZES)
    return {
        "weights": weights, "tokens": 2 * 96 * 32, "turns": arguments.repeats, "cpu_seconds": seconds,
        "cpu_picoseconds_per_token_and_weight": cost,
        "exponent": exponent([float(weights[n]) for n in names], [seconds[n] for n in names]),
        "largest_over_smallest": cost[names[-1]] / cost[names[0]],
    }  # fmt: skip


def by_requests(arguments: Any) -> dict[str, Any]:
    """Requests one after another, each on the model that the one before left."""
    import letheon as lt
    from letheon.core.data import Data

    data = _setup.data(arguments)
    start, rows = _setup.random_llama(data, **TINY), data["full"][: REQUESTS * SLICE]
    found: dict[str, Any] = {"requests": REQUESTS, "rows_per_request": SLICE, "turns": arguments.repeats}
    for way, first in (("own rows", lambda k: k), ("with all earlier rows", lambda k: 0)):
        costs: list[list[float]] = [[] for _ in range(REQUESTS)]
        peaks: list[list[float]] = [[] for _ in range(REQUESTS)]
        for turn in range(arguments.repeats + 1):
            subject = start
            for k in range(REQUESTS):
                forget = rows[SLICE * first(k) : SLICE * (k + 1)]
                one = Data({"forget": forget, "retain": data["full"][-400:]}, "request")
                peak = _timing.Peak()
                took = _timing.timed(lambda one=one, subject=subject: npo(epochs=2).apply(subject, one, lt.Run(seed=0)))
                subject = took.result
                if turn:  # the first only warms up
                    costs[k].append(took.cpu)
                    peaks[k].append(peak.grown())
        seconds, memory = [statistics.median(c) for c in costs], [statistics.median(p) for p in peaks]
        _timing.say(f"{way}: {seconds[0]:.2f} s the first, {seconds[-1]:.2f} s the last")
        # the mean of three stands for either end: a request alone takes less than a second
        found[way] = {
            "cpu_seconds": seconds, "last_over_first": sum(seconds[-3:]) / sum(seconds[:3]),
            "peak_mebibytes": memory, "memory_last_over_first": sum(memory[-3:]) / sum(memory[:3]),
        }  # fmt: skip
    return found


def epoch_memory(arguments: Any, rows: int) -> dict[str, float]:
    """Peak memory of an epoch over `rows` forget rows, in this process."""
    import letheon as lt

    subject = _setup.random_llama(_setup.data(arguments), **{"tiny": TINY, **SIZES}[arguments.epoch_size])
    base = pair_of(subject, ROW, FEW)
    npo().apply(subject, base, lt.Run(seed=0))  # kernels are made once per process
    many = grown(base, rows)
    many.digest  # noqa: B018  kept by the splits from now on
    peak = _timing.Peak()
    npo().apply(subject, many, lt.Run(seed=0))
    total, held = peak.grown(), rows * (2 * 4 * ROW + BYTES_PER_ROW) / 2**20
    return {"rows": rows, "mebibytes": total, "held_for_rows": held, "working": total - held}


def audit_memory(arguments: Any, rows: int) -> dict[str, float]:
    """Peak memory of the TOFU suite over `rows` forget rows, in this process."""
    import letheon as lt
    from letheon.audit.tofu import TofuSuite
    from letheon.core.data import Data
    from letheon.core.readings import Readings

    data = _setup.data(arguments)
    subject, _ = _setup.subjects(arguments)
    run = lt.Run(seed=0)
    suite = TofuSuite(max_new_tokens=arguments.max_new_tokens, attacks="none")
    warm = Data({"forget": data["forget"][:8], "holdout": data["holdout"][:8]})
    suite.measure(Readings(subject, run), warm, run)
    many = Data({"forget": _setup.many(data["forget"], rows), "holdout": data["holdout"]}, "grown")
    many.digest  # noqa: B018  kept by the split from now on
    peak = _timing.Peak()
    readings = Readings(subject, run)
    found = suite.measure(readings, many, run)
    total = peak.grown()
    held = (sum(map(_held, readings._memory.values())) + sum(_held(finding.rows) for finding in found)) / 2**20
    return {"rows": rows, "mebibytes": total, "held_for_rows": held, "working": total - held}


def _held(value: Any) -> int:
    """Bytes of arrays, texts and tuples of numbers."""
    import numpy as np

    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, (str, float)):
        return sys.getsizeof(value)
    if isinstance(value, (tuple, list)):
        return sys.getsizeof(value) + sum(map(_held, value))
    return sum(map(_held, vars(value).values())) if hasattr(value, "__dict__") else 0


def by_memory(arguments: Any) -> dict[str, Any]:
    """Epochs and audits over few and many rows, each in a process of its own."""
    settings = (*_setup.given(arguments), "--max-new-tokens", str(arguments.max_new_tokens), "--epoch-size", arguments.epoch_size)
    sizes = {"epoch": (min(arguments.rows), max(arguments.rows)), "audit": arguments.audit_rows}
    found: dict[str, Any] = {"at_most": MORE_MEMORY, "epoch_size": arguments.epoch_size}
    for what, rows in sizes.items():
        found[what] = [_timing.in_own_process(__file__, "--memory", what, "--rows", str(n), *settings) for n in rows]
        found[f"{what}_growth"] = max(one["working"] for one in found[what]) / found[what][0]["working"]
    return found


AXES = {"rows": by_rows, "length": by_length, "size": by_size, "requests": by_requests, "memory": by_memory}


def missed(result: dict[str, Any]) -> list[str]:
    """One sentence for each bar that a result misses."""
    found = []
    if "rows" in result and result["rows"]["many_over_few"] > DEARER:
        found.append(f"a row of many costs {result['rows']['many_over_few']:.3f} times one of few, at most {DEARER}")
    for what in ("epoch", "audit") if "memory" in result else ():
        if result["memory"][f"{what}_growth"] > MORE_MEMORY:
            found.append(f"working memory of an {what} grows to {result['memory'][f'{what}_growth']:.2f} times, at most {MORE_MEMORY}")
    return found


def main() -> None:
    """Measure, print."""
    parser = _setup.parser(__doc__ or "")
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES), help="which to measure")
    parser.add_argument("--repeats", type=int, default=5, help="turns; the longest epoch, a hundred times the shortest, is run once")
    parser.add_argument("--rows", type=int, nargs="+", default=[400, 4000, 40_000], help="forget rows of the epochs")
    parser.add_argument("--mixed", action="store_true", help="epochs over rows of the embedded world as they are")
    parser.add_argument("--tokens", type=int, default=4096, help="forget tokens for each row length")
    parser.add_argument("--epoch-size", choices=("tiny", *SIZES), default="1M", help="weights of the model whose epoch's memory is measured")
    parser.add_argument("--audit-rows", type=int, nargs="*", default=[400, 4000], help="forget rows of the audits")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="longest generation in the audits")
    parser.add_argument("--memory", choices=("epoch", "audit"), help="only measure its peak memory over `--rows` rows, in this process")
    arguments = parser.parse_args()
    _setup.threads(arguments)
    if arguments.memory:
        measure = {"epoch": epoch_memory, "audit": audit_memory}[arguments.memory]
        print(json.dumps(measure(arguments, arguments.rows[0])))
        return
    result: dict[str, Any] = {"benchmark": "scaling", "machine": _timing.machine()}
    for axis in arguments.axes:
        _timing.say(f"= {axis}")
        result[axis] = AXES[axis](arguments)
        _timing.save(result, arguments.out)  # an axis takes minutes
    faults = missed(result)
    result["passed"] = not faults
    _timing.write(result, arguments.out)
    if faults:
        sys.exit("; ".join(faults))


if __name__ == "__main__":
    main()
