"""The llama2.c reader against an independent float64 evaluation of the file and an independent greedy tokenizer, on a real model."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from letheon.core.errors import SubjectError
from letheon.core.subject import Subject
from letheon.subjects.hf import load
from letheon.subjects.llama2c import Llama2c


@pytest.fixture(scope="module")
def files(shared) -> dict[str, str]:
    folder = shared / "data" / "weights" / "stories260K"
    if not folder.is_dir():
        pytest.skip("the checkpoint is not beside the repository: see tests/SKIPS.md")
    return {"checkpoint": str(folder / "stories260K.bin"), "tokenizer": str(folder / "tok512.bin")}


@pytest.fixture(scope="module")
def stories(shared) -> list[str]:
    """Whole stories of at most 1,100 letters; where one begins has to be guessed, the file has no separator."""
    text = (shared / "data" / "text" / "tinystories" / "tinystories_1mb.txt").read_text(encoding="utf-8")
    found = re.split(r"\n+(?=Once upon a time|One day|Once there)", text)
    return [story.strip() for story in found if len(story) < 1100]


@pytest.fixture(scope="module")
def subject(files) -> Subject:
    return Llama2c(**files).build()


def direct(content: bytes, tokens: list[int]) -> np.ndarray:
    """Logits (t, v) of the checkpoint, position by position as the format's own program works, in float64."""
    dim, hidden, layers, heads, kv_heads, vocabulary, context = struct.unpack("<7i", content[:28])
    values, at, size = np.frombuffer(content[28:], dtype="<f4").astype(np.float64), 0, dim // heads

    def take(*shape: int) -> np.ndarray:
        nonlocal at
        at += int(np.prod(shape))
        return values[at - int(np.prod(shape)) : at].reshape(shape)

    embedding, norm_a = take(abs(vocabulary), dim), take(layers, dim)
    q, k, v = take(layers, dim, dim), take(layers, kv_heads * size, dim), take(layers, kv_heads * size, dim)
    o, norm_f = take(layers, dim, dim), take(layers, dim)
    w1, w2, w3, last = take(layers, hidden, dim), take(layers, dim, hidden), take(layers, hidden, dim), take(dim)
    take(context, size // 2), take(context, size // 2)
    head = embedding if vocabulary > 0 else take(-vocabulary, dim)
    assert at == len(values)

    def normed(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean() + 1e-5) * weight

    def turned(x: np.ndarray, position: int) -> np.ndarray:
        out = x.copy()
        for i in range(0, len(x), 2):
            angle = position / 10000.0 ** ((i % size) / size)
            out[i] = x[i] * np.cos(angle) - x[i + 1] * np.sin(angle)
            out[i + 1] = x[i] * np.sin(angle) + x[i + 1] * np.cos(angle)
        return out

    keys, held, logits = [[] for _ in range(layers)], [[] for _ in range(layers)], []
    for position, token in enumerate(tokens):
        x = embedding[token].copy()
        for n in range(layers):
            h = normed(x, norm_a[n])
            query = turned(q[n] @ h, position)
            keys[n].append(turned(k[n] @ h, position))
            held[n].append(v[n] @ h)
            out = np.zeros(dim)
            for j in range(heads):
                mine, theirs = slice(j * size, (j + 1) * size), slice(j * kv_heads // heads * size, (j * kv_heads // heads + 1) * size)
                score = np.array([query[mine] @ key[theirs] for key in keys[n]]) / np.sqrt(size)
                weight = np.exp(score - score.max())
                out[mine] = sum(w * value[theirs] for w, value in zip(weight / weight.sum(), held[n], strict=True))
            x += o[n] @ out
            h = normed(x, norm_f[n])
            gate = w1[n] @ h
            x += w2[n] @ (gate / (1 + np.exp(-gate)) * (w3[n] @ h))
        logits.append(head @ normed(x, last))
    return np.array(logits)


def read_pieces(path: str) -> list[tuple[bytes, float]]:
    content, at, pieces = Path(path).read_bytes(), 4, []
    while at < len(content):
        score, length = struct.unpack_from("<fi", content, at)
        pieces.append((content[at + 8 : at + 8 + length], score))
        at += 8 + length
    return pieces


def greedy(pieces: list[tuple[bytes, float]], text: str) -> list[int]:
    """One space, then letters or their bytes, then always the leftmost pair of best score."""
    ids = {piece: k for k, (piece, _) in enumerate(pieces)}
    tokens = [ids[b" "]] if text else []
    for letter in text:
        whole = letter.encode()
        tokens += [ids[whole]] if whole in ids else [byte + 3 for byte in whole]
    while True:
        unions = [ids.get(pieces[a][0] + pieces[b][0]) for a, b in zip(tokens, tokens[1:], strict=False)]
        known = [(pieces[u][1], -k) for k, u in enumerate(unions) if u is not None]
        if not known:
            return tokens
        k = -max(known)[1]
        tokens[k : k + 2] = [unions[k]]


def encode(subject: Subject, text: str) -> list[int]:
    return subject.encoder.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_size_is_that_of_the_published_model(subject):
    module = subject.module
    assert sum(p.numel() for p in module.parameters()) == 260_032
    assert module.lm_head.weight is module.model.embed_tokens.weight and subject.encoder.max_length == 512


def test_logits_equal_a_direct_evaluation(subject, files, stories):
    tokens = [1, *encode(subject, stories[0])][:48]
    with torch.no_grad():
        logits = subject.module(torch.tensor([tokens])).logits[0].double().numpy()
    assert np.abs(logits - direct(Path(files["checkpoint"]).read_bytes(), tokens)).max() < 1e-4


def test_an_output_head_of_its_own_is_read(tmp_path):
    settings = untied(tmp_path)
    subject = Llama2c(**settings).build()
    tokens = [1, 40, 7, 99, 200, 3]
    with torch.no_grad():
        logits = subject.module(torch.tensor([tokens])).logits[0].double().numpy()
    expected = direct(Path(settings["checkpoint"]).read_bytes(), tokens)
    assert np.abs(logits - expected).max() < 1e-4 < np.abs(expected).max()
    assert subject.module.lm_head.weight is not subject.module.model.embed_tokens.weight


def untied(folder: Path) -> dict[str, str]:
    """The example's checkpoint with another matrix as output head."""
    settings = Llama2c.example(folder)
    path = Path(settings["checkpoint"])
    content = path.read_bytes()
    sizes = list(struct.unpack("<7i", content[:28]))
    head = np.random.default_rng(1).normal(size=(sizes[5], sizes[0])).astype("<f4")
    sizes[5] = -sizes[5]
    path.write_bytes(struct.pack("<7i", *sizes) + content[28:] + head.tobytes())
    return settings


def test_tokens_equal_the_greedy_rule_on_stories(subject, files, stories):
    pieces, tokens = read_pieces(files["tokenizer"]), 0
    for story in stories[:25]:
        found = encode(subject, story[:400])
        assert found == greedy(pieces, story[:400])
        tokens += len(found)
    assert tokens > 3000


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(max_size=30), st.text(alphabet=" aehlnotd\n", max_size=60)))
def test_tokens_equal_the_greedy_rule_on_any_text(subject, files, text):
    found = encode(subject, text)
    assert found == greedy(read_pieces(files["tokenizer"]), text)
    assert subject.encoder.tokenizer.decode(found, clean_up_tokenization_spaces=False) == text


