"""Accuracy against what it costs: latency, multiply-accumulates and parameters, with the Pareto front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from srbench.metrics.catalogue import metric
from srbench.report.drawn import INK, Drawn, drawing
from srbench.report.figures.scope import Scope
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import (
    Looks,
    canvas,
    dress,
    finite,
    handle,
    legend_below,
    log_axis,
    percent_axis,
)

SECTION = Section("cost", "Accuracy and its price", order=10)


@dataclass(frozen=True)
class _Cost:
    """A kind of cost.

    Attributes:
        field: Metric of the row.
        tag: Part of the figure's name.
        title: Its name in the title.
        axis: Label of its axis.
        prefix: Whether the axis has k, M and G.
        ends: Metrics of the lower and upper end of its repeats, none where it is no measurement.
    """

    field: str
    tag: str
    title: str
    axis: str
    prefix: bool
    ends: tuple[str, str] | None = None


_COSTS = (
    _Cost(
        "latency_ms",
        "latency",
        "latency",
        "latency of restoring one image, ms",
        False,
        ("latency_p10_ms", "latency_p90_ms"),
    ),
    _Cost("macs", "macs", "multiply-accumulates", "multiply-accumulates an image", True),
    _Cost("parameters", "parameters", "parameters", "parameters", True),
)
_LINES = {"frozen": "-", "adapted": "--"}


def draw(material: Material) -> Iterator[Drawn]:
    """Yield the figures of every task and classifier."""
    yield from material.each(_draw_scope)


def _draw_scope(scope: Scope, looks: Looks) -> Iterator[Drawn]:
    """Yield one figure a kind of cost that at least one method has."""
    for cost in _COSTS:
        points, left_out = _points(scope, cost)
        if any(point["x"] > 0 for point in points):
            yield _draw(scope, looks, cost, points, left_out)


def _points(scope: Scope, cost: _Cost) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what is drawn, and the labels of those whose cost is not known."""
    points: list[dict[str, Any]] = []
    left_out: list[str] = []
    for at, entry in enumerate(scope.entries):
        row = entry.row
        x, y = row[cost.field], finite(scope.score(row))
        if row.role == "oracle" or not isinstance(y, float):
            continue
        if x is None:
            left_out.append(row.label)
            continue
        low, high = row.ci.get(scope.score_name, (None, None))
        points.append(
            {
                "entry": at,
                "method": row.method,
                "weights": row.weights,
                "track": row.track,
                "role": row.role,
                "x": float(x),
                "y": y,
                "low": low,
                "high": high,
            }
            | ({} if cost.ends is None else {"x_low": row[cost.ends[0]], "x_high": row[cost.ends[1]]})
        )
    sign = 1 if metric(scope.score_name).higher_is_better else -1
    for point in points:
        rivals = [other for other in points if other["track"] == point["track"] and other["role"] != "control"]
        point["on_front"] = point["role"] != "control" and not any(
            other["x"] <= point["x"]
            and sign * other["y"] >= sign * point["y"]
            and (other["x"] < point["x"] or other["y"] != point["y"])
            for other in rivals
        )
    return points, left_out


