"""Shows the tables beside the leaderboard (shifts, slices) in a terminal, in Markdown and in HTML."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

from srbench.leaderboard.escapes import markdown_cell
from srbench.leaderboard.fitting import counted_columns, fitted, label_limit, shortened


@dataclass(frozen=True)
class GridColumn:
    """A column of a grid.

    Attributes:
        header: Its header.
        values: One text a row.
        long: The same with intervals, for files.
        priority: The larger, the sooner it gives way on a narrow terminal; 0 stays.
    """

    header: str
    values: tuple[str, ...]
    long: tuple[str, ...]
    priority: int = 0


@dataclass(frozen=True)
class Grid:
    """A table beside the leaderboard's own.

    Attributes:
        title: The line above it.
        labels: Names of the rows.
        columns: What stands beside them.
        notes: Sentences below it.
    """

    title: str
    labels: tuple[str, ...]
    columns: tuple[GridColumn, ...]
    notes: tuple[str, ...] = ()

    def rendered(self, *, width: int, where: str) -> list[RenderableType]:
        """Return it for a terminal of so many columns; what gives way is in the file `where`."""
        wanted = list(self.columns)
        table, shown = fitted(functools.partial(self._table, most=None), wanted, width=width)
        if len(shown) < len(wanted):
            table, shown = fitted(functools.partial(self._table, most=label_limit(width)), wanted, width=width)
        lines = list(self.notes)
        if len(shown) < len(wanted):
            lines.append(f"a wider terminal, or {where}, shows {counted_columns(len(wanted) - len(shown))}")
        below = [Padding(Text("\n".join(lines), style="dim"), (0, 0, 1, 2))] if lines else []
        return [table, *below]

    def as_text(self, style: str) -> str:
        """Return it with intervals in a style of tabulate: "pipe" or "html"."""
        as_cell = markdown_cell if style == "pipe" else str
        rows = [[label, *(column.long[at] for column in self.columns)] for at, label in enumerate(self.labels)]
        return tabulate(
            [[as_cell(text) for text in row] for row in rows],
            headers=["method", *(as_cell(column.header) for column in self.columns)],
            tablefmt=style,
            colalign=["left", *("right" for _ in self.columns)],
            disable_numparse=True,
        )

    def _table(self, wanted: Sequence[GridColumn], most: int | None) -> Table:
        table = Table(box=box.SIMPLE_HEAD, title=Text(self.title, "bold"), title_justify="left", pad_edge=False)
        table.add_column("method", no_wrap=True)
        for column in wanted:
            table.add_column(Text(column.header), justify="right", no_wrap=True)
        for at, label in enumerate(self.labels):
            name = label if most is None else shortened(label, most)
            table.add_row(Text(name), *(Text(column.values[at]) for column in wanted))
        return table
