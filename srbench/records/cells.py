"""Cells on disk: one folder a cell, committed whole, found again.

    <root>/records/<task>/<classifier>/<method>@<weights>/record.json
                                                          samples.parquet
                                                          thumbnails.parquet
                                                          .partial/<input hash>/rows-<first>-<stop>.parquet
    <root>/records/<task>/<classifier>/<method>@<weights>@<input size>px/...   at another input size than the protocol's
    <root>/records/<task>/<classifier>/<method>@<weights>[@<input size>px]@<runtime>/...   as an exported file

`commit_cell` takes the old record away before it writes new samples and writes the new record last, so that no reader
ever meets a record with missing or foreign samples.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from srbench.errors import RecordError, UsageError
from srbench.files.atomic import write_error, write_text
from srbench.files.paths import user_path
from srbench.files.regular import read_regular
from srbench.files.strict import json_text
from srbench.records.parquet import column_names
from srbench.records.samples import read_samples, score_columns, write_samples
from srbench.records.schema import Record
from srbench.records.shards import PARTIAL_FOLDER, discard_partial, partial_folder
from srbench.records.thumbnails import THUMBNAILS_FILE, read_thumbnails

RECORD_FILE = "record.json"
SAMPLES_FILE = "samples.parquet"
NO_CLASSIFIER = "no-classifier"
NO_WEIGHTS = "none"


@dataclass(frozen=True)
class StoredCell:
    """A record on disk, with its samples within reach."""

    folder: Path
    record: Record

    def samples(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read the samples, in order of position; `columns` reads only those.

        Raises:
            RecordError: If the file is missing or damaged, or has another number of samples than the record says.
        """
        frame = read_samples(self.folder / SAMPLES_FILE, columns, sha256=self.record.samples_sha256)
        if len(frame) != self.record.dataset.n:
            raise RecordError(
                f"{self.folder / SAMPLES_FILE} has {len(frame)} samples, its record says {self.record.dataset.n};"
                " run the evaluation again with --force"
            )
        return frame

    def score_columns(self) -> list[str]:
        """Name the columns of the samples that hold the scores, in order of class; none where there are many classes.

        Raises:
            RecordError: If the file is missing or damaged.
        """
        return score_columns(column_names(self.folder / SAMPLES_FILE))

    def thumbnails(self) -> dict[int, dict[str, np.ndarray]]:
        """Read the pixels that were kept: position of the sample -> name of the image -> `(H, W, C)`, RGB, uint8.

        The oracle's cell has "hr" and, at LR size, "lr"; the others have "sr", as the classifier saw it. Empty where
        nothing was kept.

        Raises:
            RecordError: If the file is damaged.
        """
        return read_thumbnails(self.folder / THUMBNAILS_FILE)


def cell_folder(
    root: Path | str,
    task: str,
    classifier: str | None,
    method: str,
    weights: str | None,
    input_size: int | None = None,
    runtime: str | None = None,
) -> Path:
    """Return the folder of a cell below an --out directory; different cells never share one."""
    size = "" if input_size is None else f"@{input_size}px"
    ran = "" if runtime is None else f"@{safe_name(runtime)}"
    return (
        Path(root)
        / "records"
        / safe_name(task)
        / safe_name(classifier, missing=NO_CLASSIFIER)
        / f"{safe_name(method)}@{safe_name(weights, missing=NO_WEIGHTS)}{size}{ran}"
    )


