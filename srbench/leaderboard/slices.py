"""What ranks the rows, by slice of the images: by size, camera, quality, or whatever a column of `--meta` says."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.errors import UnknownNameError
from srbench.leaderboard.pairing import aligned, newest_cells, paired_groups
from srbench.leaderboard.rows import Row
from srbench.metrics.catalogue import metric, metrics_of
from srbench.metrics.stats import LEVEL, bootstrap_means
from srbench.metrics.values import counted
from srbench.records.cells import StoredCell
from srbench.records.sample_columns import OWN_COLUMNS, read_columns
from srbench.task_types import Interval, TaskType, put_interval, task_type

BINS = 4  # into which a column of many numbers is cut, at its quantiles
MOST_VALUES = 12  # of a column of text; the rarest beyond them are one slice
OTHERS = "others"


@dataclass(frozen=True)
class Slice:
    """Some of the images.

    Attributes:
        name: What they have in common, as the heading of a column: "canon", "24 to 60".
        n: How many they are.
    """

    name: str
    n: int


@dataclass(frozen=True)
class SlicedRow:
    """A row with its value on each slice.

    Attributes:
        row: The row.
        values: The metric by name of the slice.
        ci: Its 95 % interval by name of the slice, images resampled within it, the same draws for all rows.
    """

    row: Row
    values: Mapping[str, float]
    ci: Mapping[str, Interval]


@dataclass(frozen=True)
class SliceTable:
    """The rows of one task and network by the slices of one column.

    Attributes:
        task: Id of the task.
        classifier: Id of the network behind, or None.
        column: Name of the column.
        metric: Name of what is averaged: what ranks the rows where that is a mean, else PSNR.
        numeric: Whether the slices are ranges of a number.
        n_missing: Images without a value in this column.
        slices: The slices, in order.
        rows: The rows that are ok, in the order of the leaderboard.
    """

    task: str
    classifier: str | None
    column: str
    metric: str
    numeric: bool
    n_missing: int
    slices: tuple[Slice, ...]
    rows: tuple[SlicedRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Return its entry in leaderboard.json."""
        return {
            "task": self.task,
            "classifier": self.classifier,
            "column": self.column,
            "metric": self.metric,
            "n_missing": self.n_missing,
            "slices": [{"name": each.name, "n": each.n} for each in self.slices],
            "rows": [
                {
                    "method": row.row.method,
                    "weights": row.row.weights,
                    "track": row.row.track,
                    "values": dict(row.values),
                    "ci": {name: list(ends) for name, ends in row.ci.items()},
                }
                for row in self.rows
            ],
        }


def slice_tables(
    cells: Iterable[StoredCell], rows: Sequence[Row], *, columns: Sequence[str] | None, draws: int, seed: int
) -> list[SliceTable]:
    """Return the tables of every task and network by every column.

    Args:
        cells: The cells of the leaderboard.
        rows: Its rows.
        columns: Names of columns; None takes those that came with `--meta`.
        draws: Bootstrap draws.
        seed: Seed of the draws.

    Raises:
        UnknownNameError: If no task has a column of that name.
        RecordError: If a file cannot be read.
    """
    kept, _ = newest_cells(cells)
    found: list[SliceTable] = []
    known: dict[str, None] = {}
    for task in dict.fromkeys(row.task for row in rows):
        ours = [cell for cell in kept if cell.record.cell.task == task and cell.record.status == "ok"]
        frames = [frame for cell in ours[:1] if (frame := read_columns(cell.folder.parent.parent)) is not None]
        for frame in frames:
            present = [name for name in frame.columns if name != "sample_id"]
            known |= dict.fromkeys(present)
            wanted = [name for name in present if name not in OWN_COLUMNS] if columns is None else columns
            for classifier in dict.fromkeys(row.classifier for row in rows if row.task == task):
                group = [cell for cell in ours if cell.record.cell.classifier == classifier]
                chosen = [name for name in wanted if name in present]
                if chosen and group:
                    found += _tables(group, rows, frame[["sample_id", *chosen]], draws=draws, seed=seed)
    for name in columns or ():
        if name not in known:
            raise UnknownNameError("column to slice by", name, list(known))
    return found