def test_stories_cost_what_was_published(subject, stories):
    """The model's page gives a validation loss of 1.297 nats a token on TinyStories."""
    total = count = begin = end = 0
    for story in stories[:30]:
        row = torch.tensor([1, *encode(subject, story)][:512])
        with torch.no_grad():
            scores = subject.module(row[None]).logits[0].log_softmax(-1)
        total, count = total - scores[:-1].gather(1, row[1:, None]).sum().item(), count + len(row) - 1
        begin, end = begin - scores[-1, 1].item() / 30, end - scores[-1, 2].item() / 30
    assert count > 6000 and abs(total / count - 1.297) < 0.06
    # After a whole story the model expects the begin token, and has never seen the end token.
    assert begin < 3 and end > begin + 5


def test_the_end_token_can_be_chosen(subject, files):
    assert subject.encoder.end == 1 and Llama2c(**files, end="end").build().encoder.end == 2


def test_greedy_text_from_an_empty_prompt_is_a_story(subject):
    out = subject.module.generate(torch.tensor([[1]]), max_new_tokens=60, do_sample=False, pad_token_id=0)
    text = subject.encoder.decode(out[0].tolist())
    assert text.startswith("Once upon a time, there was a little girl named Lily. She loved to play outside in the park.")


def test_it_becomes_an_ordinary_folder(subject, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    subject.save(tmp_path / "stories")
    module, tokenizer = (kind.from_pretrained(tmp_path / "stories") for kind in (AutoModelForCausalLM, AutoTokenizer))
    ids = torch.tensor([tokenizer("Once upon a time, a café").input_ids])
    assert ids[0].tolist() == [1, *encode(subject, "Once upon a time, a café")]
    with torch.no_grad():
        assert torch.equal(module(ids).logits, subject.module(ids).logits)
    assert load(tmp_path / "stories").digest == subject.digest


def test_damaged_and_foreign_files_are_refused(tmp_path):
    settings = Llama2c.example(tmp_path)
    model, words = Path(settings["checkpoint"]), Path(settings["tokenizer"])
    good_model, good_words = model.read_bytes(), words.read_bytes()
    table = bytearray(good_model)
    table[-4:] = struct.pack("<f", 9.0)
    swapped = good_words[4:].replace(b"<0x00>", b"<0x--->"[:6])
    cases = [
        (model, good_model[:-8], r"is damaged: it has \d+ bytes and by its head should have"),
        (model, b"", "does not begin with the sizes of a Llama"),
        (model, b"GGUF" * 40, "does not begin with the sizes of a Llama"),
        (model, struct.pack("<I", 0x616B3432) + good_model[4:], "later format of llama2.c"),
        (model, bytes(table), "rotary positions"),
        (words, good_words[:-3], "not a llama2.c tokenizer or is damaged"),
        (words, good_words + struct.pack("<fi", 0.0, 1) + b"a", r"^Wrong tokenizer: .* has 260 tokens, the checkpoint 259"),
        (words, good_words[:4] + swapped, "does not have the 256 byte tokens"),
        (words, good_words.replace(b"\n<s>\n", b"<unk>"), "holds a token twice"),
    ]
    for path, content, message in cases:
        model.write_bytes(good_model)
        words.write_bytes(good_words)
        path.write_bytes(content)
        with pytest.raises(SubjectError, match=message):
            Llama2c(**settings).build()
    model.unlink()
    with pytest.raises(SubjectError, match="cannot be read: No such file"):
        Llama2c(**settings).build()
