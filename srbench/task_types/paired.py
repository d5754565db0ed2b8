"""What the statistics hand to a task type, and what they take back: cells whose samples are aligned."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.metrics.stats import LEVEL, RecoveredGap, interval
from srbench.metrics.values import Columns
from srbench.records.schema import Record

Floats = NDArray[np.float64]
Column = NDArray[np.floating]  # of samples, in the precision in which they are stored
Interval = tuple[float, float]


@dataclass(frozen=True)
class CellSamples:
    """The samples of one cell as arrays, aligned with those of the cells that it is compared with.

    Attributes:
        record: The cell's record.
        floats: Columns of numbers, nan where missing; a metric that is a mean may add what each sample contributes to
            it under the name of the metric.
        whole: Columns of whole numbers, None where any is missing.
        competes: Whether the row is ranked, and so belongs to the family of its track's tests.
        lists: Columns of lists, `(n,)` objects, each an array; None where any is missing.
    """

    record: Record
    floats: Mapping[str, Column]
    whole: Mapping[str, NDArray[np.integer] | None] = field(default_factory=dict)
    competes: bool = False
    lists: Mapping[str, NDArray[np.object_] | None] = field(default_factory=dict)

    @property
    def columns(self) -> Columns:
        """The columns of all sorts by name."""
        return {**self.floats, **self.whole, **self.lists}

    def only(self, names: Collection[str]) -> CellSamples:
        """Return the cell with these of its columns alone; the others need not stay in memory."""
        return replace(
            self,
            floats={name: values for name, values in self.floats.items() if name in names},
            whole={name: values for name, values in self.whole.items() if name in names},
            lists={name: values for name, values in self.lists.items() if name in names},
        )


@dataclass(frozen=True)
class PairedCells:
    """Cells that are resampled together, and what is known of them already.

    Attributes:
        cells: The cells, samples aligned, with the columns of averaged metrics and of `TaskType.compared` alone.
        summaries: What `TaskType.summary` returned of each cell.
        values: The metrics of each cell by itself, by name, as far as it has them.
        oracle_index: Index of the original, or None.
        baseline_index: Index of frozen bilinear, or None.
        resampled: Bootstrap draws of averaged metrics, by index of the cell and name of the metric.
        draws: Number of draws.
        seed: Their seed.
    """

    cells: Sequence[CellSamples]
    summaries: Sequence[Any]
    values: Sequence[Mapping[str, float]]
    oracle_index: int | None
    baseline_index: int | None
    resampled: Mapping[tuple[int, str], Floats]
    draws: int
    seed: int


@dataclass(frozen=True)
class Comparison:
    """What comparing paired cells adds to their rows; each list has an entry a cell.

    Attributes:
        values: Numbers by name.
        ci: Intervals by name.
        notes: Why a number is missing, by name.
        p_values: Names of p values (`TaskType.tests`) -> p against bilinear before Holm's correction; empty where a row
            belongs to no family of tests.
        tables: Per-class tables.
        draws: Bootstrap draws of every value with an interval, by index of the cell and name of the metric, unless
            they are among `PairedCells.resampled`; rows of several seeds and the places of rows are made of them.
    """

    values: list[dict[str, Any]]
    ci: list[dict[str, Interval]]
    notes: list[dict[str, str]]
    p_values: list[dict[str, float]]
    tables: list[pd.DataFrame] = field(default_factory=list)
    draws: dict[tuple[int, str], Floats] = field(default_factory=dict)

    @classmethod
    def blank(cls, cells: int) -> Comparison:
        """Return one without values for this number of cells."""
        return cls(
            [{} for _ in range(cells)],
            [{} for _ in range(cells)],
            [{} for _ in range(cells)],
            [{} for _ in range(cells)],
        )

    def put_draws(self, index: int, name: str, draws: Floats, *, shown: bool = True) -> None:
        """Add the draws of a value, and their interval where it is shown."""
        self.draws[index, name] = draws
        if shown:
            put_interval(self.ci[index], name, draws, LEVEL)

    def put_gap(self, index: int, name: str, gap: RecoveredGap, *, shown: bool) -> None:
        """Add a recovered gap with its draws, or why there is none; its interval where it is shown."""
        self.values[index][name] = gap.value
        if gap.reason is not None:
            self.notes[index][name] = gap.reason
        elif gap.low is not None and gap.high is not None and gap.draws is not None:
            self.draws[index, name] = gap.draws
            if shown:
                self.ci[index][name] = (gap.low, gap.high)


def put_interval(ci: dict[str, Interval], name: str, samples: Floats, level: float) -> None:
    """Add the interval of bootstrap draws, where they have one."""
    low, high = interval(samples, level)
    if math.isfinite(low) and math.isfinite(high):
        ci[name] = (low, high)
