"""A section of the report, and what its figures are drawn from: the seam that a new figure fills in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from srbench.leaderboard import Leaderboard
from srbench.records.cells import StoredCell
from srbench.report.drawn import Drawn
from srbench.report.figures.scope import Scope
from srbench.report.figures.style import Looks


@dataclass(frozen=True)
class Section:
    """One heading of the page, with the figures of one module below it.

    Attributes:
        name: Anchor in the page and `Drawn.section` of its figures: lower-case letters and hyphens.
        title: The heading.
        order: Sections stand in ascending order.
    """

    name: str
    title: str
    order: int


@dataclass(frozen=True)
class Material:
    """What the figures of a report are drawn from.

    Attributes:
        scopes: Every task and classifier that has an ok cell, in the order of the leaderboard.
        cells: The cells of the leaderboard.
        looks: Colour and marker of each method, the same in every figure.
        board: The leaderboard of the cells.
    """

    scopes: Sequence[Scope]
    cells: Sequence[StoredCell]
    looks: Looks
    board: Leaderboard

    def each(self, draw: Callable[[Scope, Looks], Iterator[Drawn]]) -> Iterator[Drawn]:
        """Yield what `draw` makes of every task and classifier."""
        for scope in self.scopes:
            yield from draw(scope, self.looks)
