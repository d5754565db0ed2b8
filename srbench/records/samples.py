"""The samples of a cell: one parquet row a sample, in columns of fixed types."""

from __future__ import annotations

import base64
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from srbench.errors import RecordError
from srbench.metrics.catalogue import column_types, metrics_of
from srbench.records.parquet import read_metadata, read_table, write_table
from srbench.records.schema import MAX_SCORE_CLASSES

_LISTS = {"int32[]": pa.list_(pa.int32()), "float32[]": pa.list_(pa.float32())}


def _of_kind(kind: str) -> pa.DataType:
    return _LISTS[kind] if kind in _LISTS else pa.type_for_alias(kind)


# Columns of every file, null where they do not apply; what other task types add is stored only where it is given.
SAMPLE_COLUMNS: Mapping[str, pa.DataType] = {
    "position": pa.int32(),
    "sample_id": pa.string(),
    **{column.name: _of_kind(column.type) for info in metrics_of("classification") for column in info.columns},
}
_ROW_GROUP = 2**16  # rows that are compressed together: what writing holds in memory does not grow with the samples
_SUMS_KEY = b"srbench.sums"
# what a column that a task adds may be
_ADDED_TYPES = (pa.int32(), pa.bool_(), pa.float32(), pa.string(), *_LISTS.values())


def samples_frame(columns: Mapping[str, Any], *, scores: np.ndarray | None = None) -> pd.DataFrame:
    """Return a frame of samples with every column in its stored dtype; what is not given is null.

    Args:
        columns: Arrays or lists by name, of `SAMPLE_COLUMNS` or of the columns that metrics in
            `srbench.metrics.catalogue` are computed from; "position" and "sample_id" are required.
        scores: `(N, K)` float32 probabilities, [0, 1], for at most 50 classes; they become score_000, score_001, ...

    Raises:
        RecordError: If a column is unknown, missing, or of another length.
    """
    added = {name: _of_kind(kind) for name, kind in column_types().items() if name not in SAMPLE_COLUMNS}
    unknown = sorted(set(columns) - set(SAMPLE_COLUMNS) - set(added))
    if unknown:
        raise RecordError(f"samples have no column {unknown[0]!r}; known: {', '.join([*SAMPLE_COLUMNS, *added])}")
    for name in ("position", "sample_id"):
        if columns.get(name) is None:
            raise RecordError(f"samples need the column {name!r}, got {sorted(columns)}")
    n = len(columns["position"])
    data: dict[str, Any] = {}
    wanted = {**SAMPLE_COLUMNS, **{name: kind for name, kind in added.items() if name in columns}}
    for name, kind in wanted.items():
        values = columns.get(name)
        if values is None:
            values = [None] * n
        elif len(values) != n:
            raise RecordError(f"samples: column {name!r} has {len(values)} rows, 'position' has {n}")
        data[name] = pd.Series(values, dtype=_pandas_dtype(name, kind))
    if scores is not None:
        scores = np.asarray(scores, dtype=np.float32)
        if scores.ndim != 2 or scores.shape[0] != n or scores.shape[1] > MAX_SCORE_CLASSES:
            raise RecordError(f"scores must have shape ({n}, at most {MAX_SCORE_CLASSES}), got {scores.shape}")
        data.update({f"score_{k:03d}": scores[:, k] for k in range(scores.shape[1])})
    return pd.DataFrame(data)


def score_columns(names: Iterable[str]) -> list[str]:
    """Return the score columns among column names, in order of class."""
    return sorted(name for name in names if re.fullmatch(r"score_\d{3}", name))


def write_samples(path: Path, frame: pd.DataFrame, *, sums: Mapping[str, Any] | None = None) -> None:
    """Write samples atomically as zstd parquet; `sums` are arrays kept in the file's metadata.

    Raises:
        RecordError: As `write_bytes`, or if a column is missing or unknown.
    """
    scores = score_columns(frame.columns)
    added = [name for name in frame.columns if name not in SAMPLE_COLUMNS and name not in scores]
    if list(frame.columns) != [*SAMPLE_COLUMNS, *added, *scores]:
        wrong = sorted(set(SAMPLE_COLUMNS) - set(frame.columns)) or ["their order"]
        raise RecordError(
            f"{path}: samples differ from the expected columns in {wrong[0]}; build them with samples_frame"
        )
    types = {
        **SAMPLE_COLUMNS,
        **{name: _arrow_type(frame[name]) for name in added},
        **dict.fromkeys(scores, pa.float32()),
    }
    schema = pa.schema(list(types.items()))
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    table = table.replace_schema_metadata({_SUMS_KEY: _pack(sums)} if sums else None)
    write_table(path, table, compression="zstd", rows_a_group=_ROW_GROUP)


