"""Stores the finished rows of a running cell, so that a stopped run can resume."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from srbench.errors import RecordError
from srbench.records.samples import in_order, read_sums, samples_table, write_samples

PARTIAL_FOLDER = ".partial"
LEAST = "least_"  # begins the name of a number whose smallest value counts, instead of the sum


def write_shard(folder: Path, input_hash: str, frame: pd.DataFrame, *, sums: Mapping[str, Any] | None = None) -> Path:
    """Store finished rows of a running cell; return the file.

    Args:
        folder: The cell's folder.
        input_hash: Hash of the cell's inputs; rows of other inputs never mix with these.
        frame: Rows as `samples_frame` makes them, any subset of positions, none of which was written before.
        sums: Numbers or arrays that add up over the shards (seconds, histograms), or, where their names begin with
            `LEAST`, whose smallest counts; `merged_sums` joins them.

    Raises:
        RecordError: If there is no row, or the disk fails.
    """
    if frame.empty:
        raise RecordError(f"{folder}: a shard needs at least one row")
    positions = frame["position"].to_numpy()
    name = f"rows-{int(positions.min()):08d}-{int(positions.max()) + 1:08d}.parquet"
    path = partial_folder(folder, input_hash) / name
    write_samples(path, frame, sums=sums)
    return path


def done_positions(folder: Path, input_hash: str) -> set[int]:
    """Return the positions that are already stored; a shard that cannot be read is removed, to be computed anew."""
    done: set[int] = set()
    for path in _shard_files(folder, input_hash):
        try:
            done.update(samples_table(path, ["position"]).column("position").to_pylist())
        except RecordError:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    return done


def merge_shards(folder: Path, input_hash: str, positions: Iterable[int]) -> pd.DataFrame:
    """Return the rows of all shards in order of position: exactly `positions`, each once.

    Raises:
        RecordError: If a position is missing, stored twice, or not wanted.
    """
    shards = [samples_table(path, None) for path in _shard_files(folder, input_hash)]
    if any(shard.schema != shards[0].schema for shard in shards):
        raise RecordError(f"{folder} has stored rows of unequal columns; run the evaluation again with --force")
    wanted = np.unique(np.fromiter(positions, dtype=np.int64))
    if not shards:
        raise RecordError(f"{folder} has no stored rows to merge, expected {len(wanted)}; run the evaluation again")
    stored = np.sort(np.concatenate([shard.column("position").to_numpy() for shard in shards]))
    if len(np.unique(stored)) != len(stored):
        twice = int(stored[1:][stored[1:] == stored[:-1]][0])
        raise RecordError(f"{folder} stores position {twice} twice; run the evaluation again with --force")
    for verb, wrong in (
        ("lacks", np.setdiff1d(wanted, stored)),
        ("has the unknown", np.setdiff1d(stored, wanted)),
    ):
        if len(wrong):
            raise RecordError(
                f"{folder} {verb} position {int(wrong[0])} ({len(wrong)} in all); run the evaluation again"
            )
    return in_order(shards, None)


def merged_sums(folder: Path, input_hash: str) -> dict[str, np.ndarray]:
    """Return the sums of all shards, added up by name, or the smallest value where the name begins with `LEAST`."""
    total: dict[str, np.ndarray] = {}
    for path in _shard_files(folder, input_hash):
        for name, values in read_sums(path).items():
            join = np.minimum if name.startswith(LEAST) else np.add
            total[name] = join(total[name], values) if name in total else values
    return total


def discard_partial(folder: Path) -> None:
    """Remove the shards of a cell, of whatever inputs (what `--force` does)."""
    shutil.rmtree(folder / PARTIAL_FOLDER, ignore_errors=True)


def partial_folder(folder: Path, input_hash: str) -> Path:
    """Return the folder of the shards that a cell has for these inputs."""
    return folder / PARTIAL_FOLDER / input_hash[:16]


def _shard_files(folder: Path, input_hash: str) -> list[Path]:
    return sorted(partial_folder(folder, input_hash).glob("rows-*.parquet"))
