"""Curves of a run: a CSV file always, TensorBoard where it is installed, a progress bar where somebody watches."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd


class Curves:
    """Writes the history of a run; every call leaves whole files behind."""

    def __init__(self, out: Path) -> None:
        """Open the writers; TensorBoard is left out where it is not installed."""
        self._csv = out / "curves.csv"
        out.mkdir(parents=True, exist_ok=True)
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(out / "tensorboard"))

    def write(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write the whole history as CSV, and its last row to TensorBoard."""
        part = self._csv.with_suffix(".csv.part")
        with part.open("w", encoding="utf-8") as stream:
            pd.DataFrame(list(history)).to_csv(stream, index=False)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(self._csv)
        if self._board is not None and history:
            row = history[-1]
            for name, value in row.items():
                if name not in {"epoch", "step"} and isinstance(value, int | float):
                    self._board.add_scalar(name, value, int(row["epoch"]))
            self._board.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._board is not None:
            self._board.close()


class Bar:
    """Steps done, time left, loss, images a second, and the share of time that the device waits for data."""

    def __init__(self, total: int, done: int, *, show: bool) -> None:
        """Prepare the bar; it is drawn on the error stream, and only where that is a terminal.

        Args:
            total: Optimiser steps of the whole run.
            done: Those that an earlier run has done.
            show: Draw it at all.
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
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps, {task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (show and console.is_terminal),
        )
        self._task = self._progress.add_task("training", total=total, completed=done, figures="")

    def __enter__(self) -> Self:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._progress.stop()

    def say(self, description: str) -> None:
        """Name what is going on."""
        self._progress.update(self._task, description=description)

    def step(self, *, loss: float, images_per_s: float, wait_share: float) -> None:
        """Count one optimiser step."""
        figures = f"loss {loss:.4g}, {images_per_s:.3g} images/s, {wait_share:.0%} waiting for data"
        self._progress.update(self._task, advance=1, figures=figures)
