"""Several causal models that answer as one, by the mean of their probabilities.

    p(token | text) = (1 / S) sum_s p_s(token | text)              `logits` are log p, so a softmax over them gives p back

A folder of it holds one folder for each model (`shard-000`, ordinary Hugging Face folders) and `slices`: the weights that each model had
before its last slices of data were learned, by the key of everything they depend on (`erase/sisa.py`). letheon's loader `hf` reads it; so
does transformers once this file has been imported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.modeling_outputs import CausalLMOutput

from .errors import SubjectError

SLICES = "slices"
State = dict[str, Tensor]


def shard_folders(folder: Path) -> list[Path]:
    """The folders of the models below `folder`, in their order; none where it holds a single model."""
    return sorted(path for path in folder.glob("shard-[0-9]*") if path.is_dir())


def state_of(module: nn.Module) -> State:
    """A copy of all weights, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


class Slices(Mapping[str, State]):
    """Weights by key, in memory or still on disk. They are never changed, so copies share them."""

    def __init__(self, known: Mapping[str, State | Path] | None = None):
        self._known = dict(known or {})

    def __getitem__(self, key: str) -> State:
        found = self._known[key]
        if not isinstance(found, Path):
            return found
        try:
            return load_file(found)
        except (OSError, SafetensorError) as error:
            raise SubjectError(f"{found} cannot be read: {error}", "Remove the file: what it held is then trained again") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __deepcopy__(self, memo: dict[int, Any]) -> Slices:
        return self

    def kept(self, keys: Iterable[str], new: Mapping[str, State]) -> Slices:
        """Those of the given keys that are known, and new ones."""
        return Slices({**{key: self._known[key] for key in keys if key in self._known}, **new})


class ShardsConfig(PretrainedConfig):  # type: ignore[misc]  # transformers says nothing of its types
    """What the models are, and which data each of them has learned."""

    model_type = "letheon-shards"

    def __init__(self, shard: dict[str, Any] | None = None, places: Sequence[int] = (), keys: Sequence[str] = (), **more: Any):
        self.shard, self.places, self.keys = shard or {}, list(places), list(keys)  # before checks that read them
        super().__init__(**more)

    def get_text_config(self, *_: Any, **__: Any) -> PretrainedConfig:
        """The configuration that all models share."""
        return AutoConfig.for_model(**self.shard) if self.shard else self


class Shards(nn.Module):
    """The models as one.

    Args:
        models: of one architecture, with one tokenizer.
        places: the number of the shard that each model stands for.
        keys: what each model has learned, as a key that changes with every row of it.
        slices: earlier weights by their keys.
    """

    config_class = ShardsConfig
    base_model_prefix = ""

    def __init__(self, models: Sequence[Any], places: Sequence[int], keys: Sequence[str], slices: Slices | None = None):
        super().__init__()
        self.models, self.slices = nn.ModuleList(models), slices or Slices()
        self.config = ShardsConfig(models[0].config.to_dict(), places, keys)

    @property
    def base_model(self) -> nn.Module:
        """Itself: there is no common body before the output."""
        return self

    def get_input_embeddings(self) -> nn.Module:
        """Those of the first model."""
        first: Any = self.models[0]
        found: nn.Module = first.get_input_embeddings()
        return found

    def get_output_embeddings(self) -> None:
        """There is no common one."""

    def forward(self, input_ids: Tensor, past_key_values: Any = None, use_cache: bool | None = None, **more: Any) -> CausalLMOutput:
        """Logarithms of the mean probabilities as `logits`, (b, t, v)."""
        if past_key_values is not None:
            raise NotImplementedError("several models have no common key-value cache")
        each = [model(input_ids=input_ids, use_cache=False, **more).logits.float().log_softmax(-1) for model in self.models]
        return CausalLMOutput(logits=torch.stack(each).logsumexp(0) - math.log(len(each)))

    def save_pretrained(self, folder: str | Path, **more: Any) -> None:
        """Write the models, the slices and the configuration."""
        folder = Path(folder)
        self.config.save_pretrained(folder)
        models: Any = self.models
        for model, place in zip(models, self.config.places, strict=True):
            model.save_pretrained(folder / f"shard-{place:03d}", **more)
        for key, state in self.slices.items():
            (folder / SLICES).mkdir(exist_ok=True)
            save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, folder / SLICES / f"{key}.safetensors")

    @classmethod
    def from_pretrained(cls, folder: str | Path, *_: Any, config: ShardsConfig | None = None, **more: Any) -> Shards:
        """The way transformers reads it; every model is read by transformers."""
        dtype = {key: more[key] for key in ("dtype", "torch_dtype") if key in more}
        return joined([AutoModelForCausalLM.from_pretrained(path, **dtype) for path in shard_folders(Path(folder))], Path(folder))


def joined(models: Sequence[nn.Module], folder: Path) -> Shards:
    """Models that were read from the folders below `folder`, as one.

    Raises:
        SubjectError: the configuration is missing or names other shards.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        places, keys = config["places"], config["keys"]
    except (OSError, ValueError, KeyError) as error:
        raise SubjectError(f"{folder} holds shards, but its config.json cannot be read", "Copy the whole folder again") from error
    found = [int(path.name.removeprefix("shard-")) for path in shard_folders(folder)]
    if found != places or len(keys) != len(found):
        raise SubjectError(f"{folder} holds the shards {found}, its config.json names {places}", "Copy the whole folder again")
    slices = Slices({path.stem: path for path in sorted((folder / SLICES).glob("*.safetensors"))})
    return Shards(models, places, keys, slices).eval()


AutoConfig.register(ShardsConfig.model_type, ShardsConfig, exist_ok=True)
AutoModelForCausalLM.register(ShardsConfig, Shards, exist_ok=True)
