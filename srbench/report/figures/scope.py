"""Collects what the figures of one task and classifier need: cells, rows, samples, classes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.leaderboard import BASELINE, ORACLE, Leaderboard, Row, newest_cells
from srbench.leaderboard.pairing import pairing_key
from srbench.metrics.catalogue import metric
from srbench.records.cells import StoredCell
from srbench.records.schema import Record
from srbench.report.figures.style import counted, shortened, slug
from srbench.task_types import task_type

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """A row of the leaderboard with the cell that it was computed from; of several seeds, that of the median one."""

    row: Row
    cell: StoredCell

    @property
    def record(self) -> Record:
        """The cell's record."""
        return self.cell.record

    @property
    def label(self) -> str:
        """Name in a legend; what is of the adapted track says so, if its name does not."""
        name = shortened(self.row.label, 34)
        return name if self.row.track in ("frozen", *re.split(r"\W+", name)) else f"{name}, {self.row.track}"

    @property
    def named(self) -> dict[str, Any]:
        """What identifies it within a task and classifier, for the data of a figure."""
        return {"method": self.row.method, "weights": self.row.weights, "track": self.row.track}

    @property
    def tag(self) -> str:
        """The same as part of a file's name."""
        return "-".join(slug(part) for part in self.named.values() if part)


@dataclass(frozen=True)
class Scope:
    """One task and classifier.

    Attributes:
        task: Id of the task.
        classifier: Id of the classifier, or None.
        entries: The ok cells that can be compared, in the order of the leaderboard: those of a full run, or where
            there is none those of one partial run.
        rows: Every row, skipped and failed ones too.
        per_class: The leaderboard's per-class tables by key of the row.
    """

    task: str
    classifier: str | None
    entries: tuple[Entry, ...]
    rows: tuple[Row, ...]
    per_class: Mapping[tuple[str, str, str | None, str | None, str], pd.DataFrame]
    _frames: dict[Any, pd.DataFrame] = field(default_factory=dict, compare=False, repr=False)

    @property
    def tag(self) -> str:
        """Task and classifier as part of a file's name."""
        return f"{slug(self.task)}-{slug(self.classifier)}"

    @property
    def record(self) -> Record:
        """The record of the first entry: protocol and dataset are those of all."""
        return self.entries[0].record

    @property
    def partial(self) -> bool:
        """Whether `--limit` cut the samples."""
        return self.record.partial

    @property
    def over(self) -> str:
        """What the numbers are taken over: "264 patches", and whether that is only a part."""
        dataset = self.record.dataset
        return counted(dataset.n, dataset.unit) + (" (a partial run, --limit)" if self.partial else "")

    @property
    def score_name(self) -> str:
        """What ranks the rows: "psnr" without a classifier, else what the task type has, such as "accuracy"."""
        if self.classifier is None:
            return "psnr"
        names = task_type(self.record.dataset.task_type).ranks
        had = (name for name in names if any(entry.row[name] is not None for entry in self.entries))
        return next(had, names[-1])

    def score(self, row: Row) -> float | None:
        """Return a row's `score_name`."""
        value: float | None = row[self.score_name]
        return value

    @property
    def oracle(self) -> Entry | None:
        """The original, or None."""
        return self._frozen(ORACLE)

    @property
    def reference(self) -> Entry | None:
        """Bilinear, or None."""
        return self._frozen(BASELINE)

    def _frozen(self, method: str) -> Entry | None:
        return next((e for e in self.entries if e.row.method == method and e.row.track == "frozen"), None)

    def ranked(self, track: str, *, limit: int | None = None) -> list[Entry]:
        """Return the entries of a track that are no control, oracle or reference, best first."""
        reference = self.reference
        sign = -1 if metric(self.score_name).higher_is_better else 1
        ranked = [
            (sign * score, place, entry)
            for place, entry in enumerate(self.entries)
            if entry.row.track == track
            and entry.row.role not in ("control", "oracle")
            and entry is not reference
            and (score := self.score(entry.row)) is not None
        ]
        return [entry for _, _, entry in sorted(ranked, key=lambda item: item[:2])][:limit]

    @property
    def best(self) -> list[Entry]:
        """The best entry of each track."""
        return [*self.ranked("frozen", limit=1), *self.ranked("adapted", limit=1)]

    def chosen(self, *, frozen: int = 1, oracle: bool = True, reference: bool = True) -> list[Entry]:
        """Return those that detailed figures show: original, bilinear, the best frozen ones and the best adapted."""
        fixed = [self.oracle if oracle else None, self.reference if reference else None]
        return [
            *(entry for entry in fixed if entry is not None),
            *self.ranked("frozen", limit=frozen),
            *self.ranked("adapted", limit=1),
        ]

    def classes(self, entry: Entry) -> pd.DataFrame | None:
        """Return an entry's per-class table, or None without labels."""
        return self.per_class.get(entry.row.cell_key)

    def samples(self, entry: Entry, columns: Sequence[str]) -> dict[str, Floats]:
        """Return columns of an entry's samples as floats, nan where missing, every entry in the same order."""
        frame = self._frame(entry, columns)
        return {name: frame[name].to_numpy(dtype=np.float64, na_value=math.nan) for name in columns}

    def _frame(self, entry: Entry, columns: Sequence[str]) -> pd.DataFrame:
        key = entry.row.key
        have = self._frames.get(key)
        lacking = [name for name in ("sample_id", *columns) if have is None or name not in have]
        if lacking:
            # Aligned by id: two runs may have listed the samples in another order.
            fresh = entry.cell.samples(list(dict.fromkeys(["sample_id", *lacking]))).set_index("sample_id", drop=False)
            ids = self._ids(entry, fresh)
            fresh = fresh if fresh.index.equals(ids) else fresh.loc[ids]
            have = fresh if have is None else pd.concat([have, fresh[lacking]], axis=1)
            self._frames[key] = have
        assert have is not None
        return have

    def _ids(self, entry: Entry, fresh: pd.DataFrame) -> pd.Index:
        first = self._frames.get(self.entries[0].row.key)
        if first is not None:
            return first.index
        return fresh.index if entry is self.entries[0] else self._frame(self.entries[0], ["sample_id"]).index


