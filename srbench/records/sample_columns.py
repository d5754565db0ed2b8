"""Columns about the samples of a task, one file beside its records: what slices are cut by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from srbench.files.atomic import write_bytes
from srbench.records.cells import safe_name
from srbench.records.parquet import read_table

FILE = "columns.parquet"
# What every task's file has: shortest sides in pixels, format and channels of the files. The others are --meta's.
OWN_COLUMNS = ("hr_side", "lr_side", "source_side", "format", "channels")


def write_columns(root: Path, task: str, columns: Mapping[str, Sequence[str | None]]) -> None:
    """Write columns of text, "sample_id" among them, beside the records of a task, unless they are there already.

    Columns of an earlier `--meta` that these do not have stay.

    Raises:
        RecordError: If the disk fails.
    """
    path = root / "records" / safe_name(task) / FILE
    frame = pd.DataFrame({name: pd.Series(list(values), dtype="object") for name, values in columns.items()})
    before = read_columns(path.parent)
    if before is not None and list(before["sample_id"]) == list(frame["sample_id"]):
        for name in before.columns.difference(frame.columns, sort=False):
            frame[name] = before[name]
        if set(frame.columns) == set(before.columns) and frame.equals(before[list(frame.columns)]):
            return
    table = pa.table({name: pa.array(frame[name], pa.string(), from_pandas=True) for name in frame.columns})
    write_bytes(path, lambda stream: pq.write_table(table, stream))


def read_columns(folder: Path) -> pd.DataFrame | None:
    """Read the columns of a task from the folder of its records; None where there are none.

    Raises:
        RecordError: If the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    table = read_table(path, None)
    return pd.DataFrame({name: pd.Series(table[name].to_pylist(), dtype="object") for name in table.column_names})
