"""Computes a leaderboard from stored cells: numbers, intervals, ranks; the task type compares the rows.

PSNR follows the protocol. Where it is one value per pooled batch, its interval resamples the batches (a cluster
bootstrap) and is left out below five of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.compute.process import give_back_freed_memory
from srbench.leaderboard.board import Leaderboard
from srbench.leaderboard.pairing import aligned, check_comparable, newest_cells, paired_groups
from srbench.leaderboard.ranks import ordered, placed
from srbench.leaderboard.rows import Row, RowKey, bare_row, interval_names
from srbench.leaderboard.seeds import Drawn, joined
from srbench.leaderboard.sizes import BySize, by_size, split_by_size, unlike
from srbench.leaderboard.slices import SliceTable, columns_by_task, slice_tables
from srbench.metrics import psnr_pooled
from srbench.metrics.catalogue import metric
from srbench.metrics.stats import BOOTSTRAP_DRAWS, LEVEL, bootstrap_means, holm, smallest_difference
from srbench.metrics.values import counted
from srbench.records.cells import StoredCell
from srbench.records.schema import BASELINE, ORACLE, CellKey
from srbench.task_types import CellSamples, Interval, PairedCells, TaskType, put_interval, task_type
from srbench.task_types.classification import PER_CLASS_COLUMNS
from srbench.task_types.paired import Column

MINIMUM_BATCHES = 5
_MANY = 2**14  # samples of a cell from which on it is worth the time to give back what reading it has left free

Floats = NDArray[np.float64]


def build(
    cells: Iterable[StoredCell],
    *,
    draws: int = BOOTSTRAP_DRAWS,
    seed: int = 0,
    warnings: Sequence[str] = (),
    slices: Sequence[str] = (),
) -> Leaderboard:
    """Compute the leaderboard of stored cells.

    Args:
        cells: Cells of any number of tasks and classifiers; each task is a table of its own.
        draws: Bootstrap draws.
        seed: Seed of the draws.
        warnings: Sentences to carry along (what `find_records` could not read).
        slices: Columns of the samples to slice by; () takes those that came with `--meta`.

    Raises:
        UnknownNameError: If no task has a column of such a name.
        IncomparableError: If two full cells of one task differ in protocol, samples or classifier; the message names
            the field.
        RecordError: If samples cannot be read.
    """
    kept, repeated = newest_cells(cells)
    described = columns_by_task(kept, slices or None)
    sliced: list[SliceTable] = []
    tasks: dict[str, Mapping[str, Any]] = {}
    rows: list[Row] = []
    tables: list[pd.DataFrame] = []
    drawn: dict[RowKey, Mapping[str, Floats]] = {}
    for task in sorted({cell.record.cell.task for cell in kept}):
        ours = [cell for cell in kept if cell.record.cell.task == task]
        asked = task_type(ours[0].record.dataset.task_type)
        check_comparable(task, ours)
        power: dict[str, Any] = {}
        for classifier in sorted(
            {cell.record.cell.classifier for cell in ours}, key=lambda name: (name is None, name or "")
        ):
            table = [cell for cell in ours if cell.record.cell.classifier == classifier]
            own, others = split_by_size(table)
            repeated += unlike(own, others)
            unordered = [bare_row(cell.record) for cell in own if cell.record.status != "ok"]
            groups = [_group(group, others, asked, draws=draws, seed=seed) for group in paired_groups(own)]
            for group in groups:
                unordered += group.rows
                tables += group.tables
                drawn.update({row.key: each for row, each in zip(group.rows, group.draws, strict=True)})
            power |= _power(classifier, unordered)
            shown = ordered(unordered, asked)
            rows += shown
            if groups and task in described:  # the full cells, or partial ones where there are no others
                most = max(groups, key=lambda group: (not group.cells[0].record.partial, len(group.cells)))
                frame = described[task]
                sliced += slice_tables(most.cells, most.ids(), shown, frame, asked, draws=draws, seed=seed)
        tasks[task] = {**_describe(ours), "power": power}
    return Leaderboard(
        tasks=tasks,
        rows=tuple(rows),
        per_class=pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(PER_CLASS_COLUMNS)),
        bootstrap={"draws": draws, "seed": seed, "level": LEVEL},
        warnings=(*warnings, *repeated),
        draws=drawn,
        slices=tuple(sliced),
    )


def _describe(cells: Sequence[StoredCell]) -> dict[str, Any]:
    """Return what stands above a task's tables."""
    ranked = sorted(cells, key=lambda cell: (cell.record.status != "ok", cell.record.partial))
    record = ranked[0].record
    dataset = record.to_json()["dataset"]
    dataset["n_classes"] = None if record.dataset.classes is None else len(record.dataset.classes)
    del dataset["classes"]
    classifiers: dict[str, Any] = {}
    for cell in ranked:
        part = cell.record.classifier
        if part is not None and part.id not in classifiers and cell.record.cell.track == "frozen":
            entry = dataclasses.asdict(part)
            del entry["track"]
            if not entry["trained_on"]:
                del entry["trained_on"]
            classifiers[part.id] = {**entry, "mean": list(part.mean), "std": list(part.std)}
    return {
        "protocol": dataclasses.asdict(record.protocol),
        "dataset": dataset,
        "classifiers": classifiers,
        "numerics": record.numerics.to_json(),
        "devices": sorted({cell.record.environment.device for cell in cells}),
        "code": dataclasses.asdict(record.code),
    }


