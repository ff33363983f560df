"""NPO with a retain loss: letheon against the straightforward loop, in one run, over the same rows in the same steps.

    python benchmarks/erase_speed.py --model MODEL --tofu TOFU

Speed is scored answer tokens (forget and retain) per second over whole runs, the measuring of the frozen start included. In float32 the
loss of every step must equal that of the straightforward loop. Peak memory is taken in a process of its own for each run, above what the
loaded model and the rows take.
"""

from __future__ import annotations

import copy
import json
import sys
from typing import Any

import _setup
import _timing

AT_LEAST, AT_MOST = 3.0, 1.25
BETA, RATE = 0.1, 1e-4
LOSS = 2e-3  # largest relative difference of the loss of a step, float32
MEMORY = ("letheon-npo", "letheon-finetune", "plain-npo", "plain-finetune")


class Work:
    """The rows, the plan of all steps, and the four loops over them."""

    def __init__(self, arguments: Any, epochs: int):
        from _baseline import encode

        import letheon as lt
        from letheon.core.registry import make
        from letheon.train.loop import plan_steps, rate_factor

        class Noted(lt.Run):
            """Keeps the loss of every step."""

            def record(self, **values: Any) -> None:
                self.__dict__.setdefault("losses", []).append(values["loss"])

        self.make_run = Noted
        self.data = _setup.data(arguments)
        self.subject, _ = _setup.subjects(arguments)
        self.common = {"epochs": epochs, "learning_rate": RATE, "weight_decay": 0.0}
        self.npo = lt.method("npo", beta=BETA, retain="nll", **self.common)
        self.finetune = lt.method("finetune", split="forget", **self.common)
        self.plan = plan_steps(self.npo, make(self.npo.settings.sampler, "train/samplers"), self.data, Noted(seed=0))
        settings = self.npo.settings
        self.factors = [rate_factor(k, len(self.plan), settings.warmup, settings.schedule) for k in range(len(self.plan))]
        tokenizer = self.subject.encoder.tokenizer
        self.rows = {name: [encode(tokenizer, row.prompt, row.answer) for row in self.data[name]] for name in ("forget", "retain")}
        self.pad = self.subject.encoder.pad

    def scored(self) -> int:
        """Answer tokens in all steps, both splits."""
        return sum(len(self.rows[name][i].ids) - self.rows[name][i].prompt for step in self.plan for name in step for i in step[name])

    def ours(self, dtype: str) -> list[float]:
        """letheon's NPO; the loss of each step."""
        run = self.make_run(seed=0, dtype=dtype)
        self.npo.apply(self.subject, self.data, run)
        return run.losses

    def ours_finetune(self) -> list[float]:
        """letheon's fine-tuning on the forget rows, which is the same size of step without a retain split."""
        run = self.make_run(seed=0)
        self.finetune.apply(self.subject, self.data, run)
        return run.losses

    def plain(self, autocast: bool = False) -> list[float]:
        """The straightforward NPO loop."""
        import _baseline

        steps = [(step["forget"].tolist(), step["retain"].tolist()) for step in self.plan]
        model = copy.deepcopy(self.subject.module)
        return _baseline.npo(
            model, self.rows["forget"], self.rows["retain"], steps, self.pad, beta=BETA, rate=RATE, factors=self.factors, autocast=autocast
        )  # fmt: skip

    def plain_finetune(self) -> list[float]:
        """The straightforward fine-tuning loop on the forget rows."""
        import _baseline

        model = copy.deepcopy(self.subject.module)
        steps = [step["forget"].tolist() for step in self.plan]
        return _baseline.finetune(model, self.rows["forget"], steps, self.pad, rate=RATE, factors=self.factors)

    def flops(self) -> float:
        """Useful operations of one run: three times a forward pass over real tokens, the head only where tokens are scored.

        A forward pass takes 2 operations per weight of the body and token, 2 d v per scored token, and 4 d t_i per token and layer for
        attention over t_i earlier tokens. Padding, recomputed logits and the pass over the frozen start do not count.
        """
        module = self.subject.module
        config = module.config
        embedding = module.get_input_embeddings().weight
        tied = module.get_output_embeddings().weight is embedding
        body = sum(p.numel() for p in module.parameters()) - embedding.numel() * (1 if tied else 2)
        d = config.num_attention_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        total = 0.0
        for step in self.plan:
            for name, chosen in step.items():
                for i in chosen:
                    row = self.rows[name][i]
                    t = len(row.ids)
                    total += 2 * body * t + 2 * embedding.numel() * (t - row.prompt) + 4 * d * config.num_hidden_layers * t * (t + 1) / 2
        return 3 * total


