"""What ranks the rows, by slice of the images: by size, camera, quality, or whatever a column of `--meta` says."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.errors import UnknownNameError
from srbench.leaderboard.beside import RowBeside, TableBeside
from srbench.leaderboard.rows import Row, bare_row
from srbench.metrics.catalogue import metric
from srbench.metrics.stats import LEVEL, bootstrap_means
from srbench.metrics.values import counted
from srbench.records.cells import StoredCell
from srbench.records.sample_columns import OWN_COLUMNS, read_columns
from srbench.task_types import CellSamples, TaskType, put_interval
from srbench.task_types.paired import Column

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
class SliceTable(TableBeside):
    """The rows of one task and network by the slices of one column: what ranks them where that is a mean, else PSNR.

    Attributes:
        column: Name of the column.
        numeric: Whether the slices are ranges of a number.
        slices: The slices, in order.
        n_missing: Images without a value in this column.
        rows: The rows that are ok, in the order of the leaderboard, with a value for each slice; images are resampled
            within a slice, the same draws for all rows.
    """

    column: str
    numeric: bool
    slices: tuple[Slice, ...]
    n_missing: int
    rows: tuple[RowBeside, ...]

    def to_json(self) -> dict[str, Any]:
        """Return its entry in leaderboard.json."""
        return {
            **self.head(),
            "column": self.column,
            "n_missing": self.n_missing,
            "slices": [dataclasses.asdict(each) for each in self.slices],
            "rows": [row.to_json() for row in self.rows],
        }


def columns_by_task(cells: Iterable[StoredCell], columns: Sequence[str] | None) -> dict[str, pd.DataFrame]:
    """Return by task what its samples are cut by: "sample_id", and columns of text.

    Args:
        cells: The cells of a leaderboard.
        columns: Names of columns; None takes those that came with `--meta`.

    Raises:
        UnknownNameError: If no task has a column of that name.
        RecordError: If a file cannot be read.
    """
    first: dict[str, StoredCell] = {}
    for cell in cells:
        if cell.record.status == "ok":
            first.setdefault(cell.record.cell.task, cell)
    found: dict[str, pd.DataFrame] = {}
    known: dict[str, None] = {}
    for task, cell in first.items():
        frame = read_columns(cell.folder.parent.parent)
        if frame is None:
            continue
        present = [name for name in frame.columns if name != "sample_id"]
        known |= dict.fromkeys(present)
        wanted = [name for name in present if name not in OWN_COLUMNS] if columns is None else columns
        chosen = [name for name in wanted if name in present]
        if chosen:
            found[task] = frame[["sample_id", *chosen]]
    for name in columns or ():
        if name not in known:
            raise UnknownNameError("column to slice by", name, list(known))
    return found


def slice_tables(
    cells: Sequence[CellSamples],
    ids: pd.Series,
    rows: Sequence[Row],
    frame: pd.DataFrame,
    task_type: TaskType,
    *,
    draws: int,
    seed: int,
) -> list[SliceTable]:
    """Return the tables of one task and network, one for each column.

    Args:
        cells: Samples of the cells of the protocol's own size, in one common order.
        ids: Their ids in this order.
        rows: The rows of the table.
        frame: What the samples are cut by, as `columns_by_task` returns it.
        task_type: Type of the task.
        draws: Bootstrap draws.
        seed: Seed of the draws.
    """
    key = cells[0].record.cell
    candidates = _metrics(key.classifier, task_type)
    by_key = {bare_row(cell.record).key: cell.floats for cell in cells}
    known: list[tuple[Row, dict[str, Column]]] = []
    for row in rows:
        floats = by_key.get(row.cell_key, {})
        held = {each: floats[column] for each, column in candidates.items() if column in floats}
        known.append((row, {each: values for each, values in held.items() if np.isfinite(values).any()}))
    name = next((each for each in candidates if any(each in held for _, held in known)), "psnr")
    found = [(row, counted(held[name], metric(name).cap)) for row, held in known if name in held]
    described = frame.set_index("sample_id").reindex(ids)
    tables = []
    for header in described.columns:
        texts = described[header].to_list()
        slices, numeric = cut(texts)
        sliced = [RowBeside(row, {}, {}) for row, _ in found]
        for label, members in slices.items():
            part = [values[members] for _, values in found]
            means = bootstrap_means(part, draws=draws, seed=seed) if part else np.empty((0, 0))
            for at, each in enumerate(sliced):
                value = float(np.nanmean(part[at])) if np.isfinite(part[at]).any() else math.nan
                ci = dict(each.ci)
                if math.isfinite(value):
                    put_interval(ci, label, means[:, at], LEVEL)
                    sliced[at] = RowBeside(each.row, {**each.values, label: value}, ci)
        counts = tuple(Slice(label, len(members)) for label, members in slices.items())
        missing = sum(text is None for text in texts)
        tables.append(SliceTable(key.task, key.classifier, name, header, numeric, counts, missing, tuple(sliced)))
    return tables


def _metrics(classifier: str | None, task_type: TaskType) -> dict[str, str]:
    """Return what may be averaged, what ranks the rows first: metrics with the column that holds a sample's share."""
    averaged = task_type.averaged()
    names = [*(() if classifier is None else (name for name in task_type.ranks if name in averaged)), "psnr"]
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
