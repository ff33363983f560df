"""Look at a model folder before it is loaded: every fault as one sentence, and nothing is run that the user did not allow."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from letheon.core.errors import SubjectError, nearest

ADAPTER = "adapter_config.json"
_WORDS = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken", "tekken.json")
_WANTED = ("*.json", "*.jinja", "*.safetensors", "*.txt", "*.model", "*.tiktoken")


def local_folder(path: str, revision: str | None, pickle: bool, code: bool) -> Path:
    """The folder of a path or hub name. From the hub come only files of kinds that are allowed.

    Raises:
        SubjectError: there is no such folder, and no such model on the hub or no way to it.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise SubjectError(f"{path} is a file, not a model folder", f"Give the folder: {folder.parent}")
    if folder.is_absolute() or path.startswith((".", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path):
        raise SubjectError(f"There is no folder {path}", _near(folder))
    from huggingface_hub import snapshot_download

    wanted = [*_WANTED, *(["*.bin"] if pickle else []), *(["*.py"] if code else [])]
    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*", "consolidated*"]))
    except Exception as error:  # many kinds: no network, no such name, no permission, no space
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise SubjectError(f"`{path}` is no folder here and cannot be fetched from the hub: {reason}", _near(folder)) from error


def _near(folder: Path) -> str:
    """A hint with the folder of the most similar name."""
    parent, spec = folder.parent, str(folder).partition("path=")[2]
    if spec:
        return f"Give the folder itself: {spec.split(',')[0]}"
    if not parent.is_dir():
        return f"There is no folder {parent} either"
    near = nearest(folder.name, [path.name for path in parent.iterdir() if path.is_dir()])
    return f"Did you mean {parent / near}?" if near else "Give the folder of a Hugging Face model"


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises SubjectError with the line where it is broken."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise SubjectError(f"{file} is not valid JSON: {error.msg} in line {error.lineno}", "Fetch or write the model again") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SubjectError(f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise SubjectError(f"{file} holds {type(found).__name__}, not a JSON object", "Fetch or write the model again")
    return found


def check_folder(folder: Path, *, pickle: bool, code: bool) -> dict[str, Any]:
    """The contents of `config.json`, once the folder is known to be complete and allowed.

    Raises:
        SubjectError: a file is missing, cut short or broken; or loading would run somebody's code and no flag allows it.
    """
    if not (folder / "config.json").is_file():
        inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
        hint = f"Did you mean {folder / inside[0]}?" if inside else "Give the folder that `save_pretrained` wrote"
        raise SubjectError(f"{folder} has no config.json, so it is not a Hugging Face model", hint)
    config = read_json(folder / "config.json")
    if not code:
        _check_code(folder, config)
    _check_format(folder, config)
    _check_weights(folder, pickle)
    return config


def has_tokenizer(folder: Path) -> bool:
    """Whether a vocabulary lies in the folder."""
    return any(any(folder.glob(pattern)) for pattern in _WORDS)


def _check_code(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a model that comes with its own Python code, unless transformers knows its type without that code."""
    from transformers import CONFIG_MAPPING

    kind, files = config.get("model_type"), config.get("auto_map")
    if files and kind not in CONFIG_MAPPING:
        values = files.values() if isinstance(files, dict) else [files]
        names = sorted({str(value).split(".")[0].split("--")[-1] + ".py" for value in values})
        raise SubjectError(
            f"{folder} brings its own Python code ({', '.join(names)}), which runs on this machine when the model is loaded",
            "Read it, then give `--trust-remote-code` if you trust its author",
        )
    if kind is None or kind not in CONFIG_MAPPING:
        near = nearest(str(kind), list(CONFIG_MAPPING)) if kind else None
        hint = f"Did you mean `{near}`?" if near else "A newer transformers may know it"
        raise SubjectError(f"{folder}/config.json names the model type {kind!r}, which transformers does not know", hint)


def _check_format(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a number format that torch does not have: the libraries would find that out while they read something else."""
    import torch

    name = config.get("dtype", config.get("torch_dtype"))
    if isinstance(name, str) and not isinstance(getattr(torch, name.removeprefix("torch."), None), torch.dtype) and name != "auto":
        near = nearest(name, ["float32", "bfloat16", "float16"])
        hint = f"Did you mean `{near}`?" if near else "Formats are called float32, bfloat16, float16"
        raise SubjectError(f"{folder}/config.json names the number format {name!r}, which torch does not know", hint)


def _check_weights(folder: Path, pickle: bool) -> None:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise SubjectError(f"{index} has no `weight_map`", "Fetch the model again")
        names = sorted({str(name) for name in shards.values()})
        gone = [name for name in names if not (folder / name).is_file()]
        if gone:
            raise SubjectError(f"{folder} lacks {len(gone)} of {len(names)} weight files, first {gone[0]}", "Fetch the model again")
        for name in names:
            check_safetensors(folder / name)
    elif (folder / "model.safetensors").is_file():
        check_safetensors(folder / "model.safetensors")
    else:
        pickled = sorted(path.name for path in folder.glob("*.bin") if path.name.startswith("pytorch_model"))
        if pickled and not pickle:
            raise SubjectError(
                f"{folder} holds its weights only as a pickle ({pickled[0]}), which can run any code when it is loaded",
                "Convert them to safetensors, or give `--allow-pickle` if you trust their author",
            )
        if not pickled:
            raise SubjectError(f"{folder} has no weights (model.safetensors)", "Pickled weights are fetched only with `--allow-pickle`")


def check_safetensors(file: Path) -> None:
    """Raise SubjectError unless the header can be read and the file is as long as it says."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        head = stream.read(length) if 8 + length <= size else b""
    try:
        entries = json.loads(head)
        data = max((entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise SubjectError(f"{file} is not a safetensors file or its head is damaged ({size} bytes)", "Fetch or write it again") from error
    if size != 8 + length + data:
        raise SubjectError(f"{file} is damaged: it has {size} bytes and should have {8 + length + data}", "Fetch or write it again")
