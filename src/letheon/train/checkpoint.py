"""Checkpoints: whole or absent, without pickle, and bound to the work they belong to.

A checkpoint is a folder `checkpoints/step-000120` with two files: `state.safetensors` (weights that move, optimiser moments, the rule's
state) and `about.json` (step and fingerprint). It is written under another name and moved, so a folder with the right name is whole.
Random numbers need no storing: each draw derives from the seed and its purpose.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from letheon.core import processes
from letheon.core.errors import RunError
from letheon.core.files import whole_folder, write_text

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def whole(tensor: Tensor) -> Tensor:
    """A tensor from all its parts, where it is cut up over processes; all of them must ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, placed and cut up as another one is."""
    if not hasattr(other, "full_tensor"):
        return tensor.to(other.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)


def fingerprint(**parts: Any) -> str:
    """sha256 of what makes two pieces of work the same."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names and bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def save(
    out: Path, step: int, mark: str, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, extra: dict[str, Tensor]
) -> Path:
    """Write the checkpoint of `step` and remove older ones. Tensors that are cut up over processes are put together by all of them."""
    tensors = {f"weight/{name}": parameter.detach() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for moment in _MOMENTS:
            if moment in optimizer.state.get(parameter, {}):
                tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment].detach()
    tensors |= {f"extra/{name}": tensor for name, tensor in extra.items()}
    folder, held = out / "checkpoints" / f"step-{step:06d}", {}
    for key, tensor in tensors.items():
        tensor = whole(tensor)
        if processes.first():
            held[key] = tensor.cpu().contiguous().clone()
    if not processes.first():
        return folder
    with whole_folder(folder, replace=True) as work:
        save_file(held, work / "state.safetensors")
        write_text(work / "about.json", json.dumps({"step": step, "fingerprint": mark}) + "\n")
    for older in _folders(out):
        if older != folder:
            shutil.rmtree(older, ignore_errors=True)
    return folder


def _folders(out: Path) -> list[Path]:
    return sorted(folder for folder in (out / "checkpoints").glob("step-*") if folder.is_dir())


def newest(out: Path) -> tuple[int, str, Path] | None:
    """Step, fingerprint and folder of the newest checkpoint, or None."""
    for folder in reversed(_folders(out)):
        try:
            about = json.loads((folder / "about.json").read_text())
            return int(about["step"]), str(about["fingerprint"]), folder
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"The checkpoint {folder} cannot be read: {error}", "Remove it, or start anew without `--resume`") from error
    return None


def load(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return load_file(folder / "state.safetensors")
    except (OSError, SafetensorError) as error:
        raise RunError(f"The checkpoint {folder} cannot be read: {error}", "Remove it, or start anew without `--resume`") from error


def restore(
    folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Put weights and moments back; returns the extra tensors.

    Args:
        tensors: what `load` gave, if that was called already.
    """
    tensors = load(folder) if tensors is None else tensors
    missing = [name for name, parameter in parameters.items() if getattr(tensors.get(f"weight/{name}"), "shape", None) != parameter.shape]
    if missing:
        raise RunError(f"The checkpoint {folder} has no weight `{missing[0]}` of the right shape", "It belongs to another model")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(like(tensors[f"weight/{name}"], parameter))
            found = {moment: tensors[f"{moment}/{name}"] for moment in _MOMENTS if f"{moment}/{name}" in tensors}
            if found:
                optimizer.state[parameter] = {
                    key: (like(value, parameter) if value.ndim else value.to(parameter.device)).clone() for key, value in found.items()
                }
    return {key.removeprefix("extra/"): value for key, value in tensors.items() if key.startswith("extra/")}


def clear(out: Path) -> None:
    """Remove all checkpoints, once the result is safe elsewhere."""
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
