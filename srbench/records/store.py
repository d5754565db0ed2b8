"""Where records live: one folder a cell, atomic files, and the shards that let a stopped run go on.

    <root>/records/<task>/<classifier>/<method>@<weights>/record.json
                                                          samples.parquet
                                                          kept.parquet
                                                          .partial/<input hash>/rows-<first>-<stop>.parquet

A file appears under its name only when it is complete. `commit_cell` takes the old record away before it writes new
samples and writes the new record last, so that no reader ever meets a record with missing or foreign samples.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from srbench.errors import RecordError, UsageError
from srbench.records.schema import MAX_SCORE_CLASSES, Record, json_text

RECORD_FILE = "record.json"
SAMPLES_FILE = "samples.parquet"
KEPT_FILE = "kept.parquet"
PARTIAL_FOLDER = ".partial"
NO_CLASSIFIER = "no-classifier"
NO_WEIGHTS = "none"

SAMPLE_COLUMNS: Mapping[str, pa.DataType] = {
    "position": pa.int32(),
    "sample_id": pa.string(),
    "label": pa.int32(),
    "pred": pa.int32(),
    "hr_pred": pa.int32(),
    "confidence": pa.float32(),
    "top5_hit": pa.bool_(),
    "cross_entropy": pa.float32(),
    "mse": pa.float32(),
    "psnr": pa.float32(),
    "ssim": pa.float32(),
    "logit_mse_to_hr": pa.float32(),
    "kl_to_hr": pa.float32(),
}
_ROW_GROUP = 2**16  # rows that are compressed together: what writing holds in memory does not grow with the samples
_SUMS_KEY = b"srbench.sums"
_KEPT_KEY = b"srbench.kept"
_KEPT_SCHEMA = pa.schema([("position", pa.int32()), ("name", pa.string()), ("png", pa.binary())])
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")


@dataclass(frozen=True)
class StoredCell:
    """A record on disk, with its samples within reach."""

    folder: Path
    record: Record

    def samples(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read the samples, in order of position; `columns` reads only those.

        Raises:
            RecordError: If the file is missing or damaged.
        """
        return read_samples(self.folder / SAMPLES_FILE, columns)

    def score_columns(self) -> list[str]:
        """Name the columns of the samples that hold the scores, in order of class; none where there are many classes.

        Raises:
            RecordError: If the file is missing or damaged.
        """
        return score_columns(_column_names(self.folder / SAMPLES_FILE))

    def kept(self) -> dict[int, dict[str, np.ndarray]]:
        """Read the pixels that were kept: position of the sample -> name of the image -> `(H, W, C)`, RGB, uint8.

        The oracle's cell has "hr" and, at LR size, "lr"; the others have "sr", as the classifier saw it. Empty where
        nothing was kept.

        Raises:
            RecordError: If the file is damaged.
        """
        return read_kept(self.folder / KEPT_FILE)


# --- folders -----------------------------------------------------------------------------------------------------


