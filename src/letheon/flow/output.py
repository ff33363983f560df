"""Where results go: refused before any work is done, worked on beside their place, and whole or absent in it.

A run works in `OUT.run`, which it holds for itself; at its end the result stands in `OUT` in one step. A folder that stays at `OUT.run`
holds an interrupted run.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from letheon.core.errors import RunError, SettingsError
from letheon.core.files import whole_folder

from . import lock

log = logging.getLogger("letheon")

# What letheon writes into an output folder, and what a model folder holds beside its `letheon.json`. `--force` removes nothing else.
PARTS = {"model", "findings.json", "report.html", "metrics.jsonl", "order.jsonl", "subject", "retrained", "original", "checkpoints"}
PARTS.add("alternates.jsonl")  # of `altpo`
NOTES = "letheon.json"
MODEL = (
    NOTES, "config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "adapter_config.json", "README.md",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "*.model", "*.tiktoken", "tekken.json", "chat_template.*", "additional_chat_templates", "modeling_*.py", "configuration_*.py",
    "tokenization_*.py", "base", "guards", "slices", "shard-[0-9]*",
)  # fmt: skip


def check_folder(out: Path, *, force: bool, models: Iterable[Path] = (), inputs: Iterable[Path] = (), parts: Iterable[str] = ()) -> bool:
    """Refuse an output folder that exists, cannot be written, or holds what comes in.

    Args:
        models: folders that must not change: `out` may not be one of them, nor lie inside one.
        inputs: further files and folders that `out` may not hold, since `force` would remove them.
        parts: names that letheon wrote there, beside the usual ones.

    Returns:
        Whether something stands there that is to be replaced.

    Raises:
        RunError: as above.
    """
    check_name(out)
    place = _real(out)
    for model in map(_real, models):
        if place == model or model in place.parents:
            what = "is" if place == model else "lies inside"
            raise RunError(f"{out} {what} the model that comes in, which is never changed", "Choose another `--out`")
    for path in (*models, *inputs):
        if place == _real(path) or place in _real(path).parents:
            raise RunError(f"{out} holds {path}, which this command reads", "Choose another `--out`")
    _check_writable(out)
    if not out.exists():
        return False
    if not out.is_dir():
        raise RunError(f"{out} is a file, and the output is a folder", "Choose another `--out`")
    found = sorted(path.name for path in out.iterdir())
    if not found:
        return True
    if not force:
        raise RunError(f"{out} already exists", "Give `--force` to replace it, or another `--out`")
    _check_ours(out, {*PARTS, *parts})
    return True


def check_file(path: Path | None, option: str, *, force: bool) -> None:
    """Refuse an output file that exists or cannot be written, before any work is done."""
    if path is None:
        return
    check_name(path)
    if path.is_dir():
        raise RunError(f"{path} is a folder, and `{option}` takes a file", f"For example `{option} {path / 'report.html'}`")
    _check_writable(path)
    if path.exists() and not force:
        raise RunError(f"{path} already exists", f"Give `--force` to replace it, or another `{option}`")


def _real(path: Path) -> Path:
    return Path(path).expanduser().resolve()


def check_name(path: Path) -> None:
    """Refuse a name that no file or folder of ours can have."""
    if not Path(os.path.abspath(path)).name:
        raise RunError(f"{path} is the root of the file system", "Choose a folder below it")
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # too long, or with a null character in it
        raise RunError(f"{str(path)[:200]!r} cannot be used: {getattr(error, 'strerror', None) or error}", "Choose another name") from error


def _check_writable(path: Path) -> None:
    parent = next(folder for folder in Path(os.path.abspath(path)).parents if folder.exists())
    if not parent.is_dir():
        raise RunError(f"{path} cannot be made: {parent} is a file", "Choose another place")
    if not os.access(parent, os.W_OK):
        raise RunError(f"{path} cannot be written: {parent} is read-only", "Choose another place")


def _check_ours(out: Path, parts: set[str]) -> None:
    """`--force` is no way to lose a folder of something else, nor a file that was put into one of ours."""
    found = sorted(path.name for path in out.iterdir())
    known = MODEL if NOTES in found else ()
    strange = [name for name in found if name not in parts and not any(fnmatch.fnmatchcase(name, pattern) for pattern in known)]
    if strange:
        raise RunError(f"{out} holds things that letheon did not write, first `{strange[0]}`", "`--force` removes only what letheon wrote")


def work_folder(out: Path) -> Path:
    """Where the run for `out` works."""
    place = Path(os.path.abspath(out))
    return place.with_name(place.name + ".run")


def saved(work: Path) -> bool:
    """Whether a run left something behind to go on from."""
    return any(work.glob("checkpoints/step-*")) or any(work.glob("*/checkpoints/step-*"))


def pieces(folder: Path, name: str | None = None) -> list[Path]:
    """What processes that were killed had begun to write, here or below: names such as `.model.k3x8qa_2.tmp`.

    Args:
        name: only pieces of the file or folder of this name, which stand in `folder` itself.
    """
    return list(folder.rglob(".*.????????.tmp") if name is None else folder.glob(f".{glob.escape(name)}.????????.tmp"))


def sweep_up(folder: Path, name: str | None = None) -> None:
    """Remove such pieces."""
    for piece in pieces(folder, name):
        _remove(piece)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(out: Path, *, force: bool = False, resume: bool = False) -> Iterator[None]:
    """Hold the place of the run for `out` inside the block.

    Raises:
        RunError: another process holds it, or it holds an interrupted run and nobody said which way to go.
        SettingsError: both ways were given.
    """
    if force and resume:
        raise SettingsError("`--resume` goes on and `--force` starts anew", "Give one of them")
    work = work_folder(out)
    with lock.alone(work, out):
        sweep_up(work.parent, Path(os.path.abspath(out)).name)
        sweep_up(work)
        begun = any(path.name != lock.NAME for path in work.iterdir()) if work.exists() else False
        if begun and not (force or resume):
            raise RunError(f"{work} holds an interrupted run", "Give `--resume` to go on, or `--force` to start anew")
        if begun and force:
            _check_ours(work, {*PARTS, lock.NAME})
        yield


@contextlib.contextmanager
def working(out: Path, *, resume: bool) -> Iterator[Path]:
    """The folder to work in, which is claimed. After a failure it keeps what there is to go on from, and is empty otherwise."""
    work = work_folder(out)
    if not (resume and saved(work)):
        if resume:
            log.warning("There is nothing to resume for %s: starting at the beginning", out)
        empty(work)
    for metrics in [*work.glob("metrics.jsonl"), *work.glob("*/metrics.jsonl")]:
        if not any((metrics.parent / "checkpoints").glob("step-*")):
            metrics.unlink()  # steps before the first checkpoint are taken again and will write their lines again
    try:
        yield work
    except BaseException as error:
        if not saved(work):
            empty(work)
        elif isinstance(error, KeyboardInterrupt):
            log.warning("%s holds all that was done: go on with `--resume`", work)
        raise
    empty(work)


def empty(work: Path) -> None:
    """Remove everything but the lock."""
    for part in list(work.iterdir()) if work.exists() else ():
        if part.name != lock.NAME:
            _remove(part)


def place(folder: Path, out: Path, *, replace: bool) -> None:
    """Put what `folder` holds in `out`, whole or not at all; checkpoints have served and stay behind.

    Nothing is taken from `folder`, so that a run that is killed here goes on from all that it had.
    """
    with whole_folder(out, replace=replace) as work:
        behind = shutil.ignore_patterns("checkpoints", lock.NAME)
        shutil.copytree(folder, work, copy_function=_linked, ignore=behind, dirs_exist_ok=True)
        for inner in work.iterdir():
            if inner.is_dir() and not any(inner.iterdir()):
                inner.rmdir()


def _linked(source: str, target: str) -> None:
    """The same file under a second name; a copy where the file system has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