# What reading a damaged archive of arrays raises.
_DAMAGED = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


def read_samples(path: Path, columns: Sequence[str] | None = None, *, sha256: str | None = None) -> pd.DataFrame:
    """Read samples in order of position; `columns` reads only those, `sha256` is what the whole file must have.

    Raises:
        RecordError: If the file is missing or damaged, or lacks a column that no metric is computed from.
    """
    return in_order([samples_table(path, columns, sha256=sha256)], columns)


def read_sums(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays that `write_samples` was given as `sums`.

    Raises:
        RecordError: If the file is missing or damaged.
    """
    text = read_metadata(path).get(_SUMS_KEY)
    if not text:
        return {}
    try:
        with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except _DAMAGED as error:
        raise RecordError(f"{path} has damaged sums ({error}); run the evaluation again with --force") from None


def samples_table(path: Path, columns: Sequence[str] | None, *, sha256: str | None = None) -> pa.Table:
    """Read samples, positions always among them, in the order of the file.

    A column of a metric that came after the file was written is null.

    Raises:
        RecordError: If the file is missing or damaged, or lacks a column that no metric is computed from, or has one
            of another type.
    """
    wanted = None if columns is None else list(dict.fromkeys(["position", *columns]))
    table = read_table(path, wanted, sha256=sha256)
    if len(set(table.column_names)) != len(table.column_names):
        raise RecordError(f"{path} has a column twice; run the evaluation again with --force")
    for field in table.schema:
        added = [pa.float32()] if field.name in score_columns([field.name]) else _ADDED_TYPES
        expected = [SAMPLE_COLUMNS[field.name]] if field.name in SAMPLE_COLUMNS else added
        if field.type not in expected:
            raise RecordError(
                f"{path}: column {field.name!r} is of type {field.type}, expected {' or '.join(map(str, expected))};"
                " run the evaluation again with --force"
            )
    for name in ("position", "sample_id"):
        if name in table.column_names and table.column(name).null_count:
            raise RecordError(f"{path}: column {name!r} has gaps; run the evaluation again with --force")
    types = column_types()
    for name in sorted(set(wanted or SAMPLE_COLUMNS) - set(table.column_names)):
        if name not in types:
            raise RecordError(f"{path} lacks the column {name!r}; run the evaluation again with --force")
        table = table.append_column(name, pa.nulls(table.num_rows, _of_kind(types[name])))
    return table


def in_order(tables: Sequence[pa.Table], columns: Sequence[str] | None) -> pd.DataFrame:
    """Return the rows of tables as one frame in order of position.

    Arrow joins and sorts them: a column is copied to pandas only once, so that many rows take little more than they
    take in the frame itself.
    """
    table = pa.concat_tables(tables)
    position = table.column("position").to_numpy()
    if (np.diff(position) < 0).any():
        table = table.take(np.argsort(position, kind="stable"))
    names = table.column_names if columns is None else list(columns)
    return pd.DataFrame({name: _to_pandas(name, table.column(name)) for name in names}, copy=False)


def _pack(sums: Mapping[str, Any]) -> bytes:
    # Parquet's metadata is text; npz keeps dtype and shape.
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: np.asarray(values) for name, values in sums.items()})  # type: ignore[arg-type]
    return base64.b64encode(buffer.getvalue())


def _pandas_dtype(name: str, kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return np.dtype("object")
    if name == "position":
        return np.dtype("int32")
    nullable = {pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype(), pa.float32(): np.dtype("float32")}
    return nullable.get(kind, "str" if int(pd.__version__.split(".")[0]) >= 3 else "object")


def _arrow_type(column: pd.Series) -> pa.DataType:
    if (declared := column_types().get(str(column.name))) in _LISTS:
        return _LISTS[declared]
    for kind in _ADDED_TYPES:
        if column.dtype == _pandas_dtype("", kind):
            return kind
    raise RecordError(f"samples: column {column.name!r} is of type {column.dtype}; build it with samples_frame")


def _to_pandas(name: str, column: pa.ChunkedArray) -> pd.Series:
    if pa.types.is_list(column.type):
        return column.to_pandas()
    # A column keeps its dtype whether or not it happens to hold nulls, so that shards and whole files agree.
    return column.to_pandas(types_mapper={column.type: _pandas_dtype(name, column.type)}.get).astype(
        _pandas_dtype(name, column.type)
    )
