"""Whether the best row of a column is better than the runner-up, by a paired test on the samples that both saw."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.leaderboard import Row
from srbench.stats import bootstrap_means, interval, mcnemar_exact
from srbench.store import StoredCell

LEVEL = 0.05
TRACKS = ("frozen", "adapted")
# Column of the table -> whether more of it is better.
BETTER: Mapping[str, bool] = {
    "accuracy": True,
    "accuracy_delta": True,
    "recovered_gap": True,
    "top5": True,
    "agreement": True,
    "cross_entropy": False,
    "psnr": True,
    "ssim": True,
    "f1_macro": True,
    "f1_macro_delta": True,
    "logit_mse_to_hr": False,
    "kl_to_hr": False,
}
# Differences to the same row order as the values themselves: they share the test of these.
SAME_TEST = {"accuracy_delta": "accuracy", "recovered_gap": "accuracy", "f1_macro_delta": "f1_macro"}
MEANS = ("cross_entropy", "psnr", "ssim", "logit_mse_to_hr", "kl_to_hr")


@dataclass(frozen=True)
class Lead:
    """The best ranked row of a track in one column, and how sure its place is.

    Attributes:
        column: Name of the column.
        best: The row.
        second: The next best.
        test: What was found, such as "exact McNemar p = 0.012".
        significant: Whether the difference is more than chance.
    """

    column: str
    best: Row
    second: Row
    test: str
    significant: bool


def scored(cells: Sequence[StoredCell]) -> dict[Any, StoredCell]:
    """Return the cells that have samples, by the key of their row."""
    found: dict[Any, StoredCell] = {}
    for cell in cells:
        key = cell.record.cell
        if cell.record.status == "ok":
            found[key.task, key.method, key.weights, key.classifier, key.track] = cell
    return found


def leads(
    rows: Sequence[Row], cells: Mapping[Any, StoredCell], *, bootstrap: Mapping[str, Any], pooled_psnr: bool = False
) -> list[Lead]:
    """Return the lead of every column of `BETTER` in each track of one table; none where fewer than two rows have it.

    Args:
        rows: Rows of one task and classifier.
        cells: Stored cells by `Row.key`.
        bootstrap: draws, seed and level of the board.
        pooled_psnr: Whether PSNR pools batches, so that its samples do not pair.
    """
    found = []
    for track in TRACKS:
        ranked = [row for row in rows if row.track == track and row.rank is not None and row.key in cells]
        # A pair leads in several columns as a rule: its samples are read and resampled once.
        pairs: dict[tuple[Any, Any], _Pair] = {}
        for column, more in BETTER.items():
            having = [row for row in ranked if _finite(getattr(row, column))]
            having.sort(key=lambda row: getattr(row, column), reverse=more)
            if len(having) < 2:
                continue
            best, second = having[:2]
            pair = pairs.setdefault((best.key, second.key), _Pair(best, second, cells, bootstrap))
            tied = getattr(best, column) == getattr(second, column)
            test, significant = pair.test(SAME_TEST.get(column, column), pooled_psnr=pooled_psnr)
            found.append(Lead(column, best, second, "equal" if tied else test, significant and not tied))
    return found


class _Pair:
    """Two rows whose samples are read when the first test asks for them."""

    def __init__(self, best: Row, second: Row, cells: Mapping[Any, StoredCell], bootstrap: Mapping[str, Any]) -> None:
        self._rows, self._bootstrap = (best, second), bootstrap
        self._cells = (cells[best.key], cells[second.key])
        self._frames: tuple[pd.DataFrame, pd.DataFrame] | None = None
        self._means: dict[str, tuple[float, float]] | None = None

    def test(self, column: str, *, pooled_psnr: bool) -> tuple[str, bool]:
        """Return what a test of this column says, and whether that is significant."""
        if column in _BINARY:
            first, second = (_BINARY[column](frame) for frame in self._samples())
            if first is not None and second is not None:
                p = mcnemar_exact(first, second)
                return f"exact McNemar p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}", p < LEVEL
        if column in MEANS and not (column == "psnr" and pooled_psnr):
            low, high = self._differences()[column]
            if math.isfinite(low):
                return f"paired interval of the difference [{low:+.3g}, {high:+.3g}]", low > 0 or high < 0
        ends = [row.ci.get(column) for row in self._rows]
        if ends[0] is None or ends[1] is None:
            return "not tested", False
        apart = ends[0][0] > ends[1][1] or ends[0][1] < ends[1][0]
        return "their intervals are apart" if apart else "their intervals overlap", apart

    def _samples(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        if self._frames is None:
            first, second = (cell.samples().set_index("sample_id") for cell in self._cells)
            self._frames = first, second.loc[first.index]
        return self._frames

    def _differences(self) -> dict[str, tuple[float, float]]:
        """Paired intervals of the mean differences, by column, from the board's own draws."""
        if self._means is None:
            first, second = self._samples()
            columns = [_floats(first[name]) - _floats(second[name]) for name in MEANS]
            table = np.column_stack([np.where(np.isfinite(each), each, math.nan) for each in columns])
            draws = bootstrap_means(table, draws=self._bootstrap["draws"], seed=self._bootstrap["seed"])
            self._means = {
                name: interval(draws[:, at], self._bootstrap["level"]) if np.isfinite(table[:, at]).any() else _NOWHERE
                for at, name in enumerate(MEANS)
            }
        return self._means


_NOWHERE = (math.nan, math.nan)


def _floats(values: pd.Series) -> NDArray[np.float64]:
    return values.to_numpy(dtype=np.float64, na_value=math.nan)


def _equal(first: str, second: str) -> Callable[[pd.DataFrame], NDArray[np.bool_] | None]:
    def compare(frame: pd.DataFrame) -> NDArray[np.bool_] | None:
        if frame[[first, second]].isna().any(axis=None):
            return None
        return (frame[first] == frame[second]).to_numpy(dtype=bool)

    return compare


def _hit(frame: pd.DataFrame) -> NDArray[np.bool_] | None:
    return None if frame["top5_hit"].isna().any() else frame["top5_hit"].to_numpy(dtype=bool)


_BINARY: Mapping[str, Callable[[pd.DataFrame], NDArray[np.bool_] | None]] = {
    "accuracy": _equal("label", "pred"),
    "agreement": _equal("hr_pred", "pred"),
    "top5": _hit,
}


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
