"""A Llama from llama2.c files (checkpoint and tokenizer) as an ordinary Hugging Face model.

The checkpoint is seven int32 (dim, hidden_dim, layers, heads, kv_heads, vocabulary, context; a negative vocabulary means an output head of
its own) and float32 tensors laid end to end. The tokenizer is an int32 and, for every token, score (float32), length (int32) and bytes.

    rotary positions    llama2.c turns the pairs (2i, 2i + 1) of a head, Hugging Face (i, i + size / 2): the rows of wq and wk are reordered
    tokens              one space is put before a text, letters without a token become bytes, then the pair whose union has the best score
                        is joined until none is left: a BPE whose merges are ranked by the score of their result
    end                 the story models end a text with the begin token (1), as it is all they ever saw between two texts

Where two ways to join the same token overlap, llama2.c takes the left one and BPE the one whose halves come first in the vocabulary.
Must hold: logits equal those of a direct evaluation of the checkpoint. Format: github.com/karpathy/llama2.c (legacy export).
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from letheon.core.data import Data
from letheon.core.encode import TextEncoder
from letheon.core.errors import SubjectError
from letheon.core.method import Loader
from letheon.core.settings import Field, Settings
from letheon.core.subject import Subject

if TYPE_CHECKING:
    from letheon.core.run import Run

_BYTES = 3  # the token of byte 0; before it stand unknown, begin and end
_NEWER = 0x616B3432  # first word of llama2.c's later formats


class Llama2cSettings(Settings):
    """The two files."""

    checkpoint: str = Field(min_length=1, description="model file of llama2.c (legacy float32 export)")
    tokenizer: str = Field(min_length=1, description="tokenizer file of llama2.c")
    template: str = Field("{prompt}", description="how a prompt is written; `{prompt}` marks the question")
    max_length: int | None = Field(None, ge=4, description="longest row in tokens; none takes the model's context")
    end: Literal["begin", "end"] = Field("begin", description="token that ends a text: `begin` (1) for story models, `end` (2) for Llama 2")


@dataclass(frozen=True)
class Shape:
    """The header of a checkpoint."""

    dim: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int
    tied: bool

    @property
    def head(self) -> int:
        """Numbers per attention head."""
        return self.dim // self.heads


class Llama2c(Loader):
    """Converts; does not train."""

    Settings, tiny = Llama2cSettings, None  # type: ignore[assignment]

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """A random checkpoint of width 8 and a tokenizer of bytes, written into `folder`; settings that load them."""
        model, words = folder / "model.bin", folder / "tokenizer.bin"
        shape = Shape(8, 8, 1, 2, 1, _BYTES + 256, 512, True)
        values = np.random.default_rng(0).normal(size=sum(math.prod(s) for s in _layout(shape).values())).astype("<f4")
        tables = slice(len(values) - 2 * 512 * (shape.head // 2), None)
        values[tables] = np.stack(_rotary(shape)).reshape(-1)
        model.write_bytes(np.array(astuple(shape)[:7], dtype="<i4").tobytes() + values.tobytes())
        tokens = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(b"<0x%02X>" % k for k in range(256))]
        head = np.array([max(map(len, tokens))], dtype="<i4").tobytes()
        words.write_bytes(head + b"".join(np.float32(0).tobytes() + np.int32(len(t)).tobytes() + t for t in tokens))
        return {"checkpoint": str(model), "tokenizer": str(words)}

    def build(self, data: Data | None = None, run: Run | None = None) -> Subject:
        """Convert the two files. The data is not looked at.

        Raises:
            SubjectError: a file is missing, cut short, of another format, or the two do not belong together.
        """
        settings = self.settings
        path = Path(settings.checkpoint).expanduser()
        shape, tensors = read_checkpoint(path)
        pieces = read_tokenizer(Path(settings.tokenizer).expanduser(), shape.vocabulary)
        tokenizer = _tokenizer(pieces, end=settings.end, context=shape.context)
        context = min(settings.max_length or shape.context, shape.context)
        subject = Subject(_module(shape, tensors, tokenizer), TextEncoder(tokenizer, settings.template, context), name=path.stem)
        subject.check_finite()
        return subject


def _layout(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in the order of the file."""
    n, d, h, kv = shape.layers, shape.dim, shape.hidden, shape.kv_heads * shape.head
    half = shape.head // 2
    layout = {
        "embedding": (shape.vocabulary, d), "attention_norm": (n, d), "wq": (n, d, d), "wk": (n, kv, d), "wv": (n, kv, d), "wo": (n, d, d),
        "ffn_norm": (n, d), "w1": (n, h, d), "w2": (n, d, h), "w3": (n, h, d), "norm": (d,), "cosine": (shape.context, half),
        "sine": (shape.context, half),
    }  # fmt: skip
    return layout if shape.tied else {**layout, "output": (shape.vocabulary, d)}


