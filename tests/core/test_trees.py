"""Trees of tokens: every node sees its own path and no more, however the trees are laid, for models of many kinds."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from letheon.core import answers, trees
from letheon.core.answers import measure
from letheon.core.attention import NAME, fast_attention, path_attention
from letheon.core.batching import by_length
from letheon.core.encode import Encoded, TextEncoder
from letheon.core.subject import Subject
from letheon.core.trees import Tree, lay, paths, plant
from letheon.testing.toys import toy_data, toy_subject

CPU = torch.device("cpu")
ROWS = {
    "several depths": [[1, 2, 3, 4, 9], [1, 2, 3, 5, 6, 9], [1, 2, 3, 5, 7, 8, 9], [1, 2, 9]],
    "one node": [[4, 9]],
    "one row": [[1, 2, 3, 4, 5, 6, 9]],
    "nothing in common": [[1, 2, 9], [3, 4, 5, 9]],
    "the same twice": [[1, 2, 9], [1, 2, 9]],
}


def grown() -> list[Tree]:
    return [plant(Encoded.from_rows(rows, [1] * len(rows)), range(len(rows))) for rows in ROWS.values()]


@pytest.fixture(params=[(12, 4096), (2, 4096), (12, 7)], ids=["wide", "two abreast", "few keys"])
def limits(request, monkeypatch):
    monkeypatch.setattr(trees, "ABREAST", request.param[0])
    monkeypatch.setattr(trees, "KEYS", request.param[1])


def dense() -> torch.Tensor:
    """What sees what (n, n) in trees laid end to end, from the masks of trees laid side by side."""
    return torch.block_diag(*(lay([tree], 0, CPU)[2][0].float() for tree in grown())).bool()


def test_paths_see_what_the_mask_lets_see_and_every_node_is_answered_once(limits):
    ids, positions, groups = paths(grown(), torch.float32, CPU)
    n = ids.shape[1]
    assert ids[0].tolist() == [token for tree in grown() for token in tree.tokens]
    assert positions[0].tolist() == [depth for tree in grown() for depth in tree.depth]
    seen, answered = torch.zeros(n, n, dtype=torch.bool), torch.zeros(n, dtype=torch.long)
    for group in groups:
        target = group.target.view(group.queries.shape)
        for p in range(len(target)):
            for t in range(target.shape[1]):
                node = int(target[p, t])
                if node < n:
                    assert node == int(group.queries[p, t])
                    answered[node] += 1
                    seen[node, group.keys[p][group.mask[p, 0, t] == 0]] = True
    assert (answered == 1).all() and torch.equal(seen, dense())


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)], ids=["all", "grouped", "one"])
def test_attention_along_paths_equals_masked_attention_in_float64(limits, heads):
    generator = torch.Generator().manual_seed(0)
    _, _, groups = paths(grown(), torch.float32, CPU)
    n = len(dense())
    q, k, v = (torch.randn(1, h, n, 8, generator=generator) for h in (heads[0], heads[1], heads[1]))
    found, _ = path_attention(torch.nn.Identity(), q, k, v, None, 0.3, groups=groups)
    k, v = (part.repeat_interleave(heads[0] // heads[1], 1).double() for part in (k, v))
    scores = (0.3 * q.double() @ k.transpose(2, 3)).masked_fill(~dense(), float("-inf"))
    torch.testing.assert_close(found.double(), (scores.softmax(-1) @ v).transpose(1, 2), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="mask of its own"):
        path_attention(torch.nn.Identity(), q, k, v, torch.zeros(1, 1, n, n), groups=groups)


SMALL = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.2}
WIDE = {**SMALL, "intermediate_size": 48}
MODELS = {
    "llama": ("LlamaConfig", {**WIDE, "num_key_value_heads": 2}, "paths"),
    "gpt2": ("GPT2Config", {"vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}, "paths"),
    "gpt_neox": ("GPTNeoXConfig", WIDE, "paths"),
    "bloom": ("BloomConfig", {**SMALL, "n_layer": 2, "n_head": 4}, "rows"),  # positions come from a mask of its own
    "capped": ("Gemma2Config", {**WIDE, "num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 3.0}, None),
    "window": ("MistralConfig", {**WIDE, "num_key_value_heads": 2, "sliding_window": 8}, "rows"),
    "eager": ("LlamaConfig", {**WIDE, "attn_implementation": "eager"}, "masked"),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_gives_the_numbers_of_separate_rows(name, monkeypatch, caplog):
    import transformers

    kind, size, layout = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**size)).eval()
    subject, split = Subject(module, TextEncoder(toy_subject().encoder.tokenizer, max_length=256)), toy_data()["forget"]
    before = module.config._attn_implementation
    seen: list[str] = []
    real = answers._layout
    monkeypatch.setattr(answers, "_layout", lambda *given: seen.append(real(*given)) or seen[-1])
    with caplog.at_level(logging.INFO, "letheon"):
        found, _ = measure(subject, split, moments=True, tokens_per_batch=256)
    assert len(seen) == 1 and (layout is None or seen[0] == layout)
    assert (layout in ("paths", None, "masked") or name == "window") or "does not take trees" in caplog.text
    assert module.config._attn_implementation == before
    monkeypatch.setattr(answers, "_layout", lambda *given: "rows")
    wanted, _ = measure(subject, split, moments=True, tokens_per_batch=256)
    np.testing.assert_array_equal(found.top, wanted.top)
    for column in ("log_probability", "mean", "variance"):
        np.testing.assert_allclose(getattr(found, column), getattr(wanted, column), rtol=2e-5, atol=2e-5)
    again, _ = measure(subject, split, moments=True, tokens_per_batch=256)
    np.testing.assert_array_equal(again.log_probability, wanted.log_probability)


def test_rows_are_cut_by_their_padded_or_their_whole_length():
    lengths = np.array([5, 2, 9, 2, 4])
    assert list(by_length(lengths, 10)) == [[2], [0, 4], [1, 3]]
    assert list(by_length(lengths, 10, padded=False)) == [[2], [0, 4], [1, 3]]
    assert list(by_length(lengths, 13, padded=False)) == [[2], [0, 4, 1, 3]]
    assert list(by_length(lengths, 1, padded=False)) == [[2], [0], [4], [1], [3]]
    assert list(by_length(lengths, 100, most=2, padded=False)) == [[2, 0], [4, 1], [3]]


def test_answers_are_read_along_paths_in_the_middle_of_training_too(monkeypatch):
    subject, split, seen, real = toy_subject(), toy_data()["forget"], [], answers._layout
    usual = measure(subject, split, moments=False, tokens_per_batch=512)[0]
    monkeypatch.setattr(answers, "_layout", lambda *given: seen.append(real(*given)) or seen[-1])
    with fast_attention(subject.module):
        found = measure(subject, split, moments=False, tokens_per_batch=512)[0]
        assert seen == ["paths"] and subject.module.config._attn_implementation == NAME
    assert subject.module.config._attn_implementation == "sdpa"
    np.testing.assert_allclose(found.log_probability, usual.log_probability, rtol=0, atol=1e-5)


def test_a_model_with_a_hook_keeps_one_prompt_a_row():
    subject, split = toy_subject(), toy_data()["forget"]
    wanted, _ = measure(subject, split, moments=False, tokens_per_batch=256)
    rows: list[int] = []
    handle = subject.module.get_input_embeddings().register_forward_hook(lambda part, given, said: rows.append(len(given[0])))
    found, _ = measure(subject, split, moments=False, tokens_per_batch=256)
    handle.remove()
    assert sum(rows) >= len(split) and max(rows) > 1
    np.testing.assert_allclose(found.log_probability, wanted.log_probability, rtol=2e-5, atol=2e-5)


FAULTS = """
import resource, torch
from letheon.core.memory import keep_freed_memory
kept = keep_freed_memory()
taken = []
for _ in range(20):
    blocks = [torch.ones(1 << 20) for _ in range(8)]  # 4 MiB each, 8192 pages together
    del blocks
    taken.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(int(kept), taken[-1] - taken[9])
"""


def test_freed_memory_is_kept_for_the_next_batch():
    ran = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    kept, faults = map(int, ran.stdout.split())
    assert kept == (platform.libc_ver()[0] == "glibc" and not any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ))
    assert faults < 8192 or not kept  # in ten rounds less than the pages of one
