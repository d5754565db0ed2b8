"""Progress of long work: a bar with the time left on a terminal, else a line a minute."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from srbench.compute.stopping import check_stop

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY_S = 60.0
_BAR_WIDTH = 20


class Progress:
    """Counts what is done; call it with the number of units newly done."""

    def __init__(self, description: str, total: int | None, *, unit: str, done: int, show: bool) -> None:
        """Start counting.

        Args:
            description: What is going on.
            total: Number of units in all, None where nobody knows.
            unit: What is counted.
            done: Units that an earlier run has done.
            show: Draw or print anything at all.
        """
        self._description, self._total, self._unit, self._done, self._show = description, total, unit, done, show
        self._started, self._began = done, time.monotonic()
        self._printed = self._began
        self._figures: Sequence[str] = ()
        self._console: Console | None = None
        self._bar: Any = None

    def __call__(self, count: int, *, figures: Sequence[str] = ()) -> None:
        """Add units.

        Args:
            count: Units newly done.
            figures: What else is known ("loss 0.31"), the most important first; what does not fit is left out.

        Raises:
            KeyboardInterrupt: If the process was asked to stop and goes on (`srbench.compute.stopping`).
        """
        check_stop()
        self._done += count
        self._figures = figures or self._figures
        self._tell()

    def describe(self, description: str) -> None:
        """Name what is going on from now on."""
        self._description = description
        self._tell()

    def line(self, width: int | None = None) -> str:
        """Return what is known, as many parts of it as fit into a number of characters."""
        count = f"{self._done}/{self._total}" if self._total is not None else str(self._done)
        elapsed = time.monotonic() - self._began
        parts = [f"{count} {self._unit}"]
        newly = self._done - self._started
        if self._total is not None and newly > 0:
            parts.append(f"{_clock(elapsed / newly * (self._total - self._done))} left")
        parts += [*self._figures, f"{_clock(elapsed)} so far"]
        line = parts[0]
        for part in parts[1:]:
            if width is not None and len(line) + len(part) + 2 > width:
                break
            line += f", {part}"
        return line

    def _tell(self) -> None:
        if not self._show:
            return
        if self._bar is not None:
            self._bar.update(0, completed=self._done, description=self._shown(), rest=self._rest())
        elif time.monotonic() - self._printed >= LINE_EVERY_S and self._console is not None:
            self._printed = time.monotonic()
            self._console.print(f"srbench: {self._description}: {self.line()}", soft_wrap=True, highlight=False)

    def _shown(self) -> str:
        """Return the description, cut to a third of the terminal."""
        assert self._console is not None
        most = max(8, self._console.width // 3)
        return self._description if len(self._description) <= most else self._description[: most - 1] + "…"

    def _rest(self) -> str:
        assert self._console is not None
        return self.line(max(1, self._console.width - len(self._shown()) - self._bar_width() - 2))

    def _bar_width(self) -> int:
        assert self._console is not None
        return min(_BAR_WIDTH, self._console.width // 5)

    def start(self) -> None:
        """Draw the bar, or wait for the first minute to pass."""
        if not self._show:
            return
        from rich.console import Console

        self._console = Console(stderr=True)
        if not self._console.is_terminal:
            return
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(self._bar_width()),
            TextColumn("{task.fields[rest]}", markup=False),
        )
        self._bar = Bar(*columns, console=self._console, transient=True)
        self._bar.add_task(self._shown(), total=self._total, completed=self._done, rest=self._rest())
        self._bar.start()

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def track(
    description: str, total: int | None, *, show: bool = True, unit: str = "images", done: int = 0
) -> Iterator[Progress]:
    """Show how far the body is while it runs.

    Args:
        description: What is going on.
        total: Number of units in all, None where nobody knows.
        show: Draw or print anything at all.
        unit: What is counted.
        done: Units that an earlier run has done.

    Yields:
        What is called with the number of units newly done.
    """
    progress = Progress(description, total, unit=unit, done=done, show=show)
    progress.start()
    try:
        yield progress
    finally:
        progress.stop()


def _clock(seconds: float) -> str:
    """Return a duration as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
