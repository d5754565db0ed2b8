"""The order of a table's rows, their ranks, and how sure these are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srbench.leaderboard.rows import Row
from srbench.metrics.catalogue import metric
from srbench.metrics.stats import places
from srbench.task_types import TaskType

Floats = NDArray[np.float64]


def ordered(rows: Sequence[Row], task_type: TaskType) -> list[Row]:
    """Return the rows of one task and network in the order in which they are shown, with their ranks."""
    return sorted(_ranked(rows, task_type), key=lambda row: _sort_key(row, task_type))


def ranking_value(row: Row, task_type: TaskType) -> float | None:
    """Return what ranks a row: what its task type is ranked by, or PSNR without a network behind."""
    return row["psnr"] if row.classifier is None else task_type.ranking_value(row.values)


def ranking_name(row: Row, task_type: TaskType) -> str | None:
    """Return the name of the metric that ranks a row, None where it has none of those that can."""
    names = ("psnr",) if row.classifier is None else task_type.ranks
    return next((name for name in names if row[name] is not None), None)


def _ahead(row: Row, task_type: TaskType) -> float | None:
    """Return what ranks a row with its sign changed where less of it is better: more is ahead."""
    name, value = ranking_name(row, task_type), ranking_value(row, task_type)
    return value if value is None or name is None or metric(name).higher_is_better else -value


def placed(rows: Sequence[Row], draws: Sequence[Mapping[str, Floats]], task_type: TaskType) -> list[Row]:
    """Return rows that were resampled together, with the intervals of their places and which are tied with the best.

    Args:
        rows: Rows of one task and network.
        draws: Bootstrap draws of each row's metrics by name.
        task_type: Type of their task.
    """
    done = list(rows)
    for track in ("frozen", "adapted"):
        rivals: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            name = ranking_name(row, task_type)
            if row.competes and row.track == track and name is not None:
                rivals.setdefault(name, []).append(index)
        # rows that are ranked by different metrics are not compared
        if len(rivals) == 1:
            name, ours = next(iter(rivals.items()))
            found = _with_places([rows[index] for index in ours], [draws[index] for index in ours], name)
            for index, row in zip(ours, found, strict=True):
                done[index] = row
    return done


def _with_places(rows: Sequence[Row], draws: Sequence[Mapping[str, Floats]], name: str) -> list[Row]:
    """Return the competing rows of one track with what their draws say of their places by this metric."""
    info = metric(name)
    drawn = [each.get(name) for each in draws]
    size = next((len(each) for each in drawn if each is not None), None)
    if size is None:
        return list(rows)
    sign = 1.0 if info.higher_is_better else -1.0
    values = np.array([min(value, info.cap) if info.cap else value for row in rows if (value := row[name]) is not None])
    # What has no draws is the same in each of them: the PSNR of a method that is exact everywhere.
    table = np.column_stack(
        [np.full(size, value) if each is None else each for value, each in zip(values, drawn, strict=True)]
    )
    table = table[np.isfinite(table).all(axis=1)]
    if not len(table):
        return list(rows)
    found = places(sign * values, sign * table, n=rows[0].n, step=1.0 / rows[0].n if info.share else 0.0)
    done = []
    for index, row in enumerate(rows):
        delta, margin = sign * float(found.delta[index]), float(found.margin[index])
        ci = dict(row.ci) if index == found.best else {**row.ci, "best_delta": (delta - margin, delta + margin)}
        low, high = found.ranks[index].tolist()
        done.append(
            dataclasses.replace(
                row,
                rank_interval=(low, high),
                tied=bool(found.tied[index]),
                values={**row.values, "best_delta": delta},
                ci=ci,
            )
        )
    return done


def _sort_key(row: Row, task_type: TaskType) -> tuple[Any, ...]:
    value = _ahead(row, task_type)
    return (
        row.status != "ok",
        row.track != "frozen",
        {"oracle": 0, "control": 1}.get(row.role, 2),
        row.partial,
        math.inf if value is None else -value,
        row.label,
    )


def _ranked(rows: Sequence[Row], task_type: TaskType) -> list[Row]:
    """Give each row that competes one more than the number of rows of its track that are ahead of it."""
    done = []
    for row in rows:
        value, rank = _ahead(row, task_type), None
        if row.competes and value is not None:
            rivals = [_ahead(other, task_type) for other in rows if other.competes and other.track == row.track]
            rank = 1 + sum(rival is not None and rival > value for rival in rivals)
        done.append(dataclasses.replace(row, rank=rank))
    return done
