"""The leaderboard of a folder's records with the numbers of the folder's own leaderboard.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srbench import leaderboard
from srbench.errors import RecordError
from srbench.leaderboard import Leaderboard
from srbench.records.cells import StoredCell


def board_of(
    stored: Sequence[StoredCell], problems: Sequence[str], folder: Path
) -> tuple[Leaderboard, list[StoredCell]]:
    """Return the board of all cells whose samples can be read, and these cells, each once.

    Args:
        stored: The cells.
        problems: What could not be read of them; it becomes the board's warnings.
        folder: The folder whose leaderboard.json says with which draws the intervals are made.

    Raises:
        IncomparableError: If cells of one task were made under other conditions.
    """
    how = _draws(folder)
    try:
        board = leaderboard.build(stored, **how, warnings=problems)
    except RecordError:
        stored, problems = _readable(stored, problems)
        board = leaderboard.build(stored, **how, warnings=problems)
    return board, leaderboard.newest_cells(stored)[0]


def _draws(folder: Path) -> dict[str, Any]:
    """Draws and seed of the folder's own leaderboard, so that the page shows its numbers."""
    try:
        how = leaderboard.read_leaderboard(folder / "leaderboard.json").bootstrap
        return {"draws": int(how["draws"]), "seed": int(how["seed"])}
    except (RecordError, KeyError, TypeError, ValueError):
        return {}


def _readable(cells: Sequence[StoredCell], problems: Sequence[str]) -> tuple[list[StoredCell], list[str]]:
    kept, said = [], list(problems)
    for cell in cells:
        try:
            if cell.record.status == "ok":
                cell.samples()
            kept.append(cell)
        except RecordError as error:
            said.append(str(error))
    return kept, said
