"""Tokens per second and share of the peak of a 1B-class Llama with random weights: npo, finetune, audit readings, generation.

    python benchmarks/gpu.py                            # on a machine with a GPU
    python benchmarks/gpu.py --device cpu --size tiny   # shows that it works; these are CPU numbers

The peak is that of the best square matrix product on the same device in the same run. Model FLOP/s count what the mathematics of the model
needs and nothing that is done twice: 2 operations per weight and token forward, 6 with backward, and 4 (12) per layer, width and pair of
tokens that see one another; the output head counts at scored tokens only, where letheon applies it. The embedding is a look-up and counts
nothing. Tokens are those of rows, without padding. Generation is bound by memory: beside it stands the share of the copy rate of the device
that reading all weights once per step would take.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import _timing

SIZES = {  # width, layers, heads, key-value heads, inner width
    "1b": (2048, 16, 32, 8, 8192),
    "100m": (768, 12, 12, 12, 3072),
    "tiny": (128, 2, 4, 4, 384),
}
VOCABULARY = {"1b": 128_256, "100m": 32_000, "tiny": 2_000}


@dataclass(frozen=True)
class Work:
    """What one call does: tokens of rows, operations of the model, and steps of decoding, each of which reads all weights."""

    call: Callable[[], Any]
    tokens: int
    operations: float
    reads: int = 0


def subject(size: str, device: str, dtype: Any) -> Any:
    """A Llama with random weights and the tokenizer of the toys, which knows the first tokens of its vocabulary."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from letheon.core.subject import Subject
    from letheon.testing.toys import toy_subject

    width, layers, heads, few, inner = SIZES[size]
    toy = toy_subject()
    keep = {key: getattr(toy.module.config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = AutoConfig.for_model(
        "llama", hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=few, intermediate_size=inner,
        vocab_size=VOCABULARY[size], max_position_embeddings=2048, head_dim=width // heads, tie_word_embeddings=True, **keep,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        return Subject(AutoModelForCausalLM.from_config(config, dtype=dtype), toy.encoder, name=f"llama-{size}")


def rows(arguments: argparse.Namespace, encoder: Any) -> Any:
    """Rows of about `length` tokens: answers of the toys end to end."""
    from letheon.core.data import Data, Example, Split
    from letheon.testing.toys import toy_data

    answers = [row.answer for row in toy_data()["retain"]]
    made = {}
    for name, prompt in (("forget", "What is said of the first"), ("retain", "What is said of the second")):
        split = []
        for i in range(arguments.rows):
            said: list[str] = []
            while len(encoder.tokenizer(" ".join(said))["input_ids"]) < arguments.length - 16:
                said.append(answers[(i + len(said)) % len(answers)])
            split.append(Example(id=f"{name}-{i}", prompt=f"{prompt} {i}?", answer=" ".join(said)))
        made[name] = Split(split, name)
    return Data(made)


def operations(model: Any, encoded: Any, scored: int, passes: int) -> float:
    """Operations of the model on rows: `passes` is 1 for a forward pass and 3 with a backward pass."""
    width, layers = model.config.hidden_size, model.config.num_hidden_layers
    head = model.get_output_embeddings().weight.numel()
    inside = sum(p.numel() for p in model.parameters() if p.ndim >= 2) - head
    lengths = encoded.lengths.astype(float)
    pairs = float((lengths * (lengths + 1) / 2).sum())
    return passes * (2 * inside * lengths.sum() + 2 * head * scored + 4 * layers * width * pairs)


def training(name: str, arguments: argparse.Namespace, model: Any, data: Any, run: Any) -> Work:
    """One optimiser step of `npo` (forget and retain rows) or `finetune`; the frozen numbers of npo are taken before."""
    import letheon as lt
    from letheon.testing._changes import trainer_for

    settings: dict[str, Any] = {"steps": 100_000, "batch_size": arguments.batch, "learning_rate": 1e-6}
    method = lt.method(name, **settings, **({"retain": "nll"} if name == "npo" else {"split": "forget"}))
    trainer = trainer_for(method, model, data, run)
    done = trainer.feed.plan[0]
    tokens, total = 0, 0.0
    for split, at in done.items():
        encoded = trainer.feed.encoded[split]
        some = type(encoded).from_rows([encoded.row(int(i)).tolist() for i in at], [int(encoded.starts[i]) for i in at])
        tokens += int(some.lengths.sum())
        total += operations(model.module, some, int(some.scored.sum()), 3)
    return Work(trainer.advance, tokens, total)


def reading(arguments: argparse.Namespace, model: Any, data: Any, run: Any) -> Work:
    """The answers of all forget rows, as audits read them."""
    from letheon.core.readings import Readings

    encoded = model.encoder.encode(data["forget"])
    count = operations(model.module, encoded, int(encoded.scored.sum()), 1)
    return Work(lambda: Readings(model, run).prefetch(data["forget"]), int(encoded.lengths.sum()), count)


def generating(arguments: argparse.Namespace, model: Any, data: Any, run: Any) -> Work:
    """Greedy answers of `new` tokens to all prompts."""
    from letheon.core.encode import Encoded
    from letheon.core.generate import greedy

    prompts = model.encoder.prompts(data["forget"])
    ends, model.module.generation_config.eos_token_id = model.module.generation_config.eos_token_id, None
    said = greedy(model, prompts, arguments.new)
    whole = Encoded.from_rows([[*prompt, *more] for prompt, more in zip(prompts, said, strict=True)], [len(prompt) for prompt in prompts])
    model.module.generation_config.eos_token_id = ends
    tokens = sum(map(len, said))
    return Work(lambda: greedy(model, prompts, arguments.new), tokens, operations(model.module, whole, tokens, 1), arguments.new)


def clock(device: str) -> Callable[[], None]:
    """Waits until the device has done what it was given."""
    import torch

    return torch.cuda.synchronize if device == "cuda" else lambda: None


def measured(work: Work, arguments: argparse.Namespace, dtype: Any, peak: float, copies: float, weights: float) -> dict[str, Any]:
    """Median seconds of a call, and what follows; memory where the device accounts for it."""
    import torch

    wait, cuda = clock(arguments.device), arguments.device == "cuda"

    def once() -> None:
        work.call()
        wait()

    for _ in range(2):
        once()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    took = [_timing.timed(once) for _ in range(arguments.repeats)]
    seconds = _timing.medians(took)["wall_seconds"]
    rate = work.operations / seconds
    found = {"seconds": seconds, "tokens": work.tokens, "tokens_per_second": work.tokens / seconds, "model_flops_per_second": rate}
    found["share_of_peak"] = rate / peak
    if work.reads:
        found["share_of_copy_rate"] = work.reads * weights / seconds / copies
    if cuda:
        found["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def peaks(device: str, dtype: Any) -> tuple[float, float]:
    """Operations per second of the best square product, and bytes per second of a copy (read once, written once)."""
    import torch

    if device == "cpu":
        product = _timing.matmul_peak(dtype, 1024)["wall"]
        n, sizes = 1 << 26, ()
    else:
        product, n, sizes = 0.0, 1 << 30, (4096, 8192)
    wait = clock(device)
    for size in sizes:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        times = [_timing.timed(lambda a=a, b=b: (torch.mm(a, b), wait())).wall for _ in range(20)]
        product = max(product, 2 * size**3 / min(times))
    source = torch.zeros(n, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = min(_timing.timed(lambda: (target.copy_(source), wait())).wall for _ in range(10))
    return product, 2 * n / copy


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--size", default="1b", choices=list(SIZES))
    parser.add_argument("--length", type=int, default=256, help="tokens of a row, about")
    parser.add_argument("--rows", type=int, default=128, help="rows that are read and answered")
    parser.add_argument("--batch", type=int, default=32, help="rows of each split per training step")
    parser.add_argument("--new", type=int, default=64, help="tokens of a generated answer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", help="write the result to this file as well")
    arguments = parser.parse_args()
    import torch

    import letheon as lt

    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no GPU that this PyTorch can use: `--device cpu --size tiny` shows that the benchmark works")
    run = lt.Run(seed=0, device=arguments.device, cache=None)
    dtype = run.compute_dtype
    peak, copies = peaks(arguments.device, dtype)
    model = subject(arguments.size, arguments.device, torch.float32)
    data = rows(arguments, model.encoder)
    parameters = sum(p.numel() for p in model.module.parameters())
    made = {name: lambda name=name: training(name, arguments, model, data, run) for name in ("npo", "finetune")}
    results = {}
    for name, make in made.items():
        results[name] = measured(make(), arguments, dtype, peak, copies, 0.0)
        _timing.say(f"{name}: {results[name]['tokens_per_second']:,.0f} tokens/s, {results[name]['share_of_peak']:.1%} of the peak")
        if arguments.device == "cuda":
            torch.cuda.empty_cache()
    reads = subject(arguments.size, arguments.device, dtype)  # audits read weights in the format they are stored in
    for name, make_work in (("audit readings", reading), ("generation", generating)):
        work = make_work(arguments, reads, data, run)
        results[name] = measured(work, arguments, dtype, peak, copies, parameters * dtype.itemsize)
        _timing.say(f"{name}: {results[name]['tokens_per_second']:,.0f} tokens/s, {results[name]['share_of_peak']:.1%} of the peak")
    _timing.write(
        {
            "benchmark": "gpu",
            "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU: these are no GPU numbers",
            "machine": _timing.machine(),
            "size": arguments.size,
            "parameters": parameters,
            "compute": str(dtype).removeprefix("torch."),
            "attention": model.module.config._attn_implementation,
            "peak_flops_per_second": peak,
            "copy_bytes_per_second": copies,
            "results": results,
        },
        arguments.out,
    )


if __name__ == "__main__":
    main()
