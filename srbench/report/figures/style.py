"""How figures look: one colour and marker a method, axes and legends in one ink, names from the data made safe."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from srbench.leaderboard import BASELINE, ORACLE, Row
from srbench.report.drawn import FONT_PT, INK

WIDTH = 5.0
WIDE = 7.0

# At least 3:1 on white and on #14171c, and apart under every kind of colour blindness.
PALETTE = ("#0072b2", "#d55e00", "#871eff", "#d20fc3", "#6987ff", "#b43c3c")
NEUTRAL = "#7f8790"
MARKERS = ("o", "^", "D", "v", "P", "X", "<", "p", ">", "h", "d")
_INCHES_A_HANDLE = 0.42
_INCHES_AROUND = 0.15
_INCHES_A_LINE = 0.19
_LEGEND_LIMIT = 60


@dataclass(frozen=True)
class Look:
    """How one method is drawn; `hollow` markers and dashed lines are controls."""

    colour: str
    marker: str
    hollow: bool = False
    line: str = "-"

    def points(self, **changes: Any) -> dict[str, Any]:
        """Return the keywords of `Axes.plot` for markers without a line."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markerfacecolor": "none" if self.hollow else self.colour,
            "markersize": 6.0,
            "linestyle": "none",
        } | changes

    def curve(self, **changes: Any) -> dict[str, Any]:
        """Return the keywords of `Axes.plot` for a line without markers."""
        return {"color": self.colour, "linestyle": self.line, "linewidth": 1.6} | changes

    def both(self, **changes: Any) -> dict[str, Any]:
        """Return the keywords of `Axes.plot` for a line with markers."""
        return self.points() | self.curve() | changes


class Looks:
    """The look of every method of a report, the same in all of its figures."""

    def __init__(self, rows: Iterable[Row]) -> None:
        """Give every method of these rows a look; networks come first, so that theirs differ most."""
        order = {"network": 0, "baseline": 1, "control": 2}
        roles: dict[tuple[str, str], str] = {}
        for row in rows:
            roles.setdefault((row.label, row.track), row.role)
        names = sorted(roles, key=lambda name: (order.get(roles[name], 3), name[1] != "frozen", name[0]))
        self._looks: dict[tuple[str, str], Look] = {}
        for name in names:
            at = len(self._looks)
            control = roles[name] == "control"
            self._looks[name] = Look(
                PALETTE[at % len(PALETTE)], MARKERS[at % len(MARKERS)], control, "--" if control else "-"
            )
        self._looks[BASELINE, "frozen"] = Look(NEUTRAL, "s")
        self._looks[ORACLE, "frozen"] = Look(INK, "*", line=":")

    def of(self, row: Row) -> Look:
        """Return the look of a row's method."""
        return self._looks[row.label, row.track]


# --- names from the data -----------------------------------------------------------------------------------------


def plain(text: str, limit: int = 40) -> str:
    """Return text that matplotlib draws as it stands: no formula, no line break, at most `limit` characters."""
    kept = shortened("".join(" " if unicodedata.category(each) in ("Cc", "Zl", "Zp") else each for each in text), limit)
    # A legend leaves out labels that begin with an underscore.
    return (f" {kept}" if kept.startswith("_") else kept).replace("$", r"\$")


def shortened(text: str, limit: int) -> str:
    """Return text of at most `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def slug(name: str | None) -> str:
    """Return a name of letters, digits and hyphens; one that loses more than punctuation ends in a hash of itself."""
    if name is None:
        return "none"
    kept = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48].strip("-")
    if kept and re.sub(r"[._ :/-]+", "-", name).strip("-") == kept:
        return kept
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:6]}".lstrip("-")


def counted(n: int, unit: str) -> str:
    """Return "264 patches"."""
    plural = unit if n == 1 else f"{unit}es" if unit.endswith(("ch", "sh", "s", "x")) else f"{unit}s"
    return f"{n:,} {plural}"


def percent(value: float) -> str:
    """Return a share as a percentage without superfluous digits: "12.5"."""
    return f"{100 * value:.6g}"


def metric_prefix(value: float) -> str:
    """Return a count as a person reads it: "267M"."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def finite(value: float | None) -> float | str | None:
    """Return a number as JSON can hold it: None for nan, "inf" for infinite."""
    if value is None or math.isnan(value):
        return None
    return float(value) if math.isfinite(value) else ("inf" if value > 0 else "-inf")


# --- axes --------------------------------------------------------------------------------------------------------


def canvas(height: float, *, width: float = WIDTH, legend: Sequence[str] = ()) -> Figure:
    """Return a figure in inches; it grows by what a legend of these labels below it takes."""
    rows = math.ceil(len(legend) / _columns(legend, width)) if legend else 0
    return Figure(figsize=(width, height + (0.1 + _INCHES_A_LINE * rows if rows else 0)), layout="constrained")