def safe_name(name: str | None, *, missing: str = "") -> str:
    """Return a name that any file system takes; a name that had to be changed ends in "~" and a hash of itself.

    Where there is no name it is `missing`; a name that happens to be `missing` is changed.

    The tilde is not a safe character, so no unchanged name can equal a changed one. Upper case counts as a change,
    because some file systems do not tell it from lower case.
    """
    if name is None:
        return missing
    kept = re.sub(r"[^a-z0-9._+=-]+", "-", name.lower()).lstrip(".").rstrip(".")[:100]
    device = kept.split(".")[0] in {
        "con",
        "prn",
        "aux",
        "nul",
        *(f"{p}{i}" for p in ("com", "lpt") for i in range(1, 10)),
    }
    if kept == name and kept and not device and name != missing:
        return name
    return f"{'_' if device else ''}{kept}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def commit_cell(folder: Path, record: Record, samples: pd.DataFrame | None) -> StoredCell:
    """Store a finished cell: samples, then the record, then the shards go.

    A failed cell keeps the shards of its own inputs, so that the next run goes on after them.

    Raises:
        RecordError: If an ok record comes without samples or with another number of them, or the disk fails.
    """
    if (record.status == "ok") != (samples is not None):
        raise RecordError(f"{folder}: a record has samples if and only if it is ok, got status {record.status!r}")
    if samples is not None and len(samples) != record.dataset.n:
        raise RecordError(f"{folder}: the record says n = {record.dataset.n}, but there are {len(samples)} samples")
    fields = record.to_json()
    json_text(fields)  # a record that cannot be written must not take the old one away
    try:
        (folder / RECORD_FILE).unlink(missing_ok=True)
        (folder / THUMBNAILS_FILE).unlink(missing_ok=True)
        if samples is None:
            (folder / SAMPLES_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder / RECORD_FILE, error) from error
    if samples is not None:
        write_samples(folder / SAMPLES_FILE, samples)
        record = replace(record, samples_sha256=_sha256(folder / SAMPLES_FILE))
    write_text(folder / RECORD_FILE, json_text(fields | {"samples_sha256": record.samples_sha256}))
    if record.status == "error":
        for other in (folder / PARTIAL_FOLDER).glob("*"):
            if other != partial_folder(folder, record.input_hash):
                shutil.rmtree(other, ignore_errors=True)
    else:
        discard_partial(folder)
    return StoredCell(folder, record)


def load_cell(folder: Path) -> StoredCell:
    """Read the record of a cell's folder.

    Raises:
        RecordError: If it is missing, damaged, of an unknown schema version, or its samples are missing.
    """
    path = folder / RECORD_FILE
    try:
        text = read_regular(path)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}; run the evaluation again") from error
    record = Record.from_json(text, origin=str(path))
    if record.status == "ok" and not (folder / SAMPLES_FILE).is_file():
        raise RecordError(f"{folder} has a record but no {SAMPLES_FILE}; run the evaluation again")
    return StoredCell(folder, record)


def is_fresh(folder: Path, input_hash: str) -> bool:
    """Say whether a cell is stored, ok or skipped, for exactly these inputs, and its samples are as they were."""
    try:
        record = load_cell(folder).record
    except RecordError:
        return False
    if record.input_hash != input_hash or record.status not in ("ok", "skipped"):
        return False
    return record.samples_sha256 is None or record.samples_sha256 == _sha256(folder / SAMPLES_FILE)


def status_of(folder: Path) -> str | None:
    """Return the status of a stored cell; None where there is none that can be read."""
    try:
        return load_cell(folder).record.status
    except RecordError:
        return None


def find_records(folders: Iterable[Path | str]) -> tuple[list[StoredCell], list[str]]:
    """Find every record below --out directories; return them with one sentence for each that is damaged.

    Raises:
        UsageError: If a folder does not exist, or none of them holds a record, damaged or not.
    """
    given = [user_path(folder) for folder in folders]
    cells: list[StoredCell] = []
    problems: list[str] = []
    for folder in given:
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}; give a directory that 'srbench eval --out' wrote")
        for path in _record_files(folder, problems):
            try:
                cells.append(load_cell(path.parent))
            except RecordError as error:
                problems.append(str(error))
    if not cells and not problems:
        names = ", ".join(map(str, given))
        raise UsageError(f"there are no records in {names}; give a directory that 'srbench eval --out' wrote")
    return cells, problems


def _sha256(path: Path) -> str:
    """Hash a file of samples.

    Raises:
        RecordError: If it cannot be read.
    """
    try:
        return hashlib.sha256(read_regular(path)).hexdigest()
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}; run the evaluation again") from error


def _record_files(folder: Path, problems: list[str]) -> list[Path]:
    """List the records below a folder; add a sentence to the problems for each folder that cannot be read."""

    def unreadable(error: OSError) -> None:
        problems.append(
            f"the folder {error.filename} cannot be read: {error.strerror}; its records are left out,"
            " check its permissions"
        )

    # Other folders beside records/ (caches, pages) are not searched, nor are hidden ones.
    top = folder / "records" if (folder / "records").is_dir() else folder
    found = []
    for here, folders, files in os.walk(top, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if RECORD_FILE in files:
            found.append(Path(here, RECORD_FILE))
    return sorted(found)