def memory_of(which: str, arguments: Any) -> dict[str, float]:
    """Peak memory of one loop in this process, MiB above the loaded model and rows."""
    work = Work(arguments, epochs=1)
    peak = _timing.Peak()
    {
        "letheon-npo": lambda: work.ours("auto"),
        "letheon-finetune": work.ours_finetune,
        "plain-npo": work.plain,
        "plain-finetune": work.plain_finetune,
    }[which]()
    return {"mebibytes": peak.grown()}


def speed(work: Work, repeats: int) -> dict[str, Any]:
    """Tokens per second of all loops, ratios, and the share of the matrix peak."""
    import torch

    fast = work.make_run(seed=0).compute_dtype
    loops = {
        "letheon": lambda: work.ours("auto"),
        "letheon-float32": lambda: work.ours("float32"),
        "straightforward": work.plain,
        "straightforward-bf16": lambda: work.plain(autocast=True),
    }
    work.ours("auto")  # kernels are made and probes run once per process, on neither side's clock
    took = _timing.alternate(loops, repeats)
    ours, plain = took["letheon-float32"][-1].result, took["straightforward"][-1].result
    gap = max(abs(a - b) / abs(b) for a, b in zip(ours, plain, strict=True))
    if gap > LOSS:
        raise SystemExit(f"losses differ: by {gap:.2g} at most, relative")
    tokens, flops = work.scored(), work.flops()
    found: dict[str, Any] = {"steps": len(work.plan), "answer_tokens": tokens, "largest_difference_of_loss": gap}
    peaks = {str(dtype): _timing.matmul_peak(dtype) for dtype in {fast, torch.float32}}
    for name, runs in took.items():
        middle = _timing.medians(runs)
        peak = peaks[str(fast if name in ("letheon", "straightforward-bf16") and fast != torch.float32 else torch.float32)]
        found[name] = {
            **middle,
            "answer_tokens_per_second": tokens / middle["wall_seconds"],
            "answer_tokens_per_cpu_second": tokens / middle["cpu_seconds"],
            "share_of_matmul_peak": flops / middle["cpu_seconds"] / peak["cpu"],
        }
    found["matmul_peak_gigaflops"] = {name: {clock: rate / 1e9 for clock, rate in peak.items()} for name, peak in peaks.items()}
    for name in ("letheon", "letheon-float32"):
        found[f"{name}_against_straightforward"] = _timing.ratios(took["straightforward"], took[name])
    return found


def main() -> None:
    """Measure, compare, print."""
    parser = _setup.parser(__doc__ or "")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2, help="passes over the forget rows in each run")
    parser.add_argument("--memory", choices=MEMORY, help="only measure the peak memory of this loop, in this process")
    arguments = parser.parse_args()
    _setup.threads(arguments)
    if arguments.memory:
        print(json.dumps(memory_of(arguments.memory, arguments)))
        return
    result: dict[str, Any] = {"benchmark": "erase_speed", "machine": _timing.machine()}
    result |= speed(Work(arguments, arguments.epochs), arguments.repeats)
    memory = {which: _timing.in_own_process(__file__, "--memory", which, *_setup.given(arguments))["mebibytes"] for which in MEMORY}
    result["peak_mebibytes"] = memory
    result["memory_ratios"] = {
        "letheon npo / straightforward finetune": memory["letheon-npo"] / memory["plain-finetune"],
        "letheon npo / letheon finetune": memory["letheon-npo"] / memory["letheon-finetune"],
        "straightforward npo / straightforward finetune": memory["plain-npo"] / memory["plain-finetune"],
    }
    ratio = result["letheon_against_straightforward"]
    worst = max(memory["letheon-npo"] / memory[name] for name in ("plain-finetune", "letheon-finetune"))
    result |= {"at_least": AT_LEAST, "memory_at_most": AT_MOST}
    result["passed"] = min(ratio.values()) >= AT_LEAST and worst <= AT_MOST
    _timing.write(result, arguments.out)
    if not result["passed"]:
        speeds = f"{ratio['wall_ratio']:.2f} by the clock, {ratio['cpu_ratio']:.2f} by processor time"
        sys.exit(f"speed {speeds} (at least {AT_LEAST}); memory {worst:.2f} (at most {AT_MOST})")


if __name__ == "__main__":
    main()
