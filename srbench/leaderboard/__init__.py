"""The leaderboard: from the samples of many cells to rows with paired intervals, p values and ranks.

Everything is computed from the samples, never from another row's rounded numbers. Cells of one task and network are
aligned by sample id and resampled with the same draws, so every difference is paired. Nothing is rounded here.

- `pairing`: which cells may stand in one table, and their samples in one order.
- `numbers`: the numbers of every row.
- `sizes`: the cells of one row at several input sizes.
- `rows`: what a row is; its numbers are named by `srbench.metrics.catalogue`.
- `seeds`: rows of weights that differ in seed alone.
- `ranks`: the order of the rows, their ranks, and how sure these are.
- `board`: the leaderboard as a value and as leaderboard.json.
- `tables`: how it is shown and saved.
- `compare`: what changed between two leaderboards.
"""

from srbench.leaderboard.board import Leaderboard, read_leaderboard
from srbench.leaderboard.numbers import MINIMUM_BATCHES, build
from srbench.leaderboard.pairing import newest_cells
from srbench.leaderboard.rows import Row
from srbench.records.schema import BASELINE, ORACLE

__all__ = ["BASELINE", "MINIMUM_BATCHES", "ORACLE", "Leaderboard", "Row", "build", "newest_cells", "read_leaderboard"]
