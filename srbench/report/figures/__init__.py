"""The report's figures: each module draws one kind from leaderboard and records, its numbers beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from srbench.leaderboard import Leaderboard
from srbench.records.cells import StoredCell
from srbench.report.drawn import SECTIONS, Drawn
from srbench.report.figures import across, classes, correlation, cost, scores, training
from srbench.report.figures.scope import Scope, scopes
from srbench.report.figures.style import Looks


def draw_all(board: Leaderboard, cells: Sequence[StoredCell]) -> Iterator[Drawn]:
    """Yield every figure that the records carry the numbers for, in the order of `drawn.SECTIONS`.

    Args:
        board: The leaderboard of these cells, with its per-class table.
        cells: The cells that it was built from.
    """
    looks = Looks(board.rows)
    found = list(scopes(board, cells))
    taken: set[str] = set()
    for section in SECTIONS:
        for drawn in _section(section, found, cells, looks):
            name = drawn.name
            while name in taken:
                name = f"{name}-x"
            taken.add(name)
            yield drawn if name == drawn.name else dataclasses.replace(drawn, name=name)


def _section(section: str, found: Sequence[Scope], cells: Sequence[StoredCell], looks: Looks) -> Iterator[Drawn]:
    if section == "training":
        yield from training.draw(cells)
    elif section == "sweep":
        yield from across.sweeps(found, looks)
    elif section == "transfer":
        yield from across.transfers(found)
    elif section == "resampler":
        yield from across.resamplers(found, looks)
    else:
        draw = {"cost": cost.draw, "classes": classes.draw, "scores": scores.draw, "correlation": correlation.draw}
        for scope in found:
            yield from draw[section](scope, looks)
