"""The table of slices as it is shown: a column for each slice, with the number of its images."""

from __future__ import annotations

from srbench.leaderboard.grids import Grid, GridColumn
from srbench.leaderboard.slices import BINS, OTHERS, SliceTable
from srbench.leaderboard.texts import formatted, plural, row_name, with_interval
from srbench.metrics.catalogue import metric


def slice_grid(table: SliceTable, unit: str) -> Grid:
    """Return a table of slices to be shown; `unit` is what one sample is."""
    info = metric(table.metric)
    columns = [
        GridColumn(
            f"{each.name} (n={each.n})",
            tuple(formatted(info, row.values.get(each.name)) for row in table.rows),
            tuple(with_interval(info, row.values.get(each.name), row.ci.get(each.name)) for row in table.rows),
            priority=len(table.slices) - at,
        )
        for at, each in enumerate(table.slices)
    ]
    notes = []
    if table.numeric:
        notes.append(f"{table.column} is cut at its quantiles into at most {BINS} slices")
    if any(each.name == OTHERS for each in table.slices):
        notes.append(f"{OTHERS}: the values that fewest {plural(unit)} have")
    if table.n_missing:
        noun = unit if table.n_missing == 1 else plural(unit)
        notes.append(f"{table.n_missing} {noun} without {table.column} are in no slice")
    heading = f"{info.word} by {table.column} · {table.classifier or 'no classifier'} · {table.task}"
    return Grid(heading, tuple(row_name(row.row) for row in table.rows), tuple(columns), tuple(notes))
