"""Progress bars with the time left, on the terminal's error stream, silent where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def track(
    description: str, total: int | None, *, show: bool = True, unit: str = "images"
) -> Iterator[Callable[[int], None]]:
    """Show a bar while the body runs.

    Args:
        description: What is going on.
        total: Number of units in all, None where nobody knows.
        show: Draw the bar; it is never drawn where the error stream is no terminal.
        unit: What is counted.

    Yields:
        A function that takes the number of units newly done.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not (show and console.is_terminal)) as progress:
        bar = progress.add_task(description, total=total)
        yield lambda count: progress.advance(bar, count)
