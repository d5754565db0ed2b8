"""Whether the best row of a column is better than the runner-up, by a paired test on the samples that both saw.

What ranks the rows is stricter: there the best row must be told from every other one, as the leaderboard's ties say.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.leaderboard import Row
from srbench.leaderboard.rows import RowKey
from srbench.metrics.catalogue import all_metrics, metric
from srbench.metrics.info import MetricInfo
from srbench.metrics.stats import bootstrap_means, interval, mcnemar_exact
from srbench.metrics.values import counted
from srbench.records.cells import StoredCell

LEVEL = 0.05
TRACKS = ("frozen", "adapted")


@dataclass(frozen=True)
class Lead:
    """The best ranked row of a track in one column, and how sure its place is.

    Attributes:
        column: Name of the column.
        best: The row.
        second: The next best.
        test: What was found, such as "exact McNemar p = 0.012".
        significant: Whether the difference is more than chance.
        tied: In the column that ranks the rows: the rows that are tied with the best, itself first; else empty.
    """

    column: str
    best: Row
    second: Row
    test: str
    significant: bool
    tied: tuple[Row, ...] = ()


def scored(cells: Sequence[StoredCell]) -> dict[Any, StoredCell]:
    """Return the cells that have samples, by the key of their row."""
    by_key: dict[Any, StoredCell] = {}
    for cell in cells:
        key = cell.record.cell
        if cell.record.status == "ok" and key.input_size is None:
            by_key[key.row] = cell
    return by_key


def leads(
    rows: Sequence[Row],
    cells: Mapping[Any, StoredCell],
    *,
    bootstrap: Mapping[str, Any],
    draws: Mapping[RowKey, Mapping[str, NDArray[np.float64]]] | None = None,
    ranked_by: Collection[str] = ("accuracy",),
    pooled_psnr: bool = False,
) -> list[Lead]:
    """Return the lead of every metric with a test in each track of one table; none where fewer than two rows have it.

    Args:
        rows: Rows of one task and classifier.
        cells: Stored cells by `Row.key`.
        bootstrap: draws, seed and level of the board.
        draws: The board's draws by `Row.key`; rows of several seeds are compared by them.
        ranked_by: Metrics that can rank the rows; where rows are tied, none of them has a winner.
        pooled_psnr: Whether PSNR pools batches, so that its samples do not pair.
    """
    places: list[tuple[str, Row, Row]] = []
    for track in TRACKS:
        ranked = [row for row in rows if row.track == track and row.rank is not None and row.cell_key in cells]
        for tested in all_metrics():
            values = [(value, row) for row in ranked if (value := _finite(row[tested.name])) is not None]
            values.sort(key=lambda pair: pair[0], reverse=tested.higher_is_better)
            if tested.test is not None and len(values) >= 2:
                places.append((tested.name, values[0][1], values[1][1]))
    samples = _Samples(cells)
    means = [name for name in _means() if not (name == "psnr" and pooled_psnr)]
    single = [place for place in places if not (place[1].seeds or place[2].seeds)]
    differences = _differences([place for place in single if place[0] in means], samples, bootstrap)
    found = []
    for column, best, second in places:
        ends = differences.get((column, best.key, second.key), _NOWHERE)
        shared = metric(column).tested_as
        followed = shared if shared is not None and best[shared] is not None else column
        tied = tuple(row for row in rows if row.tied and row.track == best.track) if followed in ranked_by else ()
        if best[column] == second[column]:
            found.append(Lead(column, best, second, "equal", significant=False, tied=tied))
            continue
        if best.seeds or second.seeds:
            test, significant = _test_of_draws(followed, best, second, draws or {}, bootstrap["level"])
        else:
            test, significant = _test(followed, best, second, samples, ends)
        found.append(Lead(column, best, second, test, significant and not tied, tied))
    return found


class _Samples:
    """Samples of rows, each read once, when a test first asks for them."""

    def __init__(self, cells: Mapping[Any, StoredCell]) -> None:
        self._cells = cells
        self._frames: dict[Any, pd.DataFrame] = {}

    def pair(self, first: Row, second: Row) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the samples of two rows in one order."""
        ours, theirs = self._of(first), self._of(second)
        return ours, theirs if theirs.index.equals(ours.index) else theirs.loc[ours.index]

    def _of(self, row: Row) -> pd.DataFrame:
        if row.key not in self._frames:
            self._frames[row.key] = self._cells[row.cell_key].samples(_columns_read()).set_index("sample_id")
        return self._frames[row.key]


