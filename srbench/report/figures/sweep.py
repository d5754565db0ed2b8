"""Accuracy and PSNR against the scale, where tasks differ in nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from srbench.metrics.catalogue import metric
from srbench.records.schema import Record
from srbench.report.drawn import INK, Drawn, drawing
from srbench.report.figures.families import families, series_of
from srbench.report.figures.scope import Scope
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import (
    Looks,
    canvas,
    dress,
    finite,
    handle,
    legend_below,
    percent_axis,
    slug,
)

SECTION = Section("sweep", "From scale to scale", order=20)
_SCALE = (("lr", "scale"), ("lr", "lr_side"))


def draw(material: Material) -> Iterator[Drawn]:
    """Yield accuracy and PSNR against the scale, where tasks differ in nothing else."""
    pictured: set[str] = set()
    for family in families(material.scopes, _SCALE, _scale):
        names = dict.fromkeys((family[0].score_name, "psnr"))
        for name in names:
            # Classifiers share the images, so PSNR is drawn once.
            once = "+".join(scope.task for scope in family)
            if name == "psnr" and once in pictured:
                continue
            drawn = _sweep(family, material.looks, name)
            if drawn is not None:
                pictured.update({once} if name == "psnr" else set())
                yield drawn


def _scale(record: Record) -> float | None:
    fields = record.protocol.fields
    scale, side = fields.get("lr", {}).get("scale"), fields.get("lr", {}).get("lr_side")
    crop = fields.get("hr", {}).get("crop")
    if scale is not None:
        return float(scale)
    return side / crop if side and crop else None


def area_under(points: Sequence[tuple[float, float]]) -> float:
    """Return the mean height of a polyline through (x, y) in ascending x: its trapezoids over its span."""
    total = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in itertools.pairwise(points))
    return total / (points[-1][0] - points[0][0])


@drawing()
def _sweep(family: Sequence[Scope], looks: Looks, name: str) -> Drawn | None:
    scales = [_scale(scope.record) for scope in family]
    lines = []
    for series in series_of(family):
        points: list[dict[str, Any]] = []
        for scope, scale, entry in zip(family, scales, series.entries, strict=True):
            value = finite(entry.row[name]) if entry is not None else None
            if entry is not None and isinstance(value, float) and scale is not None:
                low, high = entry.row.ci.get(name, (None, None))
                points.append({"scale": scale, "task": scope.task, "value": value, "low": low, "high": high})
        if points:
            whole = len(points) == len(family)
            area = area_under([(point["scale"], point["value"]) for point in points]) if whole else None
            lines.append((series, points, area))
    if not any(len(points) > 1 for _, points, _ in lines):
        return None
    share = metric(name).share
    lines.sort(key=lambda line: (line[2] is None, -(line[2] or 0.0)))
    labels = [f"{series.label}: {_amount(area, share)}" for series, _, area in lines]
    handles = [handle(**looks.of(series.first.row).both(markersize=5)) for series, _, _ in lines]
    oracle = [finite(scope.oracle.row[name]) if scope.oracle is not None else None for scope in family]
    ceiling = oracle[0] if share and isinstance(oracle[0], float) else None
    if ceiling is not None:
        labels.insert(0, "original")
        handles.insert(0, handle(color=INK, linestyle=":", linewidth=1.4))
    figure = canvas(3.1, legend=labels)
    axes = figure.subplots()
    dress(axes, x="scale (LR side / HR side)", y=metric(name).axis)
    for series, points, _ in lines:
        look = looks.of(series.first.row)
        x = [point["scale"] for point in points]
        axes.plot(x, [point["value"] for point in points], **look.both(markersize=5))
        for point in points:
            if point["low"] is not None:
                ends = [point["low"], point["high"]]
                axes.plot([point["scale"]] * 2, ends, color=look.colour, linewidth=1.0, alpha=0.75)
    if ceiling is not None:
        axes.axhline(ceiling, color=INK, linestyle=":", linewidth=1.4)
    if share:
        percent_axis(axes.yaxis)
    legend_below(figure, handles, labels)
    classifier = family[0].classifier if share else None
    first, last = scales[0], scales[-1]
    word = metric(name).word
    caption = (
        f"{word[0].upper()}{word[1:]} over {family[0].over} at {len(family)} scales, with its 95 % interval."
        f" Behind each name: the area under its line between {first:g} and {last:g}, divided by that span,"
        " which is its mean height; a dash where a scale is missing."
    )
    data = {
        "y": name,
        "tasks": [scope.task for scope in family],
        "scales": scales,
        "oracle": oracle if share else None,
        "series": [
            {
                "label": series.label,
                "method": series.first.row.method,
                "track": series.first.row.track,
                "points": points,
                "area": area,
            }
            for series, points, area in lines
        ],
    }
    return Drawn(
        f"sweep-{name}-{slug(family[0].task)}-{slug(classifier)}",
        "sweep",
        None,
        classifier,
        f"{word[0].upper()}{word[1:]} against scale",
        caption,
        figure,
        data,
    )


def _amount(value: float | None, share: bool) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if share else f"{value:.2f} dB"