def cell_folder(root: Path | str, task: str, classifier: str | None, method: str, weights: str | None) -> Path:
    """Return the folder of a cell below an --out directory; different cells never share one."""
    return (
        Path(root)
        / "records"
        / safe_name(task)
        / safe_name(classifier, missing=NO_CLASSIFIER)
        / f"{safe_name(method)}@{safe_name(weights, missing=NO_WEIGHTS)}"
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


def check_out_dir(path: Path | str) -> None:
    """Refuse an --out that cannot become a folder.

    Raises:
        UsageError: If it is, or lies under, a regular file, or its nearest existing folder is not writable.
    """
    path = Path(path)
    nearest = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        relation = "is" if nearest == path else "lies under"
        raise UsageError(
            f"--out {path} {relation} {nearest}, which is not a folder; choose another place with --out DIR"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"--out {path}: no permission to write in {nearest}; choose another place with --out DIR")


# --- atomic files ------------------------------------------------------------------------------------------------


def write_bytes(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file atomically: `write` fills a temporary file beside it, which is synced and then renamed.

    Raises:
        RecordError: If the disk is full, read-only, or fails otherwise; nothing half-written stays under `path`.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise _write_error(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Raises:
        RecordError: As `write_bytes`.
    """
    write_bytes(path, lambda file: _discard(file.write(text.encode())))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, never NaN.

    Raises:
        RecordError: As `write_bytes`, or if the value is not finite plain JSON; the file is then left as it was.
    """
    try:
        text = json_text(value)
    except RecordError as error:
        raise RecordError(f"{path} {error}") from None
    write_text(path, text)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RecordError: If it is missing, unreadable, or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise RecordError(
            f"{path} is damaged, it is not valid JSON ({error}); delete it and run the evaluation again"
        ) from None


def sweep(root: Path | str, *, older_than_s: float = 0.0) -> int:
    """Remove the temporary files that killed runs left below a folder; return how many.

    Call it before the run starts writing, from one process. Where other runs may be writing (a cache), files younger
    than `older_than_s` seconds stay.
    """
    removed = 0
    for path in Path(root).rglob(".*.tmp"):
        if _LEFTOVER.fullmatch(path.name) and path.is_file():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime >= older_than_s:
                    path.unlink(missing_ok=True)
                    removed += 1
    return removed


# --- samples -----------------------------------------------------------------------------------------------------


def samples_frame(columns: Mapping[str, Any], *, scores: np.ndarray | None = None) -> pd.DataFrame:
    """Return a frame of samples with every column in its stored dtype; what is not given is null.

    Args:
        columns: Arrays or lists by name of `SAMPLE_COLUMNS` or of what a kind of task adds to them, which is stored
            only where it is given; "position" and "sample_id" are required.
        scores: `(N, K)` float32 probabilities, [0, 1], for at most 50 classes; they become score_000, score_001, ...

    Raises:
        RecordError: If a column is unknown, missing, or of another length.
    """
    kinds = _kind_columns()
    unknown = sorted(set(columns) - set(SAMPLE_COLUMNS) - set(kinds))
    if unknown:
        raise RecordError(f"samples have no column {unknown[0]!r}; known: {', '.join([*SAMPLE_COLUMNS, *kinds])}")
    for name in ("position", "sample_id"):
        if columns.get(name) is None:
            raise RecordError(f"samples need the column {name!r}, got {sorted(columns)}")
    n = len(columns["position"])
    data: dict[str, Any] = {}
    wanted = {**SAMPLE_COLUMNS, **{name: kind for name, kind in kinds.items() if name in columns}}
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


def _kind_columns() -> Mapping[str, pa.DataType]:
    """Columns that only some kinds of task store, by name."""
    from srbench.task_types import task_type, task_type_names  # kinds read and write samples themselves

    owned = {name: kind for each in task_type_names() for name, kind in task_type(each).own_columns.items()}
    return {name: pa.type_for_alias(kind) for name, kind in owned.items()}


def score_columns(names: Iterable[str]) -> list[str]:
    """Return the score columns among column names, in order of class."""
    return sorted(name for name in names if re.fullmatch(r"score_\d{3}", name))


def write_samples(path: Path, frame: pd.DataFrame, *, sums: Mapping[str, Any] | None = None) -> None:
    """Write samples atomically as zstd parquet; `sums` are arrays kept in the file's metadata.

    Raises:
        RecordError: As `write_bytes`, or if a column is missing or unknown.
    """
    scores = score_columns(frame.columns)
    own = {name: kind for name, kind in _kind_columns().items() if name in frame}
    expected = [*SAMPLE_COLUMNS, *own, *scores]
    if list(frame.columns) != expected:
        wrong = sorted(set(frame.columns) ^ set(expected)) or ["their order"]
        raise RecordError(
            f"{path}: samples differ from the expected columns in {wrong[0]}; build them with samples_frame"
        )
    schema = pa.schema([*SAMPLE_COLUMNS.items(), *own.items(), *((name, pa.float32()) for name in scores)])
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    table = table.replace_schema_metadata({_SUMS_KEY: _pack(sums)} if sums else None)
    write_bytes(path, lambda file: pq.write_table(table, file, compression="zstd", row_group_size=_ROW_GROUP))


def read_samples(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read samples in order of position; `columns` reads only those.

    Raises:
        RecordError: If the file is missing or damaged, or lacks a column.
    """
    return _in_order([_samples_table(path, columns)], columns)


# --- kept pixels --------------------------------------------------------------------------------------------------


def write_kept(path: Path, images: Mapping[int, Mapping[str, np.ndarray]], *, key: str) -> None:
    """Write a few samples' images atomically, as lossless PNG; `key` says what they were made from.

    Args:
        path: The file.
        images: Position of the sample -> name of the image -> `(H, W, C)` uint8, C being 1 or 3.
        key: What `kept_key` returns.

    Raises:
        RecordError: As `write_bytes`.
    """
    places = [(position, name) for position, named in images.items() for name in named]
    with ThreadPoolExecutor() as pool:  # the encoder runs outside the interpreter's lock
        encoded = list(pool.map(_png, (images[position][name] for position, name in places)))
    columns = [[position for position, _ in places], [name for _, name in places], encoded]
    table = pa.table(dict(zip(_KEPT_SCHEMA.names, columns, strict=True)), schema=_KEPT_SCHEMA)
    table = table.replace_schema_metadata({_KEPT_KEY: key.encode()})
    write_bytes(path, lambda file: pq.write_table(table, file, compression="none"))


def read_kept(path: Path) -> dict[int, dict[str, np.ndarray]]:
    """Read what `write_kept` wrote; empty where there is no such file.

    Raises:
        RecordError: If it is damaged.
    """
    if not path.is_file():
        return {}
    found: dict[int, dict[str, np.ndarray]] = {}
    try:
        for line in _read_table(path, _KEPT_SCHEMA.names).to_pylist():
            with Image.open(io.BytesIO(line["png"])) as image:
                pixels = np.array(image)
            found.setdefault(line["position"], {})[line["name"]] = pixels.reshape(*pixels.shape[:2], -1)
    except (OSError, ValueError, KeyError, SyntaxError) as error:  # PIL calls a broken PNG a SyntaxError
        raise RecordError(f"{path} is damaged ({error}); delete it and run the evaluation again") from None
    return found


def kept_key(path: Path) -> str | None:
    """Return the key that kept pixels were written with; None where there are none or they are damaged."""
    try:
        return _read_metadata(path).get(_KEPT_KEY, b"").decode() or None
    except RecordError:
        return None


# --- shards of a running cell ------------------------------------------------------------------------------------


def write_shard(folder: Path, input_hash: str, frame: pd.DataFrame, *, sums: Mapping[str, Any] | None = None) -> Path:
    """Store finished rows of a running cell; return the file.

    Args:
        folder: The cell's folder.
        input_hash: Hash of the cell's inputs; rows of other inputs never mix with these.
        frame: Rows as `samples_frame` makes them, any subset of positions, none of which was written before.
        sums: Numbers or arrays that add up over the shards (seconds, histograms); `merged_sums` adds them.

    Raises:
        RecordError: If there is no row, or the disk fails.
    """
    if frame.empty:
        raise RecordError(f"{folder}: a shard needs at least one row")
    positions = frame["position"].to_numpy()
    name = f"rows-{int(positions.min()):08d}-{int(positions.max()) + 1:08d}.parquet"
    path = _partial(folder, input_hash) / name
    write_samples(path, frame, sums=sums)
    return path


def done_positions(folder: Path, input_hash: str) -> set[int]:
    """Return the positions that are already stored; a shard that cannot be read is removed, to be computed anew."""
    done: set[int] = set()
    for path in _shards(folder, input_hash):
        try:
            done.update(_read_table(path, ["position"]).column("position").to_pylist())
        except RecordError:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    return done


def merge(folder: Path, input_hash: str, positions: Iterable[int]) -> pd.DataFrame:
    """Return the rows of all shards in order of position: exactly `positions`, each once.

    Raises:
        RecordError: If a position is missing, stored twice, or not wanted.
    """
    shards = [_samples_table(path, None) for path in _shards(folder, input_hash)]
    wanted = np.unique(np.fromiter(positions, dtype=np.int64))
    if not shards:
        raise RecordError(f"{folder} has no stored rows to merge, expected {len(wanted)}; run the evaluation again")
    found = np.sort(np.concatenate([shard.column("position").to_numpy() for shard in shards]))
    if len(np.unique(found)) != len(found):
        twice = int(found[1:][found[1:] == found[:-1]][0])
        raise RecordError(f"{folder} stores position {twice} twice; run the evaluation again with --force")
    for verb, wrong in (
        ("lacks", np.setdiff1d(wanted, found)),
        ("has the unknown", np.setdiff1d(found, wanted)),
    ):
        if len(wrong):
            raise RecordError(
                f"{folder} {verb} position {int(wrong[0])} ({len(wrong)} in all); run the evaluation again"
            )
    return _in_order(shards, None)


def merged_sums(folder: Path, input_hash: str) -> dict[str, np.ndarray]:
    """Return the sums of all shards, added up by name."""
    total: dict[str, np.ndarray] = {}
    for path in _shards(folder, input_hash):
        for name, values in _unpack(_read_metadata(path).get(_SUMS_KEY)).items():
            total[name] = total[name] + values if name in total else values
    return total


def discard_partial(folder: Path) -> None:
    """Remove the shards of a cell, of whatever inputs (what `--force` does)."""
    shutil.rmtree(folder / PARTIAL_FOLDER, ignore_errors=True)


# --- cells -------------------------------------------------------------------------------------------------------


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
    text = json_text(record.to_json())
    try:
        (folder / RECORD_FILE).unlink(missing_ok=True)
        (folder / KEPT_FILE).unlink(missing_ok=True)
        if samples is None:
            (folder / SAMPLES_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise _write_error(folder / RECORD_FILE, error) from error
    if samples is not None:
        write_samples(folder / SAMPLES_FILE, samples)
    write_text(folder / RECORD_FILE, text)
    if record.status == "error":
        for other in (folder / PARTIAL_FOLDER).glob("*"):
            if other != _partial(folder, record.input_hash):
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
    record = Record.from_json(read_json(path), origin=str(path))
    if record.status == "ok" and not (folder / SAMPLES_FILE).is_file():
        raise RecordError(f"{folder} has a record but no {SAMPLES_FILE}; run the evaluation again")
    return StoredCell(folder, record)


def is_fresh(folder: Path, input_hash: str) -> bool:
    """Say whether a cell is stored, ok or skipped, for exactly these inputs."""
    try:
        record = load_cell(folder).record
    except RecordError:
        return False
    return record.input_hash == input_hash and record.status in ("ok", "skipped")


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
    given = [Path(folder) for folder in folders]
    cells, problems = [], []
    for folder in given:
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}; give a directory that 'srbench eval --out' wrote")
        for path in _record_files(folder):
            try:
                cells.append(load_cell(path.parent))
            except RecordError as error:
                problems.append(str(error))
    if not cells and not problems:
        names = ", ".join(map(str, given))
        raise UsageError(f"there are no records in {names}; give a directory that 'srbench eval --out' wrote")
    return cells, problems


# --- small parts -------------------------------------------------------------------------------------------------


def _record_files(folder: Path) -> list[Path]:
    # Other folders beside records/ (caches, pages) are not searched, nor are hidden ones.
    top = folder / "records" if (folder / "records").is_dir() else folder
    found = [(path, path.relative_to(top).parts) for path in top.rglob(RECORD_FILE)]
    return sorted(path for path, parts in found if not any(part.startswith(".") for part in parts))


def _partial(folder: Path, input_hash: str) -> Path:
    return folder / PARTIAL_FOLDER / input_hash[:16]


def _shards(folder: Path, input_hash: str) -> list[Path]:
    return sorted(_partial(folder, input_hash).glob("rows-*.parquet"))


def _read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        # ParquetFile, not read_table: the latter would take "task=x" in the path for a partition.
        with pq.ParquetFile(path) as file:
            known = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
            return file.read(columns=known)
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"{path} is missing or damaged ({error}); run the evaluation again with --force") from error


def _samples_table(path: Path, columns: Sequence[str] | None) -> pa.Table:
    """Read samples, positions always among them, in the order of the file."""
    wanted = None if columns is None else list(dict.fromkeys(["position", *columns]))
    table = _read_table(path, wanted)
    lacking = sorted(set(wanted or SAMPLE_COLUMNS) - set(table.column_names))
    if lacking:
        raise RecordError(f"{path} lacks the column {lacking[0]!r}; run the evaluation again with --force")
    return table


def _in_order(tables: Sequence[pa.Table], columns: Sequence[str] | None) -> pd.DataFrame:
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


def _column_names(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"{path} is missing or damaged ({error}); run the evaluation again with --force") from error


def _read_metadata(path: Path) -> Mapping[bytes, bytes]:
    try:
        return pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"{path} is missing or damaged ({error}); run the evaluation again with --force") from error


def _pack(sums: Mapping[str, Any]) -> bytes:
    # Parquet's metadata is text; npz keeps dtype and shape.
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: np.asarray(values) for name, values in sums.items()})  # type: ignore[arg-type]
    return base64.b64encode(buffer.getvalue())


def _png(image: np.ndarray) -> bytes:
    with io.BytesIO() as stream:
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(stream, "PNG", compress_level=1)
        return stream.getvalue()


def _unpack(text: bytes | None) -> dict[str, np.ndarray]:
    if not text:
        return {}
    with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _pandas_dtype(name: str, kind: pa.DataType) -> Any:
    if name == "position":
        return np.dtype("int32")
    nullable = {pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype(), pa.float32(): np.dtype("float32")}
    return nullable.get(kind, "str" if int(pd.__version__.split(".")[0]) >= 3 else "object")


def _to_pandas(name: str, column: pa.ChunkedArray) -> pd.Series:
    # A column keeps its dtype whether or not it happens to hold nulls, so that shards and whole files agree.
    return column.to_pandas(types_mapper={column.type: _pandas_dtype(name, column.type)}.get).astype(
        _pandas_dtype(name, column.type)
    )


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows cannot open folders
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_error(path: Path, error: OSError) -> RecordError:
    remedy = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some space",
        errno.EROFS: "choose another place with --out DIR",
        errno.EACCES: "choose another place with --out DIR",
    }.get(error.errno or 0, "check the place that --out names")
    return RecordError(
        f"cannot write {path}: {error.strerror or error}; {remedy}, then run the same command again to go on"
    )


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _discard(_: object) -> None:
    return None
