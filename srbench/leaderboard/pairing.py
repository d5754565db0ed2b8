"""Which cells may stand in one table, and their samples in one common order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench import protocol
from srbench.errors import IncomparableError
from srbench.leaderboard.rows import bare_row
from srbench.records.cells import StoredCell
from srbench.records.schema import Record
from srbench.task_types import CellSamples, TaskType


def newest_cells(cells: Iterable[StoredCell]) -> tuple[list[StoredCell], list[str]]:
    """Keep the newest of cells that several folders hold; warn where their inputs differ."""
    kept: dict[Any, StoredCell] = {}
    warnings = []
    for cell in cells:
        other = kept.setdefault(cell.record.cell, cell)
        if other is cell:
            continue
        # An ok cell is not displaced by a later failure elsewhere.
        first, second = sorted((other, cell), key=lambda each: (each.record.status == "ok", each.record.created))
        kept[cell.record.cell] = second
        if first.record.input_hash != second.record.input_hash:
            warnings.append(
                f"{second.record.cell.name} of task {second.record.cell.task} is stored twice with other inputs;"
                f" the newer in {second.folder} is used, {first.folder} is not"
            )
    return list(kept.values()), warnings


def check_comparable(task: str, cells: Sequence[StoredCell]) -> None:
    """Refuse full cells of one task that were not made under the same conditions.

    Protocol, samples, network and arithmetic must be the same: precision, TF32 and the type of the device change
    values by more than methods differ.

    Raises:
        IncomparableError: Naming the two methods and the field in which they differ.
    """
    full = [cell.record for cell in cells if cell.record.status == "ok" and not cell.record.partial]
    full.sort(key=lambda record: record.created, reverse=True)
    for record in full[1:]:
        differences = _differences(record, full[0])
        if differences:
            raise _incomparable(task, record, full[0], "; ".join(differences))
    newest: dict[str, Record] = {}
    for record in full:
        if record.classifier is None or record.cell.track != "frozen":
            continue
        other = newest.setdefault(record.classifier.id, record)
        assert other.classifier is not None
        for name in ("weights_sha256", "input_size", "mean", "std"):
            ours, theirs = getattr(record.classifier, name), getattr(other.classifier, name)
            if ours != theirs:
                where = f"classifier {record.classifier.id}, {name}: {ours} against {theirs}"
                raise _incomparable(task, record, other, where)


def paired_groups(cells: Iterable[StoredCell]) -> list[list[StoredCell]]:
    """Group the ok cells of one task and network by what they must share to be resampled together.

    Full cells of a task share it, partial ones may not.
    """
    groups: dict[tuple[Any, ...], list[StoredCell]] = {}
    for cell in cells:
        if cell.record.status == "ok":
            groups.setdefault(pairing_key(cell.record), []).append(cell)
    return list(groups.values())


def pairing_key(record: Record) -> tuple[Any, ...]:
    """Return what cells of one task and network must share so that their samples are paired."""
    dataset = record.dataset
    return record.partial, record.protocol.fingerprint, dataset.sample_list_sha256, dataset.n, record.numerics


def aligned(
    cells: Sequence[StoredCell],
    task_type: TaskType,
    *,
    like: StoredCell | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[CellSamples]:
    """Read the samples of paired cells in one common order, one cell at a time.

    Args:
        cells: The cells.
        task_type: What is asked.
        like: The cell whose order it is; None takes the first one.
        columns: Stored columns that are read; None takes all that the task type's metrics are computed from.

    Raises:
        IncomparableError: If a sample is not in all of them, or their targets differ.
    """
    first = like or next(iter(cells), None)
    ids: pd.Series | None = None if like is None else like.samples(["sample_id"])["sample_id"]
    first_targets: NDArray[Any] | None = None
    wanted = ("sample_id", *(task_type.sample_columns() if columns is None else columns))
    for cell in cells:
        scores = cell.score_columns() if task_type.reads_scores and columns is None else ()
        frame = cell.samples([*wanted, *scores])
        own = frame.pop("sample_id")
        if ids is None:
            ids = own
        elif not own.equals(ids):
            index = pd.Index(own)
            order = index.get_indexer(pd.Index(ids)) if index.is_unique and len(own) == len(ids) else np.array([-1])
            if (order < 0).any():
                lone = sorted(set(own) ^ set(ids)) or ["a sample that occurs twice"]
                assert first is not None
                raise IncomparableError(
                    f"the samples of {first.folder} and {cell.folder} cannot be paired:"
                    f" {lone[0]!r} is not once in both; run the older one again with --force"
                )
            frame = frame.iloc[order].reset_index(drop=True)
        samples = task_type.samples_of(cell.record, frame, competes=bare_row(cell.record).competes)
        del frame, own  # not in memory beside the next one
        targets = task_type.truth(samples)
        if first_targets is None:
            first_targets = targets
        elif targets is not None and not np.array_equal(first_targets, targets):
            raise IncomparableError(
                f"the labels below {cells[0].folder.parent} differ between methods; run with --force"
            )
        yield samples
        del samples  # nor are these


def _incomparable(task: str, older: Record, newer: Record, where: str) -> IncomparableError:
    return IncomparableError(
        f"task {task!r}: {older.cell.name!r} cannot be ranked with the newer {newer.cell.name!r},"
        f" they differ in {where}; run {older.cell.name!r} again, or keep them in separate --out folders"
    )


def _differences(first: Record, other: Record) -> list[str]:
    lines = []
    if first.protocol.fingerprint != other.protocol.fingerprint:
        lines = protocol.difference(first.protocol.fields, other.protocol.fields) or ["protocol fingerprint"]
    for name in ("sample_list_sha256", "n"):
        ours, theirs = getattr(first.dataset, name), getattr(other.dataset, name)
        if ours != theirs:
            lines.append(f"dataset.{name}: {ours} against {theirs}")
    numerics = first.numerics.difference(other.numerics)
    return lines if numerics is None else [*lines, f"numerics: {numerics}"]
