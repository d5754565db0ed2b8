"""Packs the records of a run: what can be checked without the data, and nothing that shows pixels or paths."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from srbench import __version__
from srbench.errors import RecordError, UsageError
from srbench.files.paths import user_path
from srbench.files.strict import json_text
from srbench.leaderboard import Leaderboard
from srbench.records.cells import RECORD_FILE, SAMPLES_FILE, cell_folder, find_records, load_cell
from srbench.records.schema import Record
from srbench.report.boards import board_of
from srbench.report.entry.zips import ENTRY_FILE, read_zip, sha256, write_zip

SCHEMA_VERSION = 1
# an absolute path, or one below a home folder; the two slashes of an address on the web begin none
_PATH = re.compile(r"(?<![^\s=:\"'(,\[@])(?:~[\w.-]*/|/(?!/)|[A-Za-z]:[\\/](?!/)|\\\\)[^\s\"',;)\]]*")


def pack(folders: Iterable[Path | str], out: Path | str) -> Leaderboard:
    """Write an entry; return the leaderboard that it claims.

    Args:
        folders: Folders that `srbench eval --out` wrote.
        out: File that ends in .zip.

    Raises:
        UsageError: If a folder holds no record, or `out` does not end in .zip.
        RecordError: If a record or its samples are damaged, or the disk fails.
    """
    out = user_path(out)
    if out.suffix.lower() != ".zip" or out.is_dir():
        raise UsageError(f"--out takes a file that ends in .zip, got {out}")
    given = [user_path(folder) for folder in folders]
    cells, problems = find_records(given)
    if problems:
        raise RecordError(f"{problems[0]}; an entry is packed from whole records alone")
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="srbench-") as scratch:
        root = Path(scratch)
        for cell in cells:
            key = cell.record.cell
            folder = cell_folder(root, key.task, key.classifier, key.method, key.weights, key.input_size)
            if folder.exists():
                raise UsageError(f"two folders hold the cell of {key.method} on {key.task}; pack one of them")
            folder.mkdir(parents=True)
            (folder / RECORD_FILE).write_text(json_text(without_paths(cell.record).to_json()), encoding="utf-8")
            if cell.record.status == "ok":
                cell.samples(["position"])  # a file that is not the record's own is refused here
                (folder / SAMPLES_FILE).write_bytes((cell.folder / SAMPLES_FILE).read_bytes())
            for path in folder.iterdir():
                files[path.relative_to(root).as_posix()] = path.read_bytes()
            load_cell(folder)
        packed, _ = find_records([root])
        board, _ = board_of(packed, (), given[0])
    claim = {
        "srbench_entry": SCHEMA_VERSION,
        "srbench": __version__,
        "claim": board.to_json(),
        "weights": _weights(cell.record for cell in cells),
        "environments": _distinct(dataclasses.asdict(cell.record.environment) for cell in cells),
        "files": {name: sha256(content) for name, content in sorted(files.items())},
    }
    files[ENTRY_FILE] = json_text(claim).encode()
    write_zip(out, files)
    read_zip(out)  # what nobody could read is not handed out
    return board


def without_paths(record: Record) -> Record:
    """Return a record whose texts name files without their folders, and that has no traceback."""
    raw = _scrubbed(record.to_json())
    dataset, weights = raw["dataset"], raw["method"]["weights"]
    dataset["spec"] = _last(dataset["spec"])
    if weights is not None:
        weights["uri"] = _last(weights["uri"])
    raw["traceback"] = None
    return Record.from_json(json_text(raw).encode(), origin=f"the record of {record.cell.method} without paths")


def _last(spec: str) -> str:
    """Return "folder:photos" of "folder:/home/me/photos"; an address on the web stays."""
    if "://" in spec:
        return spec
    prefix, separator, rest = spec.rpartition(":")
    return f"{prefix}{separator}{PurePosixPath(PureWindowsPath(rest).as_posix()).name or rest}"


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return _PATH.sub(lambda found: PureWindowsPath(found[0]).name, value)
    if isinstance(value, Mapping):
        return {key: _scrubbed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_scrubbed(entry) for entry in value]
    return value


def _weights(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return the hash of every file of weights, of methods and of networks."""
    found = []
    for record in records:
        method, network = record.method, record.classifier
        if method.weights is not None:
            found.append({"of": method.name, "label": method.weights.label, "sha256": method.weights.sha256})
        if network is not None:
            found.append({"of": network.id, "label": network.name, "sha256": network.weights_sha256})
    return _distinct(found)


def _distinct(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json_text(entry): entry for entry in entries}.values())
