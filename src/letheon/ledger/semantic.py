"""Rows that mean much the same: the cosine of sentence embeddings by any encoder folder that the user names.

    embedding = pooled(last hidden state, attention mask) / its length          (n, d)
    score     = max over looked-for texts of the cosine, rounded to four digits

The folder is an ordinary Hugging Face model (transformers `AutoModel`, safetensors only, no code of its own) with a tokenizer. Without more
in it the mean over tokens is taken; `1_Pooling/config.json` of sentence-transformers is followed: cls, mean, max, mean_sqrt_len,
weightedmean and lasttoken, several of them side by side. Modules that letheon does not know (`2_Dense`) are refused, not left out. A causal
model serves too, but raw hidden states of models that were not trained for it are all alike: set the threshold on rows you know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from letheon.core.errors import SubjectError

if TYPE_CHECKING:
    from torch import Tensor

POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
CHUNK = 4096  # texts that are sorted by length together
_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")


class Embedder:
    """A sentence-embedding model.

    Args:
        folder: the model's folder; nothing is fetched.
        tokens: tokens of a batch, padding and all, and the longest text.
        prefix: put before every text, as some models want (`query: `).

    Raises:
        SubjectError: the folder is missing, damaged, needs code or pickle, or holds no encoder of texts.
    """

    def __init__(self, folder: str | Path, *, tokens: int = 8192, prefix: str = ""):
        from letheon.subjects._folder import check_folder, has_tokenizer, read_json

        self.folder, self.prefix, self.tokens = Path(folder).expanduser(), prefix, tokens
        if not self.folder.is_dir():
            raise SubjectError(f"There is no folder {folder}", "Give the folder of a sentence-embedding model; nothing is fetched")
        config = check_folder(self.folder, pickle=False, code=False)
        if not has_tokenizer(self.folder):
            raise SubjectError(f"{folder} has no tokenizer, so it embeds no texts", "Copy the tokenizer files beside the weights")
        modules = self.folder / "modules.json"
        self.poolings = _poolings(self.folder, _modules(modules) if modules.is_file() else [])
        file = self.folder / "sentence_bert_config.json"
        wanted = read_json(file).get("max_seq_length") if file.is_file() else None
        self.lower = bool(file.is_file() and read_json(file).get("do_lower_case"))
        self.model, self.tokenizer = self._loaded()
        ends = (wanted, self.tokenizer.model_max_length, config.get("max_position_embeddings"), tokens)
        self.longest = min(end for end in ends if isinstance(end, int) and end > 0)
        self._probe()

    def embed(self, texts: Iterable[str]) -> np.ndarray:
        """Unit vectors of some texts, (n, d) float32, in their order; a text of nothing but zeros stays zero.

        Raises:
            SubjectError: a vector has numbers that are not finite.
        """
        import torch

        listed = [self.prefix + (text.lower() if self.lower else text) for text in texts]
        ids = self.tokenizer(listed, truncation=True, max_length=self.longest)["input_ids"] if listed else []
        out: np.ndarray | None = None
        for rows in _batches([len(row) for row in ids], self.tokens):
            batch = self.tokenizer.pad({"input_ids": [ids[k] for k in rows]}, return_tensors="pt")
            with torch.no_grad():
                hidden = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
            vectors = torch.nn.functional.normalize(pooled(hidden.float(), batch["attention_mask"], self.poolings), dim=1).cpu().numpy()
            if not np.isfinite(vectors).all():
                bad = rows[int(np.flatnonzero(~np.isfinite(vectors).all(1))[0])]
                raise SubjectError(f"{self.folder} embeds the text {texts_shown(listed[bad])} as numbers that are not finite",
                                   "Is the model damaged?")  # fmt: skip
            out = np.empty((len(listed), vectors.shape[1]), dtype=np.float32) if out is None else out
            out[rows] = vectors
        return np.empty((0, 0), dtype=np.float32) if out is None else out

    def _loaded(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModel, AutoTokenizer

        from letheon.core.quiet import quiet

        try:
            with quiet(), torch.random.fork_rng(devices=[]):
                more = {"dtype": torch.float32, "trust_remote_code": False, "use_safetensors": True, "output_loading_info": True}
                model, found = AutoModel.from_pretrained(self.folder, **more)
                tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        except Exception as error:  # models and tokenizers raise anything: wrong shapes, unknown settings, a missing package
            why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise SubjectError(f"The model in {self.folder} cannot be loaded: {why}", "Give the folder of an encoder of texts") from error
        missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)  # no pooling here goes through BERT's pooler
        if missing:
            raise SubjectError(f"The weights in {self.folder} lack `{missing[0]}`, which would be random", "Fetch or write the model again")
        if tokenizer.pad_token_id is None:
            if tokenizer.eos_token is None:
                raise SubjectError(f"The tokenizer in {self.folder} has no padding token", "Set `pad_token` in tokenizer_config.json")
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "right"
        return (model.get_encoder() if model.config.is_encoder_decoder else model).eval(), tokenizer

    def _probe(self) -> None:
        try:
            made = self.embed(["a"])
        except SubjectError:
            raise
        except Exception as error:  # whatever a model raises that wants pictures or sounds
            why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise SubjectError(f"The model in {self.folder} is no encoder of texts: {why}", "Name a sentence-embedding model") from error
        if made.ndim != 2 or not made.size:
            raise SubjectError(f"The model in {self.folder} is no encoder of texts: it gives no vector", "Name a sentence-embedding model")


def similar(embedder: Embedder, wanted: Sequence[str], texts: Iterable[str]) -> np.ndarray:
    """The largest cosine of each text with one of `wanted`, (n,), rounded to four digits; texts go by in runs of CHUNK.

    Raises:
        SubjectError: an embedding is not finite.
    """
    goal = embedder.embed(wanted)
    found: list[np.ndarray] = []
    run: list[str] = []
    for text in texts:
        run.append(text)
        if len(run) == CHUNK:
            found.append((embedder.embed(run) @ goal.T).max(1))
            run = []
    if run:
        found.append((embedder.embed(run) @ goal.T).max(1))
    return np.round(np.concatenate(found).astype(np.float64), 4) if found else np.empty(0)


def pooled(hidden: Tensor, mask: Tensor, poolings: Sequence[str]) -> Tensor:
    """One vector a row, (b, d times number of poolings).

    Args:
        hidden: last hidden state, (b, t, d), padded on the right.
        mask: 1 where a token stands, (b, t).
        poolings: names as in the values of POOLINGS.
    """
    import torch

    real = mask.unsqueeze(2).to(hidden.dtype)  # (b, t, 1)
    rows, last = torch.arange(len(hidden)), mask.sum(1).clamp(min=1) - 1
    place = torch.arange(1, hidden.shape[1] + 1, dtype=hidden.dtype)[None, :, None] * real
    ways = {
        "cls": lambda: hidden[:, 0],
        "mean": lambda: (hidden * real).sum(1) / real.sum(1).clamp(min=1),
        "max": lambda: hidden.masked_fill(real == 0, -torch.inf).max(1).values,
        "mean_sqrt_len": lambda: (hidden * real).sum(1) / real.sum(1).clamp(min=1).sqrt(),
        "weightedmean": lambda: (hidden * place).sum(1) / place.sum(1).clamp(min=1),
        "lasttoken": lambda: hidden[rows, last],
    }
    return torch.cat([ways[name]() for name in poolings], dim=1)


def texts_shown(text: str, most: int = 60) -> str:
    """The beginning of a text for a message."""
    return repr(text if len(text) <= most else text[: most - 3] + "...")


def _batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Rows of like length together, at most `tokens` with padding; the longest first."""
    found: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda k: (-lengths[k], k)):
        if not found or (len(found[-1]) + 1) * max(1, lengths[found[-1][0]]) > tokens:
            found.append([])
        found[-1].append(row)
    return found


def _modules(file: Path) -> list[str]:
    """The kinds of modules that sentence-transformers would put together."""
    import json

    try:
        return [str(module["type"]).rpartition(".")[2] for module in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SubjectError(f"{file} is not a list of modules", "Fetch the model again") from error


def _poolings(folder: Path, modules: Sequence[str]) -> list[str]:
    from letheon.subjects._folder import read_json

    strange = next((name for name in modules if name not in _KNOWN_MODULES), None)
    if strange is not None:
        raise SubjectError(f"{folder}/modules.json has the module `{strange}`, which letheon does not know", "Name a model without it")
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        return ["mean"]
    config = read_json(file)
    named = config.get("pooling_mode")  # newer versions name it, or several
    chosen = [name for key, name in POOLINGS.items() if config.get(key)] if named is None else [named] if isinstance(named, str) else named
    if not isinstance(chosen, list) or not chosen or any(name not in POOLINGS.values() for name in chosen):
        raise SubjectError(f"{file} names no way of pooling that letheon knows", f"Known: {', '.join(POOLINGS.values())}")
    return chosen
