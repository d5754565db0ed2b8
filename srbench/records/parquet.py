"""Parquet files of a cell, read with one sentence for what is missing or damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from srbench.errors import RecordError, one_line
from srbench.files.atomic import write_bytes
from srbench.files.regular import open_regular, read_regular

_DAMAGED = (OSError, ValueError, KeyError, MemoryError, OverflowError, pa.ArrowException)  # what Arrow raises


def write_table(path: Path, table: pa.Table, *, compression: str, rows_a_group: int | None = None) -> None:
    """Write a file atomically, with a checksum a page.

    Raises:
        RecordError: As `write_bytes`.
    """
    options = {"compression": compression, "row_group_size": rows_a_group, "write_page_checksum": True}
    write_bytes(path, lambda file: pq.write_table(table, file, **options))


def read_table(path: Path, columns: Sequence[str] | None = None, *, sha256: str | None = None) -> pa.Table:
    """Read a file; `columns` reads only those, and leaves out those that it lacks.

    Args:
        path: The file.
        columns: Their names; None reads all.
        sha256: Hexadecimal hash that the whole file must have; None compares the pages' own checksums alone, which do
            not cover the file's footer.

    Raises:
        RecordError: If the file is missing or damaged.
    """
    try:
        content = read_regular(path)
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise OSError("it is not the file that its record was made with")
        # ParquetFile, not read_table: the latter would take "task=x" in the path for a partition. And the content,
        # since a path that begins with "~" or holds ":" is a URI to Arrow.
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            known = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
            return file.read(columns=known)
    except _DAMAGED as error:
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
        with open_regular(path) as stream:
            schema = pq.read_schema(stream)
            list(schema.names)  # which are decoded only when they are asked for
            return schema
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> RecordError:
    if isinstance(error, PermissionError):
        return RecordError(f"{path} cannot be read: {error.strerror}; check its permissions")
    return RecordError(f"{path} is missing or damaged ({one_line(error)}); run the evaluation again with --force")
