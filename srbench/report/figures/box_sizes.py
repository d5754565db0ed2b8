"""AP by size of object on the original, under bilinear and under the best methods (detection)."""

from __future__ import annotations

from collections.abc import Iterator

from srbench.metrics.boxes import SIZES
from srbench.report.drawn import Drawn, drawing
from srbench.report.figures.scope import Entry, Scope
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import Looks, canvas, dress, finite, handle, legend_below, names_axis, percent_axis

SECTION = Section("box-sizes", "By size of object", order=42)

_NAMES = {f"ap_{size}": size for size in SIZES if size != "all"}
_SPREAD = 0.5  # of the room of a size, over which its points are spread


def draw(material: Material) -> Iterator[Drawn]:
    """Yield one figure a task and network that says where which objects are."""
    yield from material.each(_draw)


def _draw(scope: Scope, looks: Looks) -> Iterator[Drawn]:
    entries = scope.chosen(frozen=2)
    names = [name for name in _NAMES if any(_value(entry, name) is not None for entry in entries)]
    if names:
        yield _figure(scope, looks, entries, names)


@drawing()
def _figure(scope: Scope, looks: Looks, entries: list[Entry], names: list[str]) -> Drawn:
    figure = canvas(0.9 + 0.55 * len(names), legend=[entry.row.label for entry in entries])
    axes = figure.subplots()
    dress(axes, x="AP, %", grid="x")
    series = []
    for number, entry in enumerate(entries):
        look = looks.of(entry.row)
        values = [_value(entry, name) for name in names]
        ends = [entry.row.ci.get(name, (None, None)) for name in names]
        shift = _SPREAD * ((number + 0.5) / len(entries) - 0.5)
        for place, (value, (low, high)) in enumerate(zip(values, ends, strict=True)):
            if value is None:
                continue
            axes.plot([value], [place + shift], **look.points(markersize=5))
            if low is not None and high is not None:
                axes.hlines([place + shift], low, high, color=look.colour, linewidth=1.0, alpha=0.5)
        series.append(
            {
                "label": entry.row.label,
                "track": entry.row.track,
                "ap": [finite(value) for value in values],
                "low": [finite(low) for low, _ in ends],
                "high": [finite(high) for _, high in ends],
            }
        )
    sizes = [_NAMES[name] for name in names]
    names_axis(axes.yaxis, sizes)
    axes.set_ylim(len(names) - 0.5, -0.5)
    percent_axis(axes.xaxis)
    legend_below(
        figure,
        [handle(**looks.of(entry.row).points(markersize=5)) for entry in entries],
        [entry.row.label for entry in entries],
    )
    caption = (
        f"AP of small objects (an area under 32 x 32 pixels of HR), medium ones (up to 96 x 96) and large ones over"
        f" {scope.over}, with the 95 % interval of images drawn anew."
    )
    data = {"task": scope.task, "classifier": scope.classifier, "sizes": sizes, "series": series}
    return Drawn(
        f"box-sizes-{scope.tag}", SECTION.name, scope.task, scope.classifier, "AP by size", caption, figure, data
    )


def _value(entry: Entry, name: str) -> float | None:
    value: float | None = entry.row[name]
    return value
