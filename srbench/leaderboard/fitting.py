"""Fits a table to the width of the terminal: long names are cut, then whole columns go; no number is wrapped or cut."""

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


def counted_columns(dropped: int) -> str:
    """Say how many columns a table leaves out: "3 more columns"."""
    return f"{dropped} more column{'s' * (dropped != 1)}"


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many characters; a longer one loses its middle, because its ends tell names apart."""
    if len(text) <= most:
        return text
    kept = max(most - 1, 2)
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def label_limit(width: int) -> int:
    """Return how many characters of a terminal's width a row's name may take where the table does not fit."""
    return max(2 * width // 5, 16)


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
        least = max(shown, key=lambda column: column.priority, default=None)
        wide = Console(width=_UNBOUNDED).measure(table).maximum > width
        if not wide or least is None or least.priority == 0:
            return table, shown
        shown.remove(least)