def _rotary(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of position times 10000^(-2i / head), each (context, head / 2)."""
    angles = np.outer(np.arange(shape.context), 10000.0 ** (-np.arange(0, shape.head, 2) / shape.head))
    return np.cos(angles), np.sin(angles)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SubjectError(f"{path} cannot be read: {error.strerror or error}", "Give a file that llama2.c wrote") from error


def read_checkpoint(path: Path) -> tuple[Shape, dict[str, np.ndarray]]:
    """Header and float32 tensors of a checkpoint.

    Raises:
        SubjectError: the file is not of this format, or its length does not fit its header.
    """
    content = _read(path)
    words = np.frombuffer(content[:28], dtype="<i4") if len(content) >= 28 else np.zeros(7, dtype="<i4")
    if int(words[0]) == _NEWER:
        raise SubjectError(f"{path} is in a later format of llama2.c", "Export it with `--version 0`")
    dim, hidden, layers, heads, kv_heads, vocabulary, context = (int(word) for word in words)
    sizes = (dim, hidden, layers, heads, kv_heads, abs(vocabulary), context)
    if min(sizes) < 1 or max(sizes) > 1 << 24 or dim % (2 * heads) or heads % kv_heads:
        raise SubjectError(f"{path} does not begin with the sizes of a Llama: {words.tolist()}", "Is it a llama2.c checkpoint?")
    shape = Shape(dim, hidden, layers, heads, kv_heads, abs(vocabulary), context, vocabulary > 0)
    layout = _layout(shape)
    need = 28 + 4 * sum(math.prod(size) for size in layout.values())
    if len(content) != need:
        raise SubjectError(f"{path} is damaged: it has {len(content)} bytes and by its head should have {need}", "Fetch it again")
    tensors, at = {}, 28
    for name, size in layout.items():
        tensors[name] = np.frombuffer(content, dtype="<f4", count=math.prod(size), offset=at).reshape(size)
        at += 4 * math.prod(size)
    for name, right in zip(("cosine", "sine"), _rotary(shape), strict=True):
        if not np.allclose(tensors[name], right, atol=1e-3):
            raise SubjectError(f"{path} has rotary positions that are not those of llama2.c (base 10000)", "Is it a llama2.c checkpoint?")
    return shape, tensors


def read_tokenizer(path: Path, vocabulary: int) -> list[tuple[str, float]]:
    """Pieces and scores of a tokenizer file, in the order of their ids.

    Raises:
        SubjectError: the file is cut short, holds another number of tokens, or its tokens cannot be those of llama2.c.
    """
    content, at = _read(path), 4
    pieces: list[tuple[str, float]] = []
    try:
        while at < len(content):
            score, length = float(np.frombuffer(content, "<f4", 1, at)[0]), int(np.frombuffer(content, "<i4", 1, at + 4)[0])
            if length < 0 or at + 8 + length > len(content):
                raise ValueError(f"token {len(pieces)} is {length} bytes long")
            pieces.append((content[at + 8 : at + 8 + length].decode("utf-8"), score))
            at += 8 + length
    except ValueError as error:  # numpy and UTF-8 both raise kinds of it
        raise SubjectError(f"{path} is not a llama2.c tokenizer or is damaged: {error}", "Fetch it again") from error
    if len(pieces) != vocabulary:
        what = f"Wrong tokenizer: {path} has {len(pieces)} tokens, the checkpoint {vocabulary}"
        raise SubjectError(what, "Give the tokenizer of this model")
    if [piece for piece, _ in pieces[_BYTES : _BYTES + 256]] != [f"<0x{k:02X}>" for k in range(256)]:
        raise SubjectError(f"{path} does not have the 256 byte tokens at {_BYTES}", "Is it a llama2.c tokenizer?")
    if len({piece for piece, _ in pieces}) != len(pieces):
        raise SubjectError(f"{path} holds a token twice", "Is it a llama2.c tokenizer?")
    return pieces


def _tokenizer(pieces: list[tuple[str, float]], *, end: str, context: int) -> Any:
    """A fast tokenizer that splits text as llama2.c does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>"]
    vocabulary = {piece: k for k, piece in enumerate([*special, *(piece for piece, _ in pieces[_BYTES:])])}
    scores = {piece: score for piece, score in pieces[_BYTES + 256 :]}
    merges = [
        (-scores[piece], vocabulary[piece[:k]], vocabulary[piece[k:]], piece[:k], piece[k:])
        for piece in scores
        for k in range(1, len(piece))
        if piece[:k] in scores and piece[k:] in scores
    ]
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[merge[3:] for merge in sorted(merges)], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = normalizers.Prepend(" ")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    last = "<s>" if end == "begin" else "</s>"
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token=last, model_max_length=context
    )


def _halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of (n, heads * size, d) from rotary pairs (2i, 2i + 1) to (i, i + size / 2)."""
    n, rows, d = weight.shape
    return weight.reshape(n, heads, rows // heads // 2, 2, d).swapaxes(2, 3).reshape(n, rows, d)


def _module(shape: Shape, tensors: dict[str, np.ndarray], tokenizer: Any) -> Any:
    """The model with the weights of the checkpoint."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.dim, intermediate_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, max_position_embeddings=shape.context, rms_norm_eps=1e-5,
        tie_word_embeddings=shape.tied, bos_token_id=1, eos_token_id=tokenizer.eos_token_id, dtype="float32",
    )  # fmt: skip
    turned = {**tensors, "wq": _halves(tensors["wq"], shape.heads), "wk": _halves(tensors["wk"], shape.kv_heads)}
    inside = {
        "attention_norm": "input_layernorm", "wq": "self_attn.q_proj", "wk": "self_attn.k_proj", "wv": "self_attn.v_proj",
        "wo": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "w1": "mlp.gate_proj", "w2": "mlp.down_proj", "w3": "mlp.up_proj",
    }  # fmt: skip
    state = {"model.embed_tokens.weight": tensors["embedding"], "model.norm.weight": tensors["norm"]}
    state["lm_head.weight"] = tensors["embedding" if shape.tied else "output"]
    for name, there in inside.items():
        state.update({f"model.layers.{k}.{there}.weight": turned[name][k] for k in range(shape.layers)})
    with torch.random.fork_rng(devices=[]):  # the model is filled at random before the weights go in
        module = LlamaForCausalLM(config)
    module.load_state_dict({key: torch.from_numpy(np.array(value, dtype=np.float32)) for key, value in state.items()})
    return module
