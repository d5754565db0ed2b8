"""The report's figures: each module draws one kind from leaderboard and records, its numbers beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from srbench.leaderboard import Leaderboard
from srbench.report.drawn import Drawn
from srbench.store import StoredCell


def draw_all(board: Leaderboard, cells: Sequence[StoredCell]) -> Iterator[Drawn]:
    """Yield every figure that the records carry the numbers for, in the order of `drawn.SECTIONS`."""
    yield from ()