def _test(column: str, best: Row, second: Row, samples: _Samples, ends: tuple[float, float]) -> tuple[str, bool]:
    """Return what the test of a column says, and whether that is significant; `ends` are of the mean difference."""
    if metric(column).test == "mcnemar":
        first, other = (_decisions(metric(column), frame) for frame in samples.pair(best, second))
        if first is not None and other is not None:
            p = mcnemar_exact(first, other)
            return f"exact McNemar p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}", p < LEVEL
    return _without_zero(ends) or _apart(column, best, second)


def _test_of_draws(
    column: str,
    best: Row,
    second: Row,
    draws: Mapping[RowKey, Mapping[str, NDArray[np.float64]]],
    level: float,
) -> tuple[str, bool]:
    """Return what the draws of two rows say, which resample seeds where a row stands for several."""
    first, other = (draws.get(row.key, {}).get(column) for row in (best, second))
    if first is None or other is None:
        return _apart(column, best, second)
    return _without_zero(interval(first - other, level)) or _apart(column, best, second)


def _without_zero(ends: tuple[float, float]) -> tuple[str, bool] | None:
    """Say whether an interval of a difference is without 0; None where there is no interval."""
    low, high = ends
    if not math.isfinite(low):
        return None
    return f"paired interval of the difference [{low:+.3g}, {high:+.3g}]", low > 0 or high < 0


def _apart(column: str, best: Row, second: Row) -> tuple[str, bool]:
    """Say whether the intervals of two rows are apart."""
    own, others = best.ci.get(column), second.ci.get(column)
    if own is None or others is None:
        return "not tested", False
    apart = own[0] > others[1] or own[1] < others[0]
    return "their intervals are apart" if apart else "their intervals overlap", apart


def _differences(
    places: Sequence[tuple[str, Row, Row]], samples: _Samples, bootstrap: Mapping[str, Any]
) -> dict[Any, tuple[float, float]]:
    """Paired intervals of mean differences by (column, first key, second key), from the board's own draws."""
    by_size: dict[int, dict[Any, NDArray[np.float64]]] = {}
    for column, best, second in places:
        first, other = samples.pair(best, second)
        cap, stored = metric(column).cap, metric(column).columns[-1].name
        each = counted(_floats(first[stored]), cap) - counted(_floats(other[stored]), cap)
        if np.isfinite(each).any():
            by_size.setdefault(len(each), {})[column, best.key, second.key] = each
    intervals: dict[Any, tuple[float, float]] = {}
    for differences in by_size.values():
        table = np.column_stack(list(differences.values()))
        table[~np.isfinite(table)] = math.nan
        draws = bootstrap_means(table, draws=bootstrap["draws"], seed=bootstrap["seed"])
        ends = (interval(each, bootstrap["level"]) for each in draws.T)
        intervals.update(zip(differences, ends, strict=True))
    return intervals


_NOWHERE = (math.nan, math.nan)


def _means() -> list[str]:
    """Names of the metrics whose samples are paired and averaged."""
    return [row.name for row in all_metrics() if row.test == "paired"]


def _columns_read() -> list[str]:
    """Names of the stored columns that tests look at."""
    tested = [column.name for row in all_metrics() if row.test in ("mcnemar", "paired") for column in row.columns]
    return list(dict.fromkeys(["sample_id", *tested]))


def _floats(values: pd.Series) -> NDArray[np.float64]:
    return values.to_numpy(dtype=np.float64, na_value=math.nan)


def _decisions(tested: MetricInfo, frame: pd.DataFrame) -> NDArray[np.bool_] | None:
    """Return for each sample whether it is right: a column that says so, or two that agree; None where some miss it."""
    columns = [frame[column.name] for column in tested.columns]
    if any(column.isna().any() for column in columns):
        return None
    right = columns[0] if len(columns) == 1 else columns[0] == columns[1]
    return right.to_numpy(dtype=bool)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
