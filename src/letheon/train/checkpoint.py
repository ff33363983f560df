"""Checkpoints: whole or absent, without pickle, and bound to the work they belong to.

A checkpoint is a folder `checkpoints/step-000120` with two files: `state.safetensors` (weights that move, optimiser moments, the rule's
state) and `about.json` (step and fingerprint). Where weights are cut up over processes, each writes its rows of every tensor to a file of
its own, `state-00001-of-00002.safetensors`; laid end to end they are the whole tensors, for any number of processes. The folder is written
under another name and moved, so a folder with the right name is whole. Random numbers need no storing: each draw derives from the seed and
its purpose.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from letheon.core import processes
from letheon.core.errors import RunError
from letheon.core.files import disk_faults, whole_folder, write_text

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def whole(tensor: Tensor) -> Tensor:
    """A tensor from all its parts, where it is cut up over processes; all of them must ask for it."""
    return tensor.full_tensor() if is_cut(tensor) else tensor


def is_cut(tensor: Tensor) -> bool:
    """Whether a tensor is cut up over processes."""
    return hasattr(tensor, "full_tensor")


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A tensor, placed as another one is, and cut up as that is where it is whole."""
    if not is_cut(other) or is_cut(tensor):
        return tensor.to(other.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)


def here(tensor: Tensor) -> Tensor:
    """The rows of a tensor that this process holds."""
    return tensor.to_local() if is_cut(tensor) else tensor


def _back(rows: Tensor, other: Tensor) -> Tensor:
    """Rows of this process as a tensor that is cut up as another one is."""
    rows = rows.to(other.device)
    if not is_cut(other):
        return rows
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(rows, other.device_mesh, other.placements, run_check=False, shape=other.shape, stride=other.stride())


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
    """Write the checkpoint of `step` and remove older ones. Where tensors are cut up over processes, all must call this.

    Raises:
        RunError: the disk refuses, or a process does not see the folder of the first one.
    """
    tensors = {f"weight/{name}": parameter.detach() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for moment in _MOMENTS:
            if moment in optimizer.state.get(parameter, {}):
                tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment].detach()
    tensors |= {f"extra/{name}": tensor for name, tensor in extra.items()}
    folder = out / "checkpoints" / f"step-{step:06d}"
    about: dict[str, Any] = {"step": step, "fingerprint": mark}
    if any(map(is_cut, tensors.values())):
        _save_parts(folder, tensors, about)
    else:
        with whole_folder(folder, replace=True) as work:
            _write(work / "state.safetensors", tensors)
            write_text(work / "about.json", json.dumps(about) + "\n")
    for older in _folders(out) if processes.first() else ():
        if older != folder:
            shutil.rmtree(older, ignore_errors=True)
    return folder


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({key: here(tensor).cpu().contiguous().clone() for key, tensor in tensors.items()}, path)


def _save_parts(folder: Path, tensors: Mapping[str, Tensor], about: dict[str, Any]) -> None:
    """The file of this process; the first one makes the folder, writes what is not cut up, and moves all when all are done."""
    with contextlib.ExitStack() as made:
        with processes.agreed() as agreed:
            agreed.value = str(made.enter_context(whole_folder(folder, replace=True))) if processes.first() else ""
        work, number = Path(agreed.all[0]), f"{processes.rank() + 1:05d}-of-{processes.size():05d}"
        with processes.agreed(), disk_faults(folder):
            if not work.is_dir():
                hint = "Put `--out` on a file system that all of them share, or start without FSDP"
                raise RunError(f"Process {processes.rank()} does not see {work.parent}, where each writes its part", hint)
            ours = {key: tensor for key, tensor in tensors.items() if is_cut(tensor) or processes.first()}
            _write(work / f"state-{number}.safetensors", ours)
            if processes.first():
                write_text(work / "about.json", json.dumps({**about, "parts": processes.size()}) + "\n")
        with processes.agreed():
            made.close()


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


def load(folder: Path, part: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """All tensors of a checkpoint.

    Args:
        part: rank and number of processes, for the rows of weights and moments that fall to one of them; None: whole tensors.

    Raises:
        RunError: it cannot be read.
    """
    try:
        names = sorted(folder.glob("state*.safetensors"))
        if len(names) != json.loads((folder / "about.json").read_text()).get("parts", 1):
            raise ValueError("a part of it is missing")
        with contextlib.ExitStack() as opened:
            files = [opened.enter_context(safe_open(name, "pt")) for name in names]
            holders: dict[str, list[Any]] = {}
            for file in files:
                for key in file.keys():  # noqa: SIM118  it has no iterator
                    holders.setdefault(key, []).append(file)
            return {key: _joined(key, held, None if key.startswith("extra/") else part) for key, held in holders.items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(f"The checkpoint {folder} cannot be read: {error}", "Remove it, or start anew without `--resume`") from error


def _joined(key: str, files: Sequence[Any], part: tuple[int, int] | None) -> Tensor:
    """A tensor from the rows that lie in several files, or of it the rows of one process."""
    shapes = [file.get_slice(key).get_shape() for file in files]
    if not shapes[0] or (part is None and len(files) == 1):
        return files[0].get_tensor(key)
    ends = list(itertools.accumulate(shape[0] for shape in shapes))
    rank, world = part or (0, 1)
    each = -(-ends[-1] // world)  # as FSDP cuts
    first, last = min(rank * each, ends[-1]), min((rank + 1) * each, ends[-1])
    rows = []
    for file, end, shape in zip(files, ends, shapes, strict=True):
        begin = end - shape[0]
        rows.append(file.get_slice(key)[max(first, begin) - begin : max(min(last, end), begin) - begin])
    return torch.cat([some for some in rows if len(some)] or rows[:1])


def restore(
    folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Put weights and moments back; returns the extra tensors.

    Args:
        tensors: what `load` gave, if that was called already: of parameters that are cut up, the rows of this process.
    """
    tensors = load(folder) if tensors is None else tensors
    missing = [name for name, p in parameters.items() if getattr(tensors.get(f"weight/{name}"), "shape", None) != here(p).shape]
    if missing:
        raise RunError(f"The checkpoint {folder} has no weight `{missing[0]}` of the right shape", "It belongs to another model")
    with torch.no_grad():
        for name, parameter in parameters.items():
            here(parameter).copy_(tensors[f"weight/{name}"])
            found = {moment: tensors[f"{moment}/{name}"] for moment in _MOMENTS if f"{moment}/{name}" in tensors}
            if found:
                optimizer.state[parameter] = {
                    key: (_back(value, parameter) if value.ndim else value.to(parameter.device)).clone() for key, value in found.items()
                }
    return {key.removeprefix("extra/"): value for key, value in tensors.items() if key.startswith("extra/")}


def clear(out: Path) -> None:
    """Remove all checkpoints, once the result is safe elsewhere."""
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
