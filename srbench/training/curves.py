"""Curves of a run: a CSV file always, TensorBoard where it is installed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from srbench.errors import TrainingError
from srbench.training.checkpoint import replace_file

_log = logging.getLogger(__name__)


class Curves:
    """Writes the history of a run; every call leaves whole files behind."""

    def __init__(self, out: Path) -> None:
        """Make the folder and open the writers; TensorBoard is left out where it is not installed.

        Raises:
            TrainingError: If the folder cannot be made.
        """
        self._csv = out / "curves.csv"
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(
                f"the folder {out} cannot be made: {error.strerror or error}; choose another --out"
            ) from error
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(out / "tensorboard"))
        except ImportError:
            return
        except Exception as error:  # noqa: BLE001 a TensorBoard that does not fit its own libraries raises anything
            _log.warning("TensorBoard is left out, since it is broken here (%s); curves.csv has everything", error)

    def write(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write the whole history as CSV, and its last row to TensorBoard.

        Raises:
            TrainingError: If the disk is full or fails otherwise.
        """
        text = pd.DataFrame(list(history)).to_csv(index=False)
        replace_file(self._csv, lambda stream: stream.writelines([text.encode()]))
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
