"""A progress bar on stderr with rate and time left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from letheon.core.run import Run


@contextlib.contextmanager
def bar(run: Run, name: str, total: int, done: int = 0) -> Iterator[Callable[[float], None]]:
    """Yields a function to call after each step with the loss; shows nothing where the run asks for quiet."""
    if not run.progress:
        yield lambda loss: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        task = progress.add_task(name, total=total, completed=done, rate="")

        def moved(loss: float) -> None:
            speed = progress.tasks[0].finished_speed or progress.tasks[0].speed
            progress.update(task, advance=1, rate=f"loss {loss:8.3f}" + (f"  {speed:.1f} steps/s" if speed else ""))

        yield moved
