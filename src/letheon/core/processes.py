"""Several processes that do one piece of work together, as `torchrun` and `accelerate launch` start them.

    with agreed() as here:                      # an error of one process inside the block is an error of all
        here.value = mine(...)
    here.all                                    # what each process had to say, in their order, the same everywhere

Who is who stands in the environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT). The first process alone writes files and messages. With
one process all of this costs nothing. A process that ends or hangs ends the others: an exchange fails at once where a connection breaks
and after `$LETHEON_TIMEOUT` seconds (600) where nothing comes.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import LetheonError, RunError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("letheon")
T = TypeVar("T")
_ALONE: contextvars.ContextVar[bool] = contextvars.ContextVar("alone", default=False)
BUCKET = 1 << 24  # numbers that travel together


class Lost(RunError):
    """Another process has ended or is silent."""


def size() -> int:
    """How many processes share this work."""
    return 1 if _ALONE.get() else int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0")) if size() > 1 else 0


def first() -> bool:
    """Whether this process writes the files."""
    return rank() == 0


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Work inside the block is not shared: this process does it without the others, who need not come along."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def timeout() -> float:
    """Seconds that a process waits for the others."""
    text = os.environ.get("LETHEON_TIMEOUT", "600")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e7:
        raise RunError(f"`LETHEON_TIMEOUT` must be a number of seconds above 0, got {text!r}")
    return seconds


def join(*, cpu: bool = False) -> None:
    """Meet the other processes, once; they must all come.

    Args:
        cpu: work on CPUs (gloo) although there is a GPU.

    Raises:
        RunError: the others do not come, or PyTorch was built without the means to talk to them.
    """
    if size() == 1:
        return
    import torch
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return
    if not distributed.is_available():
        raise RunError("This PyTorch cannot work with several processes", "Start one, without `torchrun` or `accelerate launch`")
    from datetime import timedelta

    from accelerate import PartialState

    if not first():  # one voice is enough; errors are told by whoever meets them
        log.addFilter(lambda record: record.levelno >= logging.ERROR)
    with answered():
        PartialState(cpu=cpu or not torch.cuda.is_available(), timeout=timedelta(seconds=timeout()))
    if not distributed.is_initialized():
        raise RunError(f"WORLD_SIZE is {size()} and no other process was found", "Start with `torchrun` or `accelerate launch`")
    atexit.register(_leave)


def _leave() -> None:
    from torch import distributed

    if distributed.is_initialized():
        with contextlib.suppress(RuntimeError):
            distributed.destroy_process_group()


@contextlib.contextmanager
def answered(signs: Sequence[str] = ("",)) -> Iterator[None]:
    """Turn what gloo and NCCL raise in the block, where another process is silent, into one sentence.

    Args:
        signs: words that tell their errors from others, in a block that does other things too.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in signs):
            raise
        what = f"Another of {os.environ.get('WORLD_SIZE', 1)} processes has ended, or gave no answer within {timeout():.0f} s"
        raise Lost(what, "Go on with `--resume` where a checkpoint was written") from error


class agreed:  # noqa: N801  used like a function
    """A block that succeeds or fails in all processes; `value` is passed around, and `all` holds everyone's.

    Inside the block there must be no exchange with other processes.
    """

    def __init__(self) -> None:
        self.value: Any = None
        self.all: list[Any] = []

    def __enter__(self) -> agreed:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if size() == 1:
            self.all = [self.value]
        elif error is None or isinstance(error, Exception):
            found = _gathered((None, _told(error)) if error is not None else (self.value, None))
            failed = next(((k, told) for k, (_, told) in enumerate(found) if told is not None), None)
            if failed is not None and error is None:
                raise _raised(*failed)
            self.all = [value for value, _ in found]


def exchanged(value: T) -> list[T]:
    """What each process gave, in their order."""
    return [value] if size() == 1 else _gathered(value)


def _gathered(value: Any) -> list[Any]:
    join()
    from torch import distributed

    found: list[Any] = [None] * size()
    with answered():
        distributed.all_gather_object(found, value)
    return found


def told(error: Exception) -> RunError:
    """An error that is none of ours, as one that other processes can be given."""
    return RunError(f"Process {rank()} failed: {type(error).__name__}: {error}")


def _told(error: Exception) -> tuple[type, str, str | None]:
    if isinstance(error, LetheonError):
        return type(error), error.message, error.hint
    return RunError, f"{type(error).__name__}: {error}", None


def _raised(number: int, told: tuple[type, str, str | None]) -> Exception:
    kind: Any
    kind, message, hint = told
    error: Exception = kind(message if kind is not RunError or hint else f"Process {number} failed: {message}", hint)
    return error


def once(function: Callable[[], T]) -> T:
    """What `function` gives, called by the first process alone; its error is an error of all."""
    with agreed() as here:
        if first():
            here.value = function()
    value: T = here.all[0]
    return value


def share(things: Sequence[T]) -> Sequence[T]:
    """Those that fall to this process."""
    return things[rank() :: size()] if size() > 1 else things


def summed(tensors: Sequence[Tensor]) -> None:
    """Add up over processes, in place; every process gives tensors of the same shapes in the same order, and gets the same bits."""
    if size() == 1:
        return
    import torch
    from torch import distributed

    join()
    with torch.no_grad(), answered():
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            distributed.all_reduce(flat)
            for tensor, part in zip(bucket, torch.split(flat, [tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (tensor.dtype != bucket[0].dtype or sum(t.numel() for t in bucket) + tensor.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def sent(tensors: Mapping[str, Tensor] | None, device: Any) -> dict[str, Tensor]:
    """The tensors of the first process, in all of them; the others give None."""
    if size() == 1:
        return dict(tensors or {})
    import torch
    from torch import distributed

    ours = {name: tensor.to(device).contiguous() for name, tensor in (tensors or {}).items()}
    shapes = exchanged([(name, tuple(tensor.shape), tensor.dtype) for name, tensor in ours.items()])[0]
    found = ours if first() else {name: torch.empty(shape, dtype=dtype, device=device) for name, shape, dtype in shapes}
    with answered():
        for tensor in found.values():
            distributed.broadcast(tensor, 0)
    return found


def speaks() -> bool:
    """Whether this process is the one to tell a person of its error: the first one that has an error, of all that will have it."""
    if size() == 1:
        return True
    from datetime import timedelta

    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # exported, and not listed

    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # no place that outlives the processes
        return True
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = TCPStore(*place, is_master=False, timeout=timedelta(seconds=5), wait_for_workers=False)
        return store.add(f"letheon/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", 1) == 1
    except RuntimeError:
        return True
