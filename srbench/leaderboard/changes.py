"""Shows a comparison of two leaderboards in a terminal."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from srbench.leaderboard.compare import BoardComparison, Change
from srbench.leaderboard.fitting import counted_columns, fitted, label_limit
from srbench.leaderboard.texts import MISSING, row_name
from srbench.metrics.catalogue import metric
from srbench.metrics.info import MetricInfo


def render_comparison(comparison: BoardComparison, *, width: int) -> list[RenderableType]:
    """Return what changed between two leaderboards, and which rules fired, for a terminal.

    Args:
        comparison: The outcome.
        width: Columns of the terminal. Where a table is wider, long labels lose their middle, and columns give way.
    """
    by_table: dict[tuple[str, str | None], list[Change]] = {}
    lacking: dict[str, None] = {}
    for change in comparison.changes:
        row = change.row
        if row.lacks_weights and change.state != "failed":
            lacking[row.method] = None
            continue
        by_table.setdefault((row.task, row.classifier), []).append(change)
    wanted = [metric(name) for name in comparison.metrics]
    shown: list[RenderableType] = []
    dropped = 0
    for (task, classifier), changes in by_table.items():
        heading = f"{task} · {classifier or 'no classifier'} · new, and its difference to old"
        table, left = fitted(functools.partial(_comparison_table, heading, changes), wanted, width=width)
        if len(left) < len(wanted):
            build = functools.partial(_comparison_table, heading, changes, most=label_limit(width))
            table, left = fitted(build, wanted, width=width)
        dropped = max(dropped, len(wanted) - len(left))
        shown.append(table)
    if dropped:
        shown.append(Text(f"  a wider terminal shows {counted_columns(dropped)}", style="dim"))
    if lacking:
        shown.append(Text(f"  without weights for the task, and not shown: {', '.join(lacking)}", style="dim"))
    shown += [Text(f"fails: {line}", style="red") for line in comparison.fired]
    return shown


def _comparison_table(
    heading: str, changes: Sequence[Change], metrics: Sequence[MetricInfo], most: int | None = None
) -> Table:
    """Return a table of changes; `most` is the number of characters that a row's name may have."""
    table = Table(box=box.SIMPLE_HEAD, title=Text(heading), title_justify="left", pad_edge=False)
    table.add_column("method", no_wrap=True)
    for info in metrics:
        table.add_column(info.name.replace("_", "\n", 1), justify="right", no_wrap=True)
    for change in changes:
        state = f"\n({change.state})" if change.state else ""
        cells = [_change(*change.values.get(info.name, (None, None)), change.ci.get(info.name)) for info in metrics]
        table.add_row(Text(row_name(change.row, most) + state), *cells)
    return table


def _change(old: float | None, new: float | None, ends: tuple[float, float] | None) -> str:
    if old is None or new is None:
        return f"{_change_side(new)}\nwas {_change_side(old)}" if old is not new else MISSING
    delta = 0.0 if old == new else new - old
    interval = "" if ends is None else f"\n[{ends[0]:+.2g}, {ends[1]:+.2g}]"
    return f"{_change_side(new)}\n{delta:+.4g}{interval}"


def _change_side(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"