@drawing()
def _draw(scope: Scope, looks: Looks, cost: _Cost, points: list[dict[str, Any]], left_out: list[str]) -> Drawn:
    shown = [scope.entries[point["entry"]] for point in points]
    labels = [entry.label for entry in shown]
    handles = [handle(**looks.of(entry.row).points()) for entry in shown]
    oracle = scope.oracle
    best = finite(scope.score(oracle.row)) if oracle is not None else None
    if isinstance(best, float):
        labels.insert(0, "original")
        handles.insert(0, handle(color=INK, linestyle=":", linewidth=1.4))
    fronts = [track for track in _LINES if sum(p["on_front"] and p["track"] == track for p in points) > 1]
    for track in fronts:
        labels.append("Pareto front" if track == "frozen" else "Pareto front, adapted")
        handles.append(handle(color=INK, linestyle=_LINES[track], linewidth=1.0))

    figure = canvas(3.1, legend=labels)
    free = [point for point in points if point["x"] == 0]
    if free:
        zero, main = figure.subplots(1, 2, sharey=True, width_ratios=[min(1.0, 0.25 + 0.09 * len(free)), 2.2])
        dress(zero, y=metric(scope.score_name).axis, grid="y")
        zero.set_xticks([])
        zero.set_xlabel("none")
        zero.set_xlim(-0.8, len(free) - 0.2)
        dress(main, x=cost.axis)
        main.tick_params(left=False, labelleft=False)
        main.spines["left"].set_linestyle((0, (2, 3)))
    else:
        zero, main = None, figure.subplots()
        dress(main, x=cost.axis, y=metric(scope.score_name).axis)
    log_axis(main, [point["x"] for point in points if point["x"] > 0], prefix=cost.prefix)
    place = {id(point): at for at, point in enumerate(free)}
    for point, entry in zip(points, shown, strict=True):
        axes, x = (main, point["x"]) if point["x"] > 0 else (zero, place[id(point)])
        assert axes is not None
        look = looks.of(entry.row)
        if point["low"] is not None:
            axes.plot([x, x], [point["low"], point["high"]], color=look.colour, linewidth=1.0, alpha=0.75)
        if axes is main and point.get("x_low") is not None and point.get("x_high") is not None:
            axes.plot([point["x_low"], point["x_high"]], [point["y"]] * 2, color=look.colour, linewidth=1.0, alpha=0.75)
        axes.plot([x], [point["y"]], **look.points(markersize=7.5 if point["on_front"] else 5.5))
    for axes in (zero, main):
        if axes is not None and isinstance(best, float):
            axes.axhline(best, color=INK, linestyle=":", linewidth=1.4)
    for track in fronts:
        _front(main, zero, [p for p in points if p["on_front"] and p["track"] == track], _LINES[track], place)
    if metric(scope.score_name).share:
        percent_axis(main.yaxis)
    legend_below(figure, handles, labels)
    data = {
        "x": cost.field,
        "y": scope.score_name,
        "oracle": best,
        "points": [{name: value for name, value in point.items() if name != "entry"} for point in points],
        "left_out": left_out,
    }
    return Drawn(
        f"cost-{cost.tag}-{scope.tag}",
        "cost",
        scope.task,
        scope.classifier,
        f"{_capital(metric(scope.score_name).word)} against {cost.title}",
        _caption(scope, cost, bool(free), left_out),
        figure,
        data,
    )


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _front(main: Axes, zero: Axes | None, points: Sequence[dict[str, Any]], line: str, place: dict[int, int]) -> None:
    """Draw the best that each cost buys as steps, from the methods that cost nothing on."""
    style: dict[str, Any] = {"color": INK, "linestyle": line, "linewidth": 1.0, "alpha": 0.7, "zorder": 1.5}
    ordered = sorted(points, key=lambda point: (point["x"], point["y"]))
    left, right = main.get_xlim()
    start = [point for point in ordered if point["x"] == 0]
    paid = [point for point in ordered if point["x"] > 0]
    if start and zero is not None:
        zero.plot([place[id(start[-1])], zero.get_xlim()[1]], [start[-1]["y"]] * 2, **style)
    xs = [*([left] if start else []), *(point["x"] for point in paid), right]
    ys = [*([start[-1]["y"]] if start else []), *(point["y"] for point in paid)]
    main.step(xs, [*ys, ys[-1]], where="post", **style)


def _caption(scope: Scope, cost: _Cost, free: bool, left_out: Sequence[str]) -> str:
    text = (
        f"Each method's {metric(scope.score_name).word} over {scope.over}"
        f"{' with its 95 % interval' if metric(scope.score_name).interval else ''} against its {cost.title};"
        " up and to the left is better. The line joins those that no other of their track beats in both."
    )
    if cost.ends is not None:
        text += " The horizontal line goes from the 10th to the 90th percentile of the repeats."
    if any(entry.row.role == "control" for entry in scope.entries):
        text += " Hollow markers are controls, which no line counts."
    if free:
        text += f" On the left, apart: methods without {cost.title}, side by side in no order of cost."
    if left_out:
        text += f" Not known, so not shown: {', '.join(left_out)}."
    return text
