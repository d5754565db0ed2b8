"""The report's figures, one module a section.

A module of this folder that has a `SECTION` and a function `draw(material)` is a part of the report; no list names it.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from functools import cache
from types import ModuleType

from srbench.leaderboard import Leaderboard
from srbench.records.cells import StoredCell
from srbench.report.drawn import Drawn
from srbench.report.figures.scope import scopes
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import Looks


def sections() -> tuple[Section, ...]:
    """Return the sections in the order in which they stand in the page."""
    return tuple(module.SECTION for module in _modules())


def draw_all(board: Leaderboard, cells: Sequence[StoredCell]) -> Iterator[Drawn]:
    """Yield every figure that the records carry the numbers for, in the order of `sections`.

    Args:
        board: The leaderboard of these cells, with its per-class table.
        cells: The cells that it was built from.
    """
    material = Material(tuple(scopes(board, cells)), cells, Looks(board.rows), board)
    taken: set[str] = set()
    for module in _modules():
        for drawn in module.draw(material):
            name = drawn.name
            while name in taken:
                name = f"{name}-x"
            taken.add(name)
            yield drawn if name == drawn.name else dataclasses.replace(drawn, name=name)


@cache
def _modules() -> tuple[ModuleType, ...]:
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    return tuple(sorted((each for each in modules if hasattr(each, "SECTION")), key=lambda each: each.SECTION.order))
