"""IoU or AP of each class on the original, under bilinear and under the best methods (segmentation, detection)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from srbench.report.drawn import Drawn, drawing
from srbench.report.figures.scope import Entry, Scope
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import Looks, canvas, dress, finite, handle, legend_below, names_axis, percent_axis

SECTION = Section("class-scores", "Class by class: IoU, AP", order=41)

MOST = 40  # classes; of more the ones that bilinear loses most of
_SCORES = {"iou": ("IoU", "Intersection over union"), "ap": ("AP", "AP")}  # column -> short and long word


def draw(material: Material) -> Iterator[Drawn]:
    """Yield one figure a task and network that says which class each pixel is of, or where which objects are."""
    yield from material.each(_draw)


def _draw(scope: Scope, looks: Looks) -> Iterator[Drawn]:
    for score in _SCORES:
        tables = [
            (entry, table)
            for entry in scope.chosen(frozen=2)
            if (table := scope.classes(entry)) is not None and score in table and table[score].notna().any()
        ]
        if tables:
            yield _figure(scope, looks, tables, score)


@drawing()
def _figure(scope: Scope, looks: Looks, tables: list[tuple[Entry, pd.DataFrame]], score: str) -> Drawn:
    short, long = _SCORES[score]
    names = _ordered(tables, score)
    figure = canvas(1.0 + 0.26 * len(names), legend=[entry.row.label for entry, _ in tables])
    axes = figure.subplots()
    dress(axes, x=f"{short}, %", grid="x")
    series = []
    for entry, table in tables:
        by_name = table.set_index("class").loc[names]
        known = f"{score}_low" in by_name
        low, high = (by_name[f"{score}_{end}"] if known else [math.nan] * len(names) for end in ("low", "high"))
        look = looks.of(entry.row)
        axes.plot(by_name[score], range(len(names)), **look.points(markersize=5))
        if known:
            axes.hlines(range(len(names)), low, high, color=look.colour, linewidth=1.0, alpha=0.5)
        series.append(
            {
                "label": entry.row.label,
                "track": entry.row.track,
                score: [finite(value) for value in by_name[score]],
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
        f"{long} of each class over {scope.over}"
        + (", from counts summed over all of them, with the 95 % interval of images drawn anew" if known else "")
        + ". The classes that bilinear loses most of stand first."
    )
    data = {"task": scope.task, "classifier": scope.classifier, "classes": names, "series": series}
    return Drawn(
        f"{score}-{scope.tag}",
        SECTION.name,
        scope.task,
        scope.classifier,
        f"{short} of each class",
        caption,
        figure,
        data,
    )


def _ordered(tables: list[tuple[Entry, pd.DataFrame]], score: str) -> list[str]:
    """Return the classes that all tables have, the one that falls most from the first table to the second first."""
    first = tables[0][1].set_index("class")[score]
    shared = [name for name in first.index if all(name in set(table["class"]) for _, table in tables)]
    if len(tables) > 1:
        second = tables[1][1].set_index("class")[score]
        shared.sort(key=lambda name: float(second[name] - first[name]))
    return shared[:MOST]