def scopes(board: Leaderboard, cells: Sequence[StoredCell]) -> Iterator[Scope]:
    """Yield every task and classifier that has an ok cell, in the order of the leaderboard."""
    kept, _ = newest_cells(cells)
    stored = {key.row: cell for cell in kept for key in (cell.record.cell,) if key.input_size is None}
    per_class = _per_class(board.per_class)
    for task, classifier in dict.fromkeys((row.task, row.classifier) for row in board.rows):
        rows = tuple(row for row in board.rows if (row.task, row.classifier) == (task, classifier))
        entries = _comparable(
            [Entry(row, stored[row.cell_key]) for row in rows if row.status == "ok" and row.cell_key in stored]
        )
        if entries:
            yield Scope(task, classifier, entries, rows, per_class)


def _comparable(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Keep the entries of one pool: a full run before a partial one, then the one with the most cells."""
    pools: dict[Any, list[Entry]] = {}
    for entry in entries:
        record = entry.record
        key = pairing_key(record)
        pools.setdefault(key, []).append(entry)
    if not pools:
        return ()
    return tuple(min(pools.items(), key=lambda item: (item[0][0], -len(item[1])))[1])


def _per_class(table: pd.DataFrame) -> dict[tuple[str, str, str | None, str | None, str], pd.DataFrame]:
    if table.empty:
        return {}
    names = ["task", "method", "weights", "classifier", "track"]
    tables = {}
    for _, part in table.groupby(names, dropna=False, sort=False):
        task, method, weights, classifier, track = part.iloc[0][names]
        key = task, method, None if pd.isna(weights) else weights, None if pd.isna(classifier) else classifier, track
        tables[key] = part.reset_index(drop=True)
    return tables
