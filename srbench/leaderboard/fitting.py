"""Drops whole columns until a table fits the width of the terminal; no number is ever wrapped or cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from rich.console import Console
from rich.table import Table

_UNBOUNDED = 10_000  # columns; a table is measured as wide as it wants to be


class Prioritised(Protocol):
    """A column that knows how soon it gives way."""

    @property
    def priority(self) -> int:
        """The larger, the sooner it gives way; 0 stays whatever the width."""


ColumnT = TypeVar("ColumnT", bound=Prioritised)


def fitted(
    build: Callable[[Sequence[ColumnT]], Table], columns: Sequence[ColumnT], *, width: int
) -> tuple[Table, list[ColumnT]]:
    """Return the table with as many columns as fit, and these columns.

    Args:
        build: Makes the table of the columns that it is given.
        columns: All columns, in order.
        width: Columns of the terminal.
    """
    shown = list(columns)
    while True:
        table = build(shown)
        least = max(shown, key=lambda column: column.priority)
        if Console(width=_UNBOUNDED).measure(table).maximum <= width or least.priority == 0:
            return table, shown
        shown.remove(least)
