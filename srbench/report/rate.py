"""Accuracy against mean bytes, with intervals and the frontier, as one SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from srbench.evaluation.rate import RateResult
from srbench.files.atomic import write_bytes
from srbench.report.drawn import INK, drawing
from srbench.report.figures.style import canvas, dress, legend_below, percent_axis

_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2", "#97bbf5", "#9c6b4e")
_MARKERS = "osD^vPX*"


def draw_rate(result: RateResult, path: Path) -> None:
    """Write the figure.

    Raises:
        RecordError: If the file cannot be written.
    """
    with drawing():
        curves: dict[str, list[int]] = {}
        for number, each in enumerate(result.scored):
            curves.setdefault(f"{each.setting.method}, {each.setting.codec}, {each.setting.side} px", []).append(number)
        figure = canvas(4.2, legend=[*curves, "frontier"])
        axes = figure.subplots()
        handles: list[Any] = []
        for index, numbers in enumerate(curves.values()):
            points = sorted((result.scored[number] for number in numbers), key=lambda each: each.point)
            x, y = zip(*(each.point for each in points), strict=True)
            ends = [[each.point[1] - each.low for each in points], [each.high - each.point[1] for each in points]]
            handles.append(
                axes.errorbar(
                    x,
                    y,
                    yerr=ends,
                    color=_COLOURS[index % len(_COLOURS)],
                    marker=_MARKERS[index % len(_MARKERS)],
                    markersize=4,
                    linewidth=1.2,
                    elinewidth=0.8,
                    capsize=2,
                )
            )
        edge = [each.point for each in result.frontier]
        handles += axes.plot(*zip(*edge, strict=True), color=INK, linewidth=0.9, linestyle="--", zorder=0)
        axes.set_xscale("log")
        percent_axis(axes.yaxis)
        dress(axes, x="mean bytes an image", y=f"accuracy of {result.network}")
        legend_below(figure, handles, [*curves, "frontier"])
        write_bytes(path, lambda file: figure.savefig(file, format="svg", metadata={"Date": None}))