def dress(axes: Axes, *, x: str = "", y: str = "", grid: str = "both") -> None:
    """Label axes, and draw ticks and grid in ink."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.tick_params(which="both", colors=INK, width=0.7)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(visible=True, axis=grid)  # type: ignore[arg-type]


def legend_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Put a legend below the axes, in as many columns as fit."""
    if handles:
        figure.legend(
            list(handles),
            [plain(label, _LEGEND_LIMIT) for label in labels],
            loc="outside lower center",
            ncols=_columns(labels, figure.get_figwidth()),
            handlelength=1.5,
            columnspacing=1.0,
            borderaxespad=0.3,
            labelspacing=0.25,
        )


def _columns(labels: Sequence[str], width: float) -> int:
    """Return in how many columns a legend fits; matplotlib fills the columns one after the other, evenly."""
    widths = [_INCHES_A_HANDLE + _inches(label) for label in labels]
    for columns in range(len(labels), 1, -1):
        short, more = divmod(len(labels), columns)
        sizes = [short + 1] * more + [short] * (columns - more)
        starts = [sum(sizes[:at]) for at in range(columns)]
        if (
            sum(max(widths[start : start + size]) for start, size in zip(starts, sizes, strict=True))
            <= width - _INCHES_AROUND
        ):
            return columns
    return 1


def _inches(label: str) -> float:
    """Return how wide a label of a legend is."""
    font = FontProperties(family="DejaVu Sans", size=FONT_PT - 0.5)
    points, _, _ = text_to_path.get_text_width_height_descent(plain(label, _LEGEND_LIMIT), font, ismath=False)
    return float(points) / 72


def handle(**look: Any) -> Line2D:
    """Return a line for a legend."""
    return Line2D([], [], **look)


def percent_axis(axis: Axis) -> None:
    """Write shares as percentages."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: percent(round(value, 9))))


def log_axis(axes: Axes, values: Sequence[float], *, prefix: bool, axis: str = "x") -> None:
    """Make one axis logarithmic over positive values, with plain numbers as ticks."""
    low, high = min(values), max(values)
    decades = math.log10(high / low)
    margin = 10 ** max(0.08 * decades, 0.12)
    if axis == "x":
        axes.set_xscale("log")
        axes.set_xlim(low / margin, high * margin)
    else:
        axes.set_yscale("log")
        axes.set_ylim(low / margin, high * margin)
    ticks = axes.xaxis if axis == "x" else axes.yaxis
    if decades < 0.8:
        ticks.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    else:
        ticks.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2 else (1.0,), numticks=9))
    ticks.set_minor_locator(NullLocator())
    ticks.set_major_formatter(FuncFormatter(lambda value, _: metric_prefix(value) if prefix else f"{value:.4g}"))


def names_axis(axis: Axis, names: Sequence[str], *, limit: int = 26) -> None:
    """Put names at 0, 1, 2, ... of an axis."""
    axis.set_major_locator(FixedLocator(list(range(len(names)))))
    axis.set_ticklabels([plain(name, limit) for name in names])


# --- a matrix with its numbers -----------------------------------------------------------------------------------


def matrix(
    axes: Axes,
    values: Sequence[Sequence[float | None]],
    *,
    texts: Sequence[Sequence[str]] | None,
    colour: str = PALETTE[0],
    outlined: Iterable[tuple[int, int]] = (),
) -> None:
    """Draw shares as cells whose colour deepens with them, so that ink is legible on each in light and dark.

    Args:
        axes: Where; row 0 is on top.
        values: Rows of shares; values outside [0, 1] are drawn as 0 or 1, None as an empty cell.
        texts: What is written in each cell, or None to write nothing.
        colour: Colour of the cells.
        outlined: (row, column) of cells with a frame.
    """
    rows, columns = len(values), len(values[0])
    corners, colours = [], []
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            if value is not None and value > 0:
                left, top = column - 0.5, row - 0.5
                corners.append([(left, top), (left + 1, top), (left + 1, top + 1), (left, top + 1)])
                colours.append(to_rgba(colour, 0.08 + 0.62 * min(1.0, value)))
    axes.add_collection(PolyCollection(corners, facecolors=colours, edgecolors="none", rasterized=rows * columns > 150))
    for row, words in enumerate(texts or ()):
        for column, text in enumerate(words):
            axes.text(column, row, text, ha="center", va="center", fontsize=FONT_PT - 0.5, color=INK)
    for row, column in outlined:
        corner = column - 0.5, row - 0.5
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=INK, linewidth=1.2, clip_on=False))
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
