"""Accuracy of each method against the size at which the classifier sees its images, with the best size marked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from srbench.leaderboard.texts import best_sizes
from srbench.report.drawn import Drawn, drawing
from srbench.report.figures.scope import Entry, Scope
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import Looks, canvas, dress, handle, legend_below, percent_axis

SECTION = Section("input-size", "At which size the classifier looks", order=15)
_RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 13.0,
    "markerfacecolor": "none",
    "markeredgewidth": 1.3,
    "linestyle": "none",
}


def draw(material: Material) -> Iterator[Drawn]:
    """Yield one figure a task and classifier that were scored at several input sizes."""
    yield from material.each(_draw)


def _draw(scope: Scope, looks: Looks) -> Iterator[Drawn]:
    swept = [entry for entry in scope.entries if len(entry.row.accuracy_by_size) > 1]
    if swept:
        yield _figure(scope, sorted(swept, key=lambda entry: -(entry.row["accuracy_best"] or 0.0)), looks)


@drawing()
def _figure(scope: Scope, swept: list[Entry], looks: Looks) -> Drawn:
    series = [_series(entry) for entry in swept]
    labels = [f"{entry.row.label}: {_best(entry)}" for entry in swept]
    figure = canvas(3.4, legend=labels)
    axes = figure.subplots()
    dress(axes, x="input size, pixels (shortest side)", y="accuracy, %")
    for entry, line in zip(swept, series, strict=True):
        look = looks.of(entry.row)
        points = line["points"]
        axes.plot([each["size"] for each in points], [each["accuracy"] for each in points], **look.both(markersize=5))
        for each in points:
            if each["low"] is not None:
                axes.plot([each["size"]] * 2, [each["low"], each["high"]], color=look.colour, linewidth=1.0, alpha=0.5)
            if each["size"] in line["best_input_sizes"]:
                axes.plot([each["size"]], [each["accuracy"]], color=look.colour, **_RING)
    axes.set_xticks(sorted({each["size"] for line in series for each in line["points"]}))
    percent_axis(axes.yaxis)
    legend_below(figure, [handle(**looks.of(entry.row).both(markersize=5)) for entry in swept], labels)
    own = scope.record.dataset.sr_side
    caption = (
        f"Accuracy of {scope.classifier} over {scope.over} at each input size, with its 95 % interval. A ring marks the"
        " size that is best on a half of the samples; two rings mean that the halves disagree. Behind each name:"
        " accuracy at the best size, each half scored at the size that is best on the other."
        + (f" The protocol's own size is {own} pixels." if own is not None else "")
    )
    data = {"classifier": scope.classifier, "task": scope.task, "series": series}
    return Drawn(
        f"input-size-{scope.tag}",
        SECTION.name,
        scope.task,
        scope.classifier,
        "Accuracy against input size",
        caption,
        figure,
        data,
    )


def _series(entry: Entry) -> dict[str, Any]:
    row = entry.row
    points = []
    for size, accuracy in row.accuracy_by_size.items():
        low, high = row.ci.get(f"accuracy_by_size.{size}", (None, None))
        points.append({"size": int(size), "accuracy": accuracy, "low": low, "high": high, "p": row.p_by_size.get(size)})
    return {
        "label": row.label,
        "method": row.method,
        "track": row.track,
        "points": sorted(points, key=lambda each: each["size"]),
        "best_input_sizes": list(row.best_input_sizes),
        "accuracy_best": row["accuracy_best"],
    }


def _best(entry: Entry) -> str:
    best = entry.row["accuracy_best"]
    return "–" if best is None else f"{100 * best:.1f} % at {best_sizes(entry.row)}"