def _tables(
    cells: Sequence[StoredCell], rows: Sequence[Row], frame: pd.DataFrame, *, draws: int, seed: int
) -> list[SliceTable]:
    """Return the tables of one task and network: of the full cells, or of partial ones where there are no others."""
    cells = max(paired_groups(cells), key=lambda group: (not group[0].record.partial, len(group)))
    record = cells[0].record
    asked = task_type(record.dataset.task_type)
    candidates = _metrics(record.cell.classifier, asked)
    ids = cells[0].samples(["sample_id"])["sample_id"]
    by_key = {row.cell_key: row for row in rows}
    known: list[tuple[Row, dict[str, NDArray[np.floating]]]] = []
    for cell, samples in zip(cells, aligned(cells, asked), strict=True):
        key = cell.record.cell
        row = by_key.get((key.task, key.method, key.weights, key.classifier, key.track))
        columns = {each: samples.floats.get(column) for each, column in candidates.items()}
        if row is not None:
            known.append((row, {each: v for each, v in columns.items() if v is not None and np.isfinite(v).any()}))
    name = next((each for each in candidates if any(each in held for _, held in known)), "psnr")
    found = [(row, counted(held[name], metric(name).cap)) for row, held in known if name in held]
    place = {id(row): at for at, row in enumerate(rows)}
    found.sort(key=lambda item: place[id(item[0])])
    tables = []
    for header in frame.columns[1:]:
        texts = frame.set_index("sample_id")[header].reindex(ids).to_list()
        slices, numeric = cut(texts)
        sliced = [SlicedRow(row, {}, {}) for row, _ in found]
        for label, members in slices.items():
            part = [values[members] for _, values in found]
            means = bootstrap_means(part, draws=draws, seed=seed) if part else np.empty((0, 0))
            for at, each in enumerate(sliced):
                value = float(np.nanmean(part[at])) if np.isfinite(part[at]).any() else math.nan
                ci = dict(each.ci)
                if math.isfinite(value):
                    put_interval(ci, label, means[:, at], LEVEL)
                    sliced[at] = SlicedRow(each.row, {**each.values, label: value}, ci)
        counts = tuple(Slice(label, len(members)) for label, members in slices.items())
        missing = sum(text is None for text in texts)
        tables.append(
            SliceTable(record.cell.task, record.cell.classifier, header, name, numeric, missing, counts, tuple(sliced))
        )
    return tables


def _metrics(classifier: str | None, asked: TaskType) -> dict[str, str]:
    """Return what may be averaged, what ranks the rows first: metrics with the column that holds a sample's share."""
    averaged = {
        info.name: info.name if info.value is not None else info.columns[-1].name
        for info in metrics_of(asked.name)
        if info.averaged
    }
    names = [*(() if classifier is None else (name for name in asked.ranks if name in averaged)), "psnr"]
    return {name: averaged[name] for name in names}


def cut(texts: Sequence[str | None]) -> tuple[dict[str, NDArray[np.int64]], bool]:
    """Cut samples into slices by their text: positions by name, and whether the slices are ranges of a number.

    Up to `MOST_VALUES` different texts are slices of their own, numbers in their order, words in that of the alphabet;
    of more words the rarest are one slice, more numbers are cut at their quantiles. None is in no slice.
    """
    present = [text for text in texts if text is not None]
    numbers = [_number(text) for text in present]
    numeric = bool(numbers) and None not in numbers
    counts = Counter(present)
    if numeric and len(set(numbers)) > MOST_VALUES // 2:
        return _bins(texts), True
    if len(counts) > MOST_VALUES:
        kept = sorted(counts, key=lambda text: (-counts[text], text))[: MOST_VALUES - 1]
        named = [text if text is None or text in kept else OTHERS for text in texts]
    else:
        named = list(texts)
    order = sorted({text for text in named if text is not None}, key=lambda text: _place(text, numeric))
    array = np.array([text if text is not None else "" for text in named], dtype=object)
    there = np.array([text is not None for text in named], dtype=bool)
    return {text: np.flatnonzero(there & (array == text)) for text in order}, False


def _bins(texts: Sequence[str | None]) -> dict[str, NDArray[np.int64]]:
    values = np.array([math.nan if text is None else float(text) for text in texts])
    known = values[np.isfinite(values)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1), method="higher"))
    slices: dict[str, NDArray[np.int64]] = {}
    for low, high in itertools.pairwise(edges):
        last = high == edges[-1]
        inside = (values >= low) & ((values <= high) if last else (values < high))
        slices[f"{low:g} to {high:g}" if last else f"{low:g} to <{high:g}"] = np.flatnonzero(inside)
    return slices


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _place(text: str, numeric: bool) -> tuple[bool, float, str]:
    return text == OTHERS, float(text) if numeric and text != OTHERS else 0.0, text
