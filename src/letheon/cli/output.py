"""Where results go: refused before any work is done, worked on beside their place, and whole or absent in it.

A run works in `OUT.run`; at its end the result stands in `OUT` in one step. A folder that stays at `OUT.run` holds an interrupted run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from letheon.core.errors import RunError, SettingsError
from letheon.core.files import whole_folder

log = logging.getLogger("letheon")

# What letheon writes into an output folder. `--force` removes nothing else.
PARTS = {"model", "findings.json", "report.html", "metrics.jsonl", "order.jsonl", "subject", "retrained", "original", "checkpoints"}


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
    if path.is_dir():
        raise RunError(f"{path} is a folder, and `{option}` takes a file", f"For example `{option} {path / 'report.html'}`")
    _check_writable(path)
    if path.exists() and not force:
        raise RunError(f"{path} already exists", f"Give `--force` to replace it, or another `{option}`")


def _real(path: Path) -> Path:
    return Path(path).expanduser().resolve()


def _check_writable(path: Path) -> None:
    parent = next(folder for folder in Path(os.path.abspath(path)).parents if folder.exists())
    if not parent.is_dir():
        raise RunError(f"{path} cannot be made: {parent} is a file", "Choose another place")
    if not os.access(parent, os.W_OK):
        raise RunError(f"{path} cannot be written: {parent} is read-only", "Choose another place")


def _check_ours(out: Path, parts: set[str]) -> None:
    """`--force` is no way to lose a folder of something else."""
    found = sorted(path.name for path in out.iterdir())
    strange = [name for name in found if name not in parts]
    if strange and "letheon.json" not in found:
        raise RunError(f"{out} holds things that letheon did not write, first `{strange[0]}`", "`--force` removes only what letheon wrote")


def work_folder(out: Path) -> Path:
    """Where the run for `out` works."""
    place = Path(os.path.abspath(out))
    return place.with_name(place.name + ".run")


def saved(work: Path) -> bool:
    """Whether a run left something behind to go on from."""
    return any(work.glob("checkpoints/step-*")) or any(work.glob("*/checkpoints/step-*"))


def check_work(out: Path, *, force: bool, resume: bool) -> None:
    """Refuse to start over an interrupted run without being told which way to go."""
    work = work_folder(out)
    if force and resume:
        raise SettingsError("`--resume` goes on and `--force` starts anew", "Give one of them")
    if work.exists() and not (force or resume):
        raise RunError(f"{work} holds an interrupted run", "Give `--resume` to go on, or `--force` to start anew")
    if work.exists() and force:
        _check_ours(work, PARTS)


@contextlib.contextmanager
def working(out: Path, *, resume: bool) -> Iterator[Path]:
    """The folder to work in. After a failure it stays if there is something to go on from, and is removed otherwise."""
    work = work_folder(out)
    if work.exists() and not (resume and saved(work)):
        shutil.rmtree(work)
    if resume and not work.exists():
        log.warning("There is nothing to resume for %s: starting at the beginning", out)
    for metrics in [*work.glob("metrics.jsonl"), *work.glob("*/metrics.jsonl")]:
        if not any((metrics.parent / "checkpoints").glob("step-*")):
            metrics.unlink()  # steps before the first checkpoint are taken again and will write their lines again
    made = [folder for folder in work.parents if not folder.exists()]
    try:
        yield work
    except BaseException as error:
        if not saved(work):
            shutil.rmtree(work, ignore_errors=True)
            for folder in made:
                with contextlib.suppress(OSError):  # somebody else has put something there
                    folder.rmdir()
        elif isinstance(error, KeyboardInterrupt):
            log.warning("%s holds all that was done: go on with `--resume`", work)
        raise
    shutil.rmtree(work, ignore_errors=True)


def place(folder: Path, out: Path, *, replace: bool) -> None:
    """Move what `folder` holds to `out`, whole or not at all; checkpoints have served and stay behind."""
    with whole_folder(out, replace=replace) as work:
        for part in sorted(folder.iterdir()):
            if part.name != "checkpoints":
                os.replace(part, work / part.name)
        for inner in work.glob("*/checkpoints"):
            shutil.rmtree(inner)
        for inner in work.iterdir():
            if inner.is_dir() and not any(inner.iterdir()):
                inner.rmdir()