def _power(classifier: str | None, rows: Sequence[Row]) -> dict[str, Any]:
    """Return by network which difference in accuracy the samples can show at the discordance of the ranked rows."""
    counts = [(row["fixed"], row["broken"], row.n) for row in rows if row.competes]
    shares = [(fixed + broken) / n for fixed, broken, n in counts if fixed is not None and broken is not None]
    if not shares:
        return {}
    n, discordance = counts[0][2], float(np.median(shares))
    return {classifier or "": {"n": n, "discordance": discordance, "difference": smallest_difference(n, discordance)}}


@dataclass(frozen=True)
class _Alone:
    """A cell with its own numbers and draws, and what the other cells are held against: columns and a summary."""

    cell: CellSamples
    row: Row
    draws: Mapping[str, Floats]
    summary: Any


def _alone(cell: CellSamples, task_type: TaskType, *, draws: int, seed: int) -> _Alone:
    row = _own_row(cell, task_type)
    drawn: dict[str, Floats] = {}
    if _pools_batches(cell) and math.isfinite(row.values.get("psnr", math.inf)):
        row, drawn = _with_batch_interval(row, cell, draws=draws, seed=seed)
    summary = task_type.summary(cell, draws=draws, seed=seed)
    # The columns of all cells stay in memory together from here on, so only those that are paired do.
    return _Alone(cell.only({*task_type.averaged().values(), *task_type.compared}), row, drawn, summary)


def _at_sizes(alone: _Alone, known: BySize) -> _Alone:
    """Add what a row is at several input sizes, and whether each sample is right at the best of them."""
    row, cell = alone.row, alone.cell
    best, values = known.best_right, dict(row.values)
    if best is not None:
        cell = dataclasses.replace(cell, floats={**cell.floats, "accuracy_best": best.astype(np.float32)})
        values["accuracy_best"] = float(best.mean())
    if known.p_best is not None:
        values["p_best_size"] = known.p_best
    row = dataclasses.replace(
        row,
        values=values,
        accuracy_by_size={str(size): float(right.mean()) for size, right in known.right.items()},
        p_by_size={str(size): p for size, p in known.p_by_size.items()},
        best_input_sizes=known.best_sizes or (),
        notes={**row.notes, **known.notes},
    )
    return dataclasses.replace(alone, cell=cell, row=row)


@dataclass(frozen=True)
class _Group:
    """Cells whose samples are the same, resampled together.

    Attributes:
        rows: Their rows; those of weights that differ in seed alone are one.
        tables: Their per-class tables.
        draws: Bootstrap draws of each row's metrics by name.
        cells: What was averaged of each cell, in the order of the samples of `first`.
        first: The first cell as it is stored.
    """

    rows: list[Row]
    tables: list[pd.DataFrame]
    draws: list[Mapping[str, Floats]]
    cells: list[CellSamples]
    first: StoredCell

    def ids(self) -> pd.Series:
        """Return the ids of the samples."""
        return self.first.samples(["sample_id"])["sample_id"]


def _group(
    cells: Sequence[StoredCell],
    others: Mapping[CellKey, Sequence[StoredCell]],
    task_type: TaskType,
    *,
    draws: int,
    seed: int,
) -> _Group:
    """Return what cells whose samples are the same come to.

    Args:
        cells: Cells of the protocol's own size.
        others: Those at other input sizes, by the key of their own cell.
        task_type: What is asked.
        draws: Bootstrap draws.
        seed: Their seed.
    """
    many = cells[0].record.dataset.n > _MANY
    alone = []
    for samples in aligned(cells, task_type):
        alone.append(_alone(samples, task_type, draws=draws, seed=seed))
        if many or samples.lists:  # lists are long where the cells are not
            give_back_freed_memory()
        del samples  # not in memory beside the next one
    sized = by_size(cells, [each.cell for each in alone], others, task_type)
    alone = [each if known is None else _at_sizes(each, known) for each, known in zip(alone, sized, strict=True)]
    paired, rows = [each.cell for each in alone], [each.row for each in alone]
    resampled = _resampled(paired, rows, task_type, sized, draws=draws, seed=seed)
    if many:
        give_back_freed_memory()
    comparison = task_type.compare(
        PairedCells(
            cells=paired,
            summaries=[each.summary for each in alone],
            values=[row.values for row in rows],
            oracle_index=_frozen_index(rows, ORACLE),
            baseline_index=_frozen_index(rows, BASELINE),
            resampled=resampled,
            draws=draws,
            seed=seed,
        )
    )
    drawn = [dict(each.draws) for each in alone]
    for (index, name), values in {**resampled, **comparison.draws}.items():
        drawn[index][name] = values
    done = []
    for index, row in enumerate(rows):
        ci: dict[str, Interval] = {}
        for name in interval_names():
            if (index, name) in resampled:
                put_interval(ci, name, resampled[index, name], LEVEL)
        for size in row.accuracy_by_size:
            put_interval(ci, f"accuracy_by_size.{size}", resampled[index, f"accuracy_by_size.{size}"], LEVEL)
        compared = {name: value for name, value in comparison.values[index].items() if value is not None}
        done.append(
            dataclasses.replace(
                row,
                values={**row.values, **compared},
                ci={**ci, **row.ci, **comparison.ci[index]},
                notes={**row.notes, **comparison.notes[index]},
            )
        )
    records = [each.cell.record for each in alone]
    separate = [Drawn(*each) for each in zip(done, drawn, comparison.p_values, strict=True)]
    shown = joined(separate, records, task_type, seed=seed)
    done = _with_p([each.row for each in shown], [each.p_values for each in shown], task_type)
    of_rows = [each.draws for each in shown]
    return _Group(placed(done, of_rows, task_type), list(comparison.tables), of_rows, paired, cells[0])


