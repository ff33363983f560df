"""`letheon`: the command line. Data goes to stdout, progress and errors to stderr.

Commands import what they need when they run, so that help appears at once. Exit codes: 0 done, 1 a contract does not hold, 2 wrong use or
wrong input, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

from letheon.core import processes, registry
from letheon.core.errors import LetheonError

from . import look, pages, requests, results, serve, sweep, work
from .options import ARGUMENTS, Messages, say

app = typer.Typer(
    name="letheon",
    help="Decides what a neural network learns, keeps and forgets, and proves it.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for function in (work.demo, work.erase, results.audit, work.micro, work.run, sweep.sweep, results.report, results.compare):
    app.command()(function)
for function in (look.methods, look.show, look.check, look.new, pages.pages, serve.serve):
    app.command()(function)
app.add_typer(requests.app, name="requests")
# typer has brought its own copy of click since 0.26; both raise a class of this name for wrong use.
_Usage = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
SHARED = ("erase", "run")  # commands whose work several processes share
_LOUD = ("transformers", "accelerate", "httpx", "filelock", "absl")  # their warnings say nothing that letheon does not say itself


def _version(value: bool) -> None:
    if value:
        from letheon import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and exit."),
    plugin: list[Path] | None = typer.Option(None, metavar="FILE", help="A method of your own: its file runs. May be given again."),
) -> None:
    """Decides what a neural network learns, keeps and forgets, and proves it."""
    for file in plugin or ():
        registry.use(file)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Every error that letheon raises on purpose becomes one sentence on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with _settled(arguments, process=argv is None), _shared(arguments) as ours:
        try:
            code = app(arguments or ["--help"], prog_name="letheon", standalone_mode=False) if ours else 0
            sys.stdout.flush()
        except LetheonError as error:
            _tell(str(error))
            return 130 if isinstance(error.__context__, KeyboardInterrupt) else 2
        except _Usage as error:
            _tell(_usage(error))
            return 2
        except (KeyboardInterrupt, typer.Abort):
            code = 130
        except BrokenPipeError:  # the reader of our output has gone: `letheon methods | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as error:  # a name that is too long, a disk that is gone: the machine says no, and nothing is wrong with letheon
            name = f" `{str(error.filename)[:200]}`" if error.filename else ""
            _tell(f"The system refuses{name}: {error.strerror or error}")
            return 2
        except (MemoryError, RuntimeError) as error:
            signs = ("out of memory", "can't allocate memory")  # how torch says it on a GPU and on a CPU
            if not isinstance(error, MemoryError) and not any(sign in str(error).lower() for sign in signs):
                raise
            _tell("Out of memory. Lower `--set tokens_per_batch=...`, or train fewer weights with `--set parameters=lora`")
            return 2
        if code == 130:
            _tell("Interrupted")
        return code if isinstance(code, int) else 0


def _tell(message: str) -> None:
    """The error on stderr; of several processes that all end for the same reason, one says so."""
    if processes.speaks():
        say("error", message)


@contextlib.contextmanager
def _shared(arguments: list[str]) -> Iterator[bool]:
    """Whether this process has something to do. Only the first of several prints, and it does alone what cannot be shared."""
    name = next((part for before, part in zip(["", *arguments], arguments) if not part.startswith("-") and before != "--plugin"), "")
    if processes.size() == 1:
        yield True
    elif name not in SHARED:
        if processes.first():
            say("warning", f"`letheon {name}` is not shared by processes: the first one does all of it")
        with processes.alone() if processes.first() else contextlib.nullcontext():
            yield processes.first()
    elif processes.first():
        yield True
    else:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            yield True


def _usage(error: Exception) -> str:
    """Wrong use of the command line in one sentence, with the command whose help to read."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "letheon"
    message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
    return f"{message}{'' if message.endswith('?') else '.'} See `{path} --help`"


@contextlib.contextmanager
def _settled(arguments: list[str], process: bool) -> Iterator[None]:
    """Messages on stderr inside the block, and nothing from other packages; all as it was afterwards.

    Args:
        process: this is a process of its own: a request to end (SIGTERM) then saves a checkpoint as Ctrl-C does, and threads that wait for
            others sleep, where torch lets them run in circles: beside any other busy process that takes many times as long.
    """
    logger, handler, token = logging.getLogger("letheon"), Messages(), ARGUMENTS.set(tuple(arguments))
    level, others = logger.level, {name: logging.getLogger(name).level for name in _LOUD}
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    for name in others:
        logging.getLogger(name).setLevel(logging.ERROR)
    if process:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded, which is later
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        for name, had in others.items():
            logging.getLogger(name).setLevel(had)
        ARGUMENTS.reset(token)
