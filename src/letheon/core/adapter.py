"""Saving an adapter: alone where its base can be found again, otherwise with its base beside it in `base/`.

An adapter is worth nothing without the exact weights it was trained on. The name in its configuration is kept only if the weights under
that name are those in memory, to the bit; a base that was made here, or changed since it was loaded, is written beside the adapter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .files import write_text

BASE = "base"  # folder beside the adapter


def is_adapted(module: nn.Module) -> bool:
    """Whether a module is a base with an adapter around it (peft)."""
    return hasattr(module, "get_base_model") and hasattr(module, "peft_config")


def base_weights(module: Any) -> dict[str, torch.Tensor]:
    """The weights of the base inside a peft wrapper, under the names they have without an adapter."""
    prefix = getattr(module.base_model, "prefix", "lora_")
    kept = {}
    for key, tensor in module.get_base_model().state_dict().items():
        if prefix not in key and ".modules_to_save." not in key:
            kept[key.replace(".base_layer", "").replace(".original_module", "")] = tensor
    return kept


def save_adapter(module: Any, tokenizer: Any, folder: Path) -> None:
    """Write the adapter into `folder`, and its base with the tokenizer into `folder/base` unless it stands elsewhere unchanged."""
    module.save_pretrained(folder, safe_serialization=True)
    name = getattr(module.get_base_model(), "name_or_path", "") or ""
    weights = base_weights(module)
    if not name or not _stands_at(name, weights):
        module.get_base_model().save_pretrained(folder / BASE, state_dict=weights, safe_serialization=True)
        tokenizer.save_pretrained(folder / BASE)
        name = BASE
    for file in folder.rglob("adapter_config.json"):
        config = json.loads(file.read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = name
        write_text(file, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _stands_at(name: str, weights: dict[str, torch.Tensor]) -> bool:
    """Whether the safetensors of a folder or hub name hold exactly these weights."""
    from safetensors import safe_open

    folder = Path(name) if Path(name).is_dir() else _cached(name)
    if folder is None or not (folder / "config.json").is_file():
        return False
    seen: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - not a mapping
                mine = weights.get(key)
                if mine is None or not _equal(mine, tensors.get_tensor(key)):
                    return False
                seen.add(key)
    # Tied weights are stored once: a weight without a name on disk must share the memory of one that has it.
    held = {weights[key].data_ptr() for key in seen}
    return bool(seen) and all(tensor.data_ptr() in held for key, tensor in weights.items() if key not in seen)


def _equal(mine: torch.Tensor, stored: torch.Tensor) -> bool:
    """Equal values; the number format in memory may be wider than on disk."""
    return mine.shape == stored.shape and torch.equal(mine.detach().cpu(), stored.to(mine.dtype))


def _cached(name: str) -> Path | None:
    """The local copy of a hub model, if there is one."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
