"""The table of degradations as it is shown: a column for each, and the worst of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srbench.leaderboard.grids import Grid, GridColumn
from srbench.leaderboard.shifts import ShiftedRow, ShiftTable
from srbench.leaderboard.texts import MISSING, formatted, row_name, with_interval
from srbench.metrics.catalogue import metric


def shift_grid(table: ShiftTable, tasks: Mapping[str, Mapping[str, Any]]) -> Grid:
    """Return a table of degradations to be shown.

    Args:
        table: The joined tasks.
        tasks: Task id -> what the leaderboard says of it.
    """
    info, rows = metric(table.metric), table.rows
    first = GridColumn(
        str(tasks[table.task]["protocol"]["name"]),
        tuple(formatted(info, row.row[table.metric]) for row in rows),
        tuple(with_interval(info, row.row[table.metric], row.row.ci.get(table.metric)) for row in rows),
    )
    middle = [
        GridColumn(
            name,
            tuple(formatted(info, row.values.get(name)) for row in rows),
            tuple(with_interval(info, row.values.get(name), row.ci.get(name)) for row in rows),
            priority=1,
        )
        for name in table.tasks
    ]
    worst = [_worst(table, row) for row in rows]
    heading = f"{info.word} under degradations · {table.classifier or 'no classifier'} · {table.task}"
    return Grid(
        heading,
        tuple(row_name(row.row) for row in rows),
        (first, *middle, *([GridColumn("worst", tuple(worst), tuple(worst))] if len(table.tasks) > 1 else [])),
        _notes(table),
    )


def _worst(table: ShiftTable, row: ShiftedRow) -> str:
    if row.worst is None:
        return MISSING
    return f"{formatted(metric(table.metric), row.values[row.worst])} {row.worst}"


def _notes(table: ShiftTable) -> tuple[str, ...]:
    lines = ["each degradation is drawn for every image from its id; the same images, HR and scoring in every column"]
    lacking = [row_name(row.row) for row in table.rows if len(row.values) < len(table.tasks)]
    if lacking:
        lines.append(f"a dash or no worst case: not scored under every degradation: {', '.join(lacking)}")
    return tuple(lines)
