"""Scores a share of an entry's samples again, from the data, and says what differs."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from srbench.errors import UsageError
from srbench.evaluation import evaluate
from srbench.metrics.catalogue import column_types
from srbench.records.cells import StoredCell, find_records
from srbench.records.schema import ORACLE, CellKey

RELATIVE, ABSOLUTE = 1e-3, 1e-5  # of values in float32 on another device; decisions are held against a share
DECISIONS = 0.01  # share of the samples whose decision may differ: close calls fall otherwise on another device


@dataclass(frozen=True)
class Again:
    """What scoring a share again found.

    Attributes:
        samples: Ids of the samples that were scored again.
        compared: Number of cells that were compared.
        problems: One sentence for each column of a cell that differs by more than the tolerance.
        notes: What could not be compared.
    """

    samples: tuple[str, ...]
    compared: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def rerun(cells: Sequence[StoredCell], data: str, *, share: float, **options: Any) -> Again:
    """Score a share of the samples again and compare them with those of an entry.

    The share is named: the samples with the smallest hashes of their ids, as `srbench eval --limit` takes them.

    Args:
        cells: The cells of an entry.
        data: SPEC of the data.
        share: Share of the samples, above 0 and at most 1.
        **options: Further arguments of `srbench.evaluate`: classifiers, weights, protocol, scales, split, device.

    Raises:
        UsageError: If the share is out of range, or nothing of the entry could be scored again.
    """
    if not 0 < share <= 1:
        raise UsageError(f"--share is above 0 and at most 1, got {share:g}")
    ok = [cell for cell in cells if cell.record.status == "ok"]
    if not ok:
        raise UsageError("the entry has no cell with a result; there is nothing to score again")
    limit = max(1, math.ceil(share * max(cell.record.dataset.n for cell in ok)))
    methods = list(dict.fromkeys(cell.record.cell.method for cell in ok if cell.record.cell.method != ORACLE))
    with tempfile.TemporaryDirectory(prefix="srbench-") as scratch:
        evaluate(methods, data=data, limit=limit, out=Path(scratch), progress=False, **options)
        found = {_key(cell.record.cell): cell for cell in find_records([scratch])[0] if cell.record.status == "ok"}
        return _compared(ok, found)


def _compared(cells: Sequence[StoredCell], found: Mapping[Any, StoredCell]) -> Again:
    problems: list[str] = []
    notes: list[str] = []
    samples: dict[str, None] = {}
    compared = 0
    for cell in cells:
        other, name = found.get(_key(cell.record.cell)), _name(cell.record.cell)
        if other is None:
            notes.append(f"{name} was not scored again; give its --weights and --classifier")
            continue
        if cell.record.protocol.fingerprint != other.record.protocol.fingerprint:
            notes.append(f"{name} was scored under another protocol; give its --protocol and --scale")
            continue
        problems += _other_weights(name, cell, other)
        ours, theirs = other.samples().set_index("sample_id"), cell.samples().set_index("sample_id")
        missing = ours.index.difference(theirs.index)
        if len(missing):
            problems.append(f"{name}: the entry has no sample {missing[0]!r}, the data do")
        common = ours.index.intersection(theirs.index)
        samples.update(dict.fromkeys(map(str, common)))
        problems += _differing(name, ours.loc[common], theirs.loc[common])
        compared += 1
    if not compared:
        raise UsageError(f"nothing of the entry could be scored again: {notes[0]}")
    return Again(tuple(samples), compared, tuple(problems), tuple(notes))


def _key(cell: CellKey) -> tuple[object, ...]:
    return cell.method, cell.weights, cell.classifier, cell.track, cell.input_size


def _name(cell: CellKey) -> str:
    weights = f" ({cell.weights})" if cell.weights else ""
    size = f" at {cell.input_size} px" if cell.input_size else ""
    return f"{cell.method}{weights}{f' with {cell.classifier}' if cell.classifier else ''}{size}"


def _other_weights(name: str, cell: StoredCell, other: StoredCell) -> list[str]:
    pairs = [("weights", cell.record.method.weights, other.record.method.weights)]
    problems = [
        f"{name}: its {what} have the hash {first.sha256[:12]}, those here {second.sha256[:12]}"
        for what, first, second in pairs
        if first is not None and second is not None and first.sha256 != second.sha256
    ]
    first, second = cell.record.classifier, other.record.classifier
    if first is not None and second is not None and first.weights_sha256 != second.weights_sha256:
        hashes = f"{first.weights_sha256[:12]}, that here {second.weights_sha256[:12]}"
        problems.append(f"{name}: its network has weights of the hash {hashes}")
    return problems


def _differing(name: str, ours: pd.DataFrame, theirs: pd.DataFrame) -> list[str]:
    """Name the columns of a cell that differ by more than the tolerance, with the sample that differs most."""
    problems = []
    kinds = {column: kind for column, kind in column_types().items() if column in ours and column in theirs}
    for column, kind in kinds.items():
        if kind == "float32":
            first, second = (frame[column].to_numpy(dtype=np.float64, na_value=np.nan) for frame in (ours, theirs))
            both = np.isfinite(first) & np.isfinite(second)
            apart = np.full(len(first), -1.0)
            apart[both] = np.abs(first[both] - second[both]) - ABSOLUTE - RELATIVE * np.abs(first[both])
            apart[np.isfinite(first) != np.isfinite(second)] = np.inf
            if (apart > 0).any():
                most = int(np.argmax(apart))
                problems.append(
                    f"{name}: {column} of {int((apart > 0).sum())} of {len(apart)} samples, most of"
                    f" {ours.index[most]}: the entry has {second[most]:.6g}, scored again {first[most]:.6g}"
                    f" (tolerance {RELATIVE:g} relative)"
                )
        elif kind in ("int32", "bool"):
            own, other = ours[column], theirs[column]
            differ = ((own != other) & own.notna() & other.notna()) | (own.isna() != other.isna())
            differing = ours.index[differ.fillna(False).to_numpy(dtype=bool)]
            if len(differing) > DECISIONS * len(ours):
                problems.append(
                    f"{name}: {column} of {len(differing)} of {len(ours)} samples, first of {differing[0]}"
                    f" (tolerance {DECISIONS:g} of the samples)"
                )
    return problems
