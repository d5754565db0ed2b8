"""IoU of each class on the original, under bilinear and under the best methods (segmentation)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from srbench.report.drawn import Drawn, drawing
from srbench.report.figures.scope import Entry, Scope
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import Looks, canvas, dress, finite, handle, legend_below, names_axis, percent_axis

SECTION = Section("iou", "Class by class: IoU", order=41)

MOST = 40  # classes; of more the ones that bilinear loses most of


def draw(material: Material) -> Iterator[Drawn]:
    """Yield one figure a task and network that says which class each pixel is of."""
    yield from material.each(_draw)


def _draw(scope: Scope, looks: Looks) -> Iterator[Drawn]:
    tables = [
        (entry, table)
        for entry in scope.chosen(frozen=2)
        if (table := scope.classes(entry)) is not None and "iou" in table and table["iou"].notna().any()
    ]
    if tables:
        yield _figure(scope, looks, tables)


@drawing()
def _figure(scope: Scope, looks: Looks, tables: list[tuple[Entry, pd.DataFrame]]) -> Drawn:
    names = _ordered(tables)
    figure = canvas(1.0 + 0.26 * len(names), legend=[entry.row.label for entry, _ in tables])
    axes = figure.subplots()
    dress(axes, x="IoU, %", grid="x")
    series = []
    for entry, table in tables:
        by_name = table.set_index("class").loc[names]
        low, high = by_name["iou_low"], by_name["iou_high"]
        look = looks.of(entry.row)
        axes.plot(by_name["iou"], range(len(names)), **look.points(markersize=5))
        axes.hlines(range(len(names)), low, high, color=look.colour, linewidth=1.0, alpha=0.5)
        series.append(
            {
                "label": entry.row.label,
                "track": entry.row.track,
                "iou": [finite(value) for value in by_name["iou"]],
                "low": [finite(value) for value in low],
                "high": [finite(value) for value in high],
            }
        )
    names_axis(axes.yaxis, names)
    axes.invert_yaxis()
    percent_axis(axes.xaxis)
    legend_below(
        figure,
        [handle(**looks.of(entry.row).points(markersize=5)) for entry, _ in tables],
        [entry.row.label for entry, _ in tables],
    )
    caption = (
        f"Intersection over union of each class over {scope.over}, from counts summed over all of them, with the 95 %"
        " interval of images drawn anew. The classes that bilinear loses most of stand first."
    )
    data = {"task": scope.task, "classifier": scope.classifier, "classes": names, "series": series}
    return Drawn(
        f"iou-{scope.tag}", SECTION.name, scope.task, scope.classifier, "IoU of each class", caption, figure, data
    )


def _ordered(tables: list[tuple[Entry, pd.DataFrame]]) -> list[str]:
    """Return the classes that all tables have, the one that falls most from the first table to the second first."""
    first = tables[0][1].set_index("class")["iou"]
    shared = [name for name in first.index if all(name in set(table["class"]) for _, table in tables)]
    if len(tables) > 1:
        second = tables[1][1].set_index("class")["iou"]
        shared.sort(key=lambda name: float(second[name] - first[name]))
    return shared[:MOST]