def _with_p(rows: Sequence[Row], p_values: Sequence[Mapping[str, float]], task_type: TaskType) -> list[Row]:
    """Return rows with their p against bilinear, Holm-corrected: the competing rows of a track are a family."""
    done = list(rows)
    for name in task_type.tests:
        for track in ("frozen", "adapted"):
            family = [index for index, row in enumerate(rows) if row.track == track and row.competes]
            for index, p in zip(family, holm([p_values[index].get(name) for index in family]), strict=True):
                if p is not None:
                    done[index] = dataclasses.replace(done[index], values={**done[index].values, name: p})
    return done


def _frozen_index(rows: Sequence[Row], method: str) -> int | None:
    """Return the index of a frozen method, which both tracks refer to, or None."""
    return next((index for index, row in enumerate(rows) if row.method == method and row.track == "frozen"), None)


def _own_row(cell: CellSamples, task_type: TaskType) -> Row:
    """Return the row of a cell with its own numbers, no differences."""
    bare = bare_row(cell.record)
    metrics = task_type.values(cell)
    values = {name: each.value for name, each in metrics.items() if each.value is not None}
    notes = {name: each.reason or "" for name, each in metrics.items() if each.value is None}
    for name, each in metrics.items():
        cap = metric(name).cap
        if cap is not None and 0 < each.n_infinite < each.n:
            counts = f"count as {cap:g} {metric(name).unit}"
            notes[f"exact.{name}"] = f"{each.n_infinite} of {each.n} are exact and {counts}"
    return dataclasses.replace(bare, values={**bare.values, **values}, notes={**bare.notes, **notes})


def _pools_batches(cell: CellSamples) -> bool:
    return bool(cell.record.protocol.fields.get("score", {}).get("psnr_reduction") == "batch")


def _with_batch_interval(row: Row, cell: CellSamples, *, draws: int, seed: int) -> tuple[Row, dict[str, Floats]]:
    """Add the interval of a batch-pooled PSNR and its draws, of whole batches, or the reason why there is none."""
    mse = cell.floats["mse"]
    size = int(cell.record.protocol.fields["score"]["psnr_batch"])
    batches = len(mse) // size
    if batches < MINIMUM_BATCHES:
        why = f"an interval over pooled batches needs at least {MINIMUM_BATCHES} of them, there are {batches}"
        return dataclasses.replace(row, notes={**row.notes, "ci.psnr": why}), {}
    each = np.array([psnr_pooled(mse[batch * size : (batch + 1) * size], size).value for batch in range(batches)])
    ci = dict(row.ci)
    each = counted(each, metric("psnr").cap)
    drawn = bootstrap_means(each[:, None], draws=draws, seed=seed)[:, 0]
    put_interval(ci, "psnr", drawn, LEVEL)
    return dataclasses.replace(row, ci=ci), {"psnr": drawn}


def _resampled(
    cells: Sequence[CellSamples],
    rows: Sequence[Row],
    task_type: TaskType,
    sized: Sequence[BySize | None],
    *,
    draws: int,
    seed: int,
) -> dict[tuple[int, str], Floats]:
    """Return bootstrap draws of the means that rows have, by (index of the cell, name); one set of draws for all."""
    named: list[tuple[tuple[int, str], Column]] = []
    for index, (cell, row) in enumerate(zip(cells, rows, strict=True)):
        for name, column in task_type.averaged().items():
            values = cell.floats.get(column)
            pooled = name == "psnr" and _pools_batches(cell)
            if values is not None and name in row.values and np.isfinite(values).any() and not pooled:
                named.append(((index, name), counted(values, metric(name).cap)))
    for index, known in enumerate(sized):
        for size, right in known.right.items() if known is not None else ():
            named.append(((index, f"accuracy_by_size.{size}"), right.astype(np.float32)))
    if not named:
        return {}
    means = bootstrap_means([values for _, values in named], draws=draws, seed=seed)
    return {key: means[:, column] for column, (key, _) in enumerate(named)}
