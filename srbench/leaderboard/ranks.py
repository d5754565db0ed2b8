"""The order of a table's rows and their ranks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from srbench.leaderboard.rows import Row
from srbench.metrics.catalogue import metric
from srbench.task_types import TaskType


def ordered(rows: Sequence[Row], task_type: TaskType) -> list[Row]:
    """Return the rows of one task and network in the order in which they are shown, with their ranks."""
    return sorted(_ranked(rows, task_type), key=lambda row: _sort_key(row, task_type))


def ranking_value(row: Row, task_type: TaskType) -> float | None:
    """Return what ranks a row: what its task type is ranked by, or PSNR without a network behind."""
    return row["psnr"] if row.classifier is None else task_type.ranking_value(row.values)


def _ahead(row: Row, task_type: TaskType) -> float | None:
    """Return what ranks a row with its sign changed where less of it is better: more is ahead."""
    names = ("psnr",) if row.classifier is None else task_type.ranks
    name = next((name for name in names if row[name] is not None), None)
    value = ranking_value(row, task_type)
    return value if value is None or name is None or metric(name).higher_is_better else -value


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
