"""Joins the cells of a row at several input sizes: accuracy by size, and accuracy at the best one, cross-fitted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srbench.leaderboard.pairing import aligned, pairing_key
from srbench.metrics.stats import cross_fitted, mcnemar_exact, second_half
from srbench.records.cells import StoredCell
from srbench.records.schema import CellKey, Record
from srbench.task_types import CellSamples, TaskType


@dataclass(frozen=True)
class BySize:
    """A row at several input sizes.

    Attributes:
        right: Whether each sample is right `(n,)`, by input size, ascending; empty where it can have no other size.
        own: The protocol's own size, one of them.
        best_sizes: The size that is best on each half of the samples, the own one where no other is clearly better;
            None where a half is empty.
        best_right: Whether each sample is right at the size that is best on the other half, or at the only size.
        notes: Why a size is missing, as `Row.notes`.
    """

    right: Mapping[int, NDArray[np.bool_]]
    own: int
    best_sizes: tuple[int, int] | None
    best_right: NDArray[np.bool_] | None
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def p_by_size(self) -> dict[int, float]:
        """Exact McNemar p of each other size against the protocol's own."""
        others = {size: right for size, right in self.right.items() if size != self.own}
        return {size: mcnemar_exact(right, self.right[self.own]) for size, right in others.items()}

    @property
    def p_best(self) -> float | None:
        """Exact McNemar p of the best size against the protocol's own."""
        if self.best_right is None or not self.right:
            return None
        return mcnemar_exact(self.best_right, self.right[self.own])


def split_by_size(cells: Iterable[StoredCell]) -> tuple[list[StoredCell], dict[CellKey, list[StoredCell]]]:
    """Part the cells of a table into those of the protocol's own size, and the others by the key of their own cell."""
    own: list[StoredCell] = []
    others: dict[CellKey, list[StoredCell]] = {}
    for cell in cells:
        key = cell.record.cell
        if key.input_size is None:
            own.append(cell)
        else:
            others.setdefault(_own_key(key), []).append(cell)
    return own, others


def by_size(
    cells: Sequence[StoredCell],
    samples: Sequence[CellSamples],
    others: Mapping[CellKey, Sequence[StoredCell]],
    task_type: TaskType,
) -> list[BySize | None]:
    """Return what each cell of the protocol's own size is at the other sizes too.

    A cell has none where no cell of these was scored at another size, or where nothing says what is right.

    Args:
        cells: Cells whose samples are paired, of the protocol's own size.
        samples: Their samples, in one common order.
        others: The cells at other sizes, by the key of their own cell.
        task_type: What is asked.
    """
    fitting = {
        cell.record.cell: [each for each in others.get(cell.record.cell, ()) if _fits(each, cell)] for cell in cells
    }
    scored = [each for group in fitting.values() for each in group if each.record.status == "ok"]
    sides = {side for each in (*scored, *cells) if (side := _own_side(each.record)) is not None}
    if not scored or not sides:
        return [None] * len(cells)
    rights: dict[CellKey, NDArray[np.bool_] | None] = {}
    for each, read in zip(scored, aligned(scored, task_type, like=cells[0], columns=task_type.compared), strict=True):
        rights[each.record.cell] = task_type.correct(read)
    second = second_half(cells[0].samples(["sample_id"])["sample_id"])
    return [
        _joined(cell, task_type.correct(own), fitting[cell.record.cell], rights, second, sides)
        for cell, own in zip(cells, samples, strict=True)
    ]


def _joined(
    cell: StoredCell,
    own_right: NDArray[np.bool_] | None,
    others: Sequence[StoredCell],
    rights: Mapping[CellKey, NDArray[np.bool_] | None],
    second: NDArray[np.bool_],
    sides: set[int],
) -> BySize | None:
    own = _own_side(cell.record) or min(sides)
    if own_right is None:
        return None
    skipped = [each.record.reason or "" for each in others if each.record.status == "skipped"]
    if others and len(skipped) == len(others):  # its only size is its best one
        return BySize({}, own, None, own_right, {"accuracy_by_size": skipped[0]})
    right = {own: own_right}
    for each in others:
        found, size = rights.get(each.record.cell), each.record.cell.input_size
        if found is not None and size is not None:
            right[size] = found
    right = dict(sorted(right.items()))
    fitted = cross_fitted(right, second, usual=own)
    failed = [each.record for each in others if each.record.status == "error"]
    notes = {f"accuracy_by_size.{record.cell.input_size}": record.reason or "" for record in failed}
    unscored = {key.input_size or own for key in rights} - right.keys() - {record.cell.input_size for record in failed}
    if unscored:
        notes["accuracy_by_size"] = f"not scored at {', '.join(map(str, sorted(unscored)))} pixels"
    if fitted is None:
        notes["accuracy_best"] = "a half of the samples is empty, so nothing chooses an input size for the other half"
        return BySize(right, own, None, None, notes)
    return BySize(right, own, fitted.best, fitted.right, notes)


def unlike(cells: Iterable[StoredCell], others: Mapping[CellKey, Sequence[StoredCell]]) -> list[str]:
    """Say which cells at other sizes were left out because their own cell is gone, or was made from something else."""
    known = {cell.record.cell: cell for cell in cells}
    lines = []
    for key, group in others.items():
        own = known.get(key)
        sizes = sorted(each.record.cell.input_size or 0 for each in group if own is None or not _fits(each, own))
        if sizes and (own is None or own.record.status == "ok"):
            named = f"{key.name} ({key.weights})" if key.weights else key.name
            why = "there is no cell" if own is None else "it was made from something else than the cell"
            lines.append(
                f"{named} of task {key.task} at input size {', '.join(map(str, sizes))} is left out: {why} at the"
                " protocol's own size; run the evaluation again with these sizes"
            )
    return lines


def _fits(other: StoredCell, own: StoredCell) -> bool:
    """Say whether a cell at another size was made from the same samples, method and network as the own one."""
    return _made_of(other.record) == _made_of(own.record)


def _made_of(record: Record) -> tuple[Any, ...]:
    method, network = record.method, record.classifier
    weights = method.weights.sha256 if method.weights is not None else None
    sha256 = network.weights_sha256 if network is not None else None
    return pairing_key(record), method.version, method.parameters, weights, sha256


def _own_key(key: CellKey) -> CellKey:
    return dataclasses.replace(key, input_size=None)


def _own_side(record: Record) -> int | None:
    """Return the protocol's own input size: what the network insists on, else the shortest side of SR."""
    network = record.classifier
    return (network.input_size if network is not None else None) or record.dataset.sr_side
