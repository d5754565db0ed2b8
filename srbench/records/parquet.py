"""Parquet files of a cell, read with one sentence for what is missing or damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from srbench.errors import RecordError


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a file; `columns` reads only those, and leaves out those that it lacks.

    Raises:
        RecordError: If the file is missing or damaged.
    """
    try:
        # ParquetFile, not read_table: the latter would take "task=x" in the path for a partition.
        with pq.ParquetFile(path) as file:
            known = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
            return file.read(columns=known)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def column_names(path: Path) -> list[str]:
    """Return the names of a file's columns, in their order.

    Raises:
        RecordError: If the file is missing or damaged.
    """
    return list(_schema(path).names)


def read_metadata(path: Path) -> Mapping[bytes, bytes]:
    """Return what was stored beside the columns.

    Raises:
        RecordError: If the file is missing or damaged.
    """
    return _schema(path).metadata or {}


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> RecordError:
    return RecordError(f"{path} is missing or damaged ({error}); run the evaluation again with --force")
