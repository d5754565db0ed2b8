"""What is known of each image beside its pixels: size and format, and the columns of a CSV that the user gives."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from srbench.data.hr_cache import HRStore
from srbench.errors import DataError
from srbench.files.paths import user_path
from srbench.files.regular import open_regular
from srbench.protocol import Protocol

_NAMED = 3


@dataclass(frozen=True)
class Metadata:
    """Columns of text about samples.

    Attributes:
        columns: Name of a column -> its text by sample id; "" where the cell is empty.
        origin: Name of the file.
    """

    columns: Mapping[str, Mapping[str, str]]
    origin: str

    @property
    def ids(self) -> list[str]:
        """Ids of the rows, in the order of the file."""
        return list(next(iter(self.columns.values())))


def read_metadata(path: Path, *, reserved: Collection[str]) -> Metadata:
    """Read a CSV: a line of headers, then one line a sample, whose id stands in the first column.

    Args:
        path: The file.
        reserved: Names of columns that srbench fills in itself.

    Raises:
        DataError: If the file cannot be read, holds no rows or no further column, names a column or an id twice, takes
            a reserved name, or a line has another number of cells than the headers.
    """
    origin = f"--meta {path}"
    try:
        with io.TextIOWrapper(open_regular(user_path(path)), encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file) if line]
    except OSError as error:
        raise DataError(f"{origin} cannot be read: {error.strerror or error}; check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{origin} is no CSV in UTF-8 ({error}); save it as one") from None
    if len(lines) < 2:
        what = "is empty" if not lines else "holds headers alone"
        raise DataError(
            f"{origin} {what}; expected a line of headers and one line a sample, its id in the first column"
        )
    headers = [header.strip() for header in lines[0]]
    names = headers[1:]
    if not names:
        raise DataError(f"{origin} has one column alone; the ids come first, then at least one column to slice by")
    for name in names:
        if not name or headers.count(name) > 1:
            raise DataError(f"{origin} has {f'two columns {name!r}' if name else 'a column without a name'}; rename it")
        if name in reserved:
            raise DataError(f"{origin} has a column {name!r}, which srbench fills in itself; rename it")
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(headers):
            raise DataError(
                f"{origin}, row {number} has {len(line)} cells, but there are {len(headers)} headers; mend it"
            )
        if line[0] in rows:
            raise DataError(f"{origin} names the sample {line[0]!r} twice (row {number}); keep one of the rows")
        rows[line[0]] = [cell.strip() for cell in line[1:]]
    columns = {name: {each: cells[at] for each, cells in rows.items()} for at, name in enumerate(names)}
    return Metadata(columns, path.name)


def check_ids(metadata: Metadata, ids: Sequence[str], *, spec: str) -> list[str]:
    """Say in sentences which samples have no row and which rows have no sample.

    A file may describe more images than the split that is scored, so neither is refused unless nothing fits.

    Raises:
        DataError: If no row names a sample.
    """
    known, named = set(ids), set(metadata.ids)
    missing = [each for each in ids if each not in named]
    unknown = [each for each in metadata.ids if each not in known]
    if len(missing) == len(known):
        raise DataError(
            f"--meta {metadata.origin}: none of its {len(named)} ids, such as {unknown[0]!r}, is a sample of {spec},"
            f" whose ids are like {ids[0]!r}; the first column holds the path of each image below the data's folder"
        )
    lines = []
    if missing:
        lines.append(
            f"--meta {metadata.origin} has no row for {len(missing)} of {len(known)} images ({_some(missing)});"
            " they are in no slice"
        )
    if unknown:
        lines.append(
            f"--meta {metadata.origin} names {len(unknown)} images that are not scored here ({_some(unknown)})"
        )
    return lines


def sample_columns(hr_store: HRStore, protocol: Protocol, metadata: Metadata | None) -> dict[str, list[str | None]]:
    """Return every column of the samples of a store, in their order: its own ones, then those of a file.

    Sides are the shortest, in pixels: of the source, of HR and of LR.
    """
    ids = [sample.id for sample in hr_store.samples]
    lr_shapes = hr_store.lr_shapes
    lr = lr_shapes if lr_shapes is not None else [protocol.lr.lr_size(*map(int, shape)) for shape in hr_store.shapes]
    columns: dict[str, list[str | None]] = {
        "hr_side": [str(min(map(int, shape))) for shape in hr_store.shapes],
        "lr_side": [str(min(map(int, shape))) for shape in lr],
        "source_side": [str(min(map(int, shape))) for shape in hr_store.source_shapes],
        "format": [_format(each) for each in ids],
        "channels": [str(int(count)) for count in hr_store.stored_channels],
    }
    for name, texts in (metadata.columns if metadata is not None else {}).items():
        columns[name] = [texts.get(each) or None for each in ids]
    return {"sample_id": [*ids], **columns}


def _format(sample_id: str) -> str | None:
    suffix = PurePosixPath(sample_id).suffix.lower().lstrip(".")
    return {"jpg": "jpeg", "jfif": "jpeg", "tif": "tiff"}.get(suffix, suffix) or None


def _some(items: Sequence[str]) -> str:
    more = ", ..." if len(items) > _NAMED else ""
    return ", ".join(items[:_NAMED]) + more
