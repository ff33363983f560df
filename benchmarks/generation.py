"""Greedy decoding: letheon against `model.generate` of transformers, the same prompts, in one process, with the same texts.

    python benchmarks/generation.py --model MODEL --tofu TOFU --threads 1

transformers gets left-padded batches of 32 in the given order, as evaluations are mostly written; letheon sorts by length, decodes with one
growing cache, and lets rows go as they end. What letheon's audits know of an answer beforehand is left out here: both sides decode every
token. Rows may differ where two tokens tie.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import _setup
import _timing

AT_LEAST = 1.5
TIES = 0.01  # share of rows whose tokens may differ


def by_transformers(subject: Any, prompts: Sequence[Sequence[int]], most: int, batch: int) -> list[list[int]]:
    """New tokens of each prompt, up to and with the end token, by `generate`."""
    import torch

    end, pad, found = subject.encoder.end, subject.encoder.pad, []
    for i in range(0, len(prompts), batch):
        some = prompts[i : i + batch]
        longest = max(map(len, some))
        ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in some])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in some])
        with torch.no_grad():
            out = subject.module.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=most, do_sample=False, eos_token_id=end, pad_token_id=pad
            )
        for said in out[:, longest:].tolist():
            found.append(said[: said.index(end) + 1] if end in said else said)
    return found


def main() -> None:
    """Measure, compare, print."""
    parser = _setup.parser(__doc__ or "")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32, help="rows of a batch of transformers")
    parser.add_argument("--max-new-tokens", type=int, default=200, help="longest answer")
    parser.add_argument("--split", default="forget", help="split whose questions are answered")
    arguments = parser.parse_args()
    _setup.threads(arguments)
    from letheon.core.generate import greedy

    subject, _ = _setup.subjects(arguments)
    prompts = subject.encoder.prompts(_setup.data(arguments)[arguments.split])
    most = arguments.max_new_tokens
    ways = {
        "letheon": lambda: greedy(subject, prompts, most),
        "transformers": lambda: by_transformers(subject, prompts, most, arguments.batch),
    }
    greedy(subject, prompts[:8], 4)  # which way of decoding suits the model is tried once per process
    took = _timing.alternate(ways, arguments.repeats)
    ours, theirs = took["letheon"][-1].result, took["transformers"][-1].result
    differ = sum(a != b for a, b in zip(ours, theirs, strict=True)) / len(ours)
    if differ > TIES:
        sys.exit(f"the texts differ in {differ:.1%} of rows, at most {TIES:.0%} for ties")
    tokens, ratio = sum(map(len, ours)), _timing.ratios(took["transformers"], took["letheon"])
    speed = {name: {**(m := _timing.medians(runs)), "tokens_per_cpu_second": tokens / m["cpu_seconds"]} for name, runs in took.items()}
    result = {
        "benchmark": "generation", "machine": _timing.machine(), "turns": arguments.repeats, "prompts": len(prompts), "new_tokens": tokens,
        "rows_that_differ": differ, **speed, **ratio, "at_least": AT_LEAST, "passed": ratio["cpu_ratio"] >= AT_LEAST,
    }  # fmt: skip
    _timing.write(result, arguments.out)
    if not result["passed"]:
        sys.exit(f"only {ratio['cpu_ratio']:.2f} times faster by processor time; at least {AT_LEAST}")


if __name__ == "__main__":
    main()
