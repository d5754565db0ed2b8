"""What a method does to single classes: distribution of the F1 differences, difficulty, extremes (DarioNet, 3 to 5)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d import Axes3D
from numpy.typing import NDArray

from srbench.leaderboard import BASELINE, ORACLE
from srbench.report.drawn import INK, Drawn, drawing
from srbench.report.figures.scope import Entry, Scope
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import (
    Looks,
    canvas,
    counted,
    dress,
    finite,
    handle,
    legend_below,
    names_axis,
    percent,
    percent_axis,
)

SECTION = Section("classes", "Class by class", order=40)

Floats = NDArray[np.float64]

DISTRIBUTION_METHODS = 4
DISTRIBUTION_STEPS = 100
HARDEST = 12
EXTREMES = 8
DIFFICULTY_BINS = 10
_RASTER_FROM = 150
_MINIMUM_CLASSES = 2


def draw(material: Material) -> Iterator[Drawn]:
    """Yield the figures of every task and classifier."""
    yield from material.each(_draw_scope)


def _draw_scope(scope: Scope, looks: Looks) -> Iterator[Drawn]:
    """Yield the per-class figures of a task and classifier with labels."""
    tables = {id(entry): table for entry in scope.entries if (table := scope.classes(entry)) is not None}
    if any("iou" in table and table["iou"].notna().any() for table in tables.values()):
        return  # classes of pixels have figures of their own
    oracle, reference = scope.oracle, scope.reference
    if not any(len(table) >= _MINIMUM_CLASSES for table in tables.values()):
        return
    if oracle is not None or reference is not None:
        figure = _distribution(scope, looks)
        if figure is not None:
            yield figure
    if oracle is not None and id(oracle) in tables:
        shown = [entry for entry in scope.chosen(oracle=False) if id(entry) in tables]
        if shown:
            yield _difficulty(scope, looks, shown)
        if reference is not None:
            for entry in scope.best:
                yield _space(scope, looks, entry)
        yield _hardest(scope, looks, [oracle, *shown])
    for entry in scope.best:
        for against, base in ((BASELINE, reference), (ORACLE, oracle)):
            if base is not None:
                yield _extremes(scope, looks, entry, against)


def _table(scope: Scope, entry: Entry) -> pd.DataFrame:
    table = scope.classes(entry)
    assert table is not None
    return table


def _numbers(values: Any) -> list[float | None]:
    return [None if math.isnan(value) else value for value in np.asarray(values, dtype=np.float64).tolist()]


def _per_class_error(scope: Scope, entry: Entry) -> str:
    """Return a sentence on how little one class's images say."""
    support = float(_table(scope, entry)["support"].median())
    return (
        f"A class has a median of {counted(round(support), scope.record.dataset.unit)},"
        f" so that a single F1 has a standard error near {50 / math.sqrt(max(support, 1.0)):.0f} points."
    )


# --- distribution ------------------------------------------------------------------------------------------------


@drawing()
def _distribution(scope: Scope, looks: Looks) -> Drawn | None:
    """Share of the classes whose F1 difference is at most x, against the original and against bilinear."""
    panels = []
    for against, base in ((ORACLE, scope.oracle), (BASELINE, scope.reference)):
        curves = []
        for entry in scope.chosen(frozen=DISTRIBUTION_METHODS, oracle=False, reference=against == ORACLE):
            table = scope.classes(entry)
            if base is not None and table is not None:
                values = np.sort(table[f"f1_delta_to_{against}"].dropna().to_numpy(dtype=np.float64))
                if values.size >= _MINIMUM_CLASSES:
                    curves.append((entry, values))
        if curves:
            panels.append((against, curves))
    if not panels:
        return None
    shown = list(dict.fromkeys(id(entry) for _, curves in panels for entry, _ in curves))
    by_id = {id(entry): entry for _, curves in panels for entry, _ in curves}
    labels = [by_id[key].label for key in shown]
    figure = canvas(0.3 + 2.1 * len(panels), legend=labels)
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    data = []
    widest = max(float(np.abs(values).max()) for _, curves in panels for _, values in curves)
    edge = 1.04 * widest or 0.01
    for axes, (against, curves) in zip(grid[:, 0], panels, strict=True):
        dress(axes, x=f"F1 minus that of {against}, points", y="classes, %")
        axes.axvline(0.0, color=INK, linewidth=0.9, alpha=0.6)
        for entry, values in curves:
            steps, shares = _steps(values)
            look = looks.of(entry.row)
            axes.step([-edge, *steps, edge], [0.0, *shares, 1.0], where="post", **look.curve())
            every = max(1, len(steps) // 6)
            axes.plot(steps[every // 2 :: every], shares[every // 2 :: every], **look.points(markersize=4.5))
            data.append(
                {
                    **entry.named,
                    "against": against,
                    "classes": len(values),
                    "mean": float(values.mean()),
                    "lost": float((values < 0).mean()),
                    "gained": float((values > 0).mean()),
                    "delta": steps.tolist(),
                    "share": shares.tolist(),
                }
            )
        axes.set_xlim(-edge, edge)
        percent_axis(axes.xaxis)
        percent_axis(axes.yaxis)
    legend_below(figure, [handle(**looks.of(by_id[key].row).both(markersize=4.5)) for key in shown], labels)
    caption = (
        f"Share of the classes whose F1 changes by at most so much, over {scope.over}: the height at 0 is the share"
        " that gains nothing, and the further right a line, the better."
    )
    best = next((each for each in data if each["against"] == BASELINE), None)
    if best is not None:
        caption += (
            f" Against bilinear, {best['method']} gains in {percent(round(best['gained'], 3))} % of {best['classes']}"
            f" classes and loses in {percent(round(best['lost'], 3))} %."
        )
    return Drawn(
        f"classes-distribution-{scope.tag}",
        "classes",
        scope.task,
        scope.classifier,
        "Distribution of the per-class F1 difference",
        caption,
        figure,
        {"curves": data},
    )


def _steps(values: Floats) -> tuple[Floats, Floats]:
    """Return where the empirical distribution of sorted values is drawn, and its height there."""
    places = np.unique(values)
    if len(places) > DISTRIBUTION_STEPS:
        places = places[np.unique(np.linspace(0, len(places) - 1, DISTRIBUTION_STEPS).round().astype(int))]
    return places, np.searchsorted(values, places, side="right") / len(values)


# --- difficulty --------------------------------------------------------------------------------------------------


@drawing()
def _difficulty(scope: Scope, looks: Looks, shown: Sequence[Entry]) -> Drawn:
    """F1 minus the original's against 1 - F1 on the original."""
    oracle = scope.oracle
    assert oracle is not None
    difficulty = 1.0 - _table(scope, oracle)["f1"].to_numpy(dtype=np.float64)
    labels = [entry.label for entry in shown]
    figure = canvas(3.0, legend=[*labels, "mean"])
    axes = figure.subplots()
    dress(axes, x="difficulty: 1 - F1 on the original, points", y="F1 minus the original's, points")
    axes.axhline(0.0, color=INK, linewidth=0.9, alpha=0.6)
    data = []
    dense = len(difficulty) > _RASTER_FROM
    for entry in shown:
        look = looks.of(entry.row)
        delta = _table(scope, entry)[f"f1_delta_to_{ORACLE}"].to_numpy(dtype=np.float64)
        size = 2.2 if dense else 5.5
        axes.plot(difficulty, delta, **look.points(markersize=size, alpha=0.3 if dense else 0.85, rasterized=dense))
        middles, means = _binned(difficulty, delta)
        if dense:
            axes.plot(middles, means, **look.both(markersize=5.0, linewidth=1.8))
        data.append({**entry.named, "delta": _numbers(delta), "bin_difficulty": middles, "bin_delta": means})
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    legend_below(figure, [handle(**looks.of(entry.row).both(markersize=5)) for entry in shown], labels)
    caption = (
        f"One point a class ({len(difficulty)} classes, {scope.over}): how much F1 is lost to the original, against how"
        " hard the class is even there. A class of F1 0 on the original can only gain."
        + (" Lines: means of tenths of the classes." if dense else "")
        + f" {_per_class_error(scope, oracle)}"
    )
    return Drawn(
        f"classes-difficulty-{scope.tag}",
        "classes",
        scope.task,
        scope.classifier,
        "Per-class F1 difference against difficulty",
        caption,
        figure,
        {"classes": _table(scope, oracle)["class"].tolist(), "difficulty": difficulty.tolist(), "methods": data},
    )


def _binned(x: Floats, y: Floats) -> tuple[list[float], list[float]]:
    """Return mean x and mean y of up to ten equal parts of the points in order of x."""
    kept = np.isfinite(x) & np.isfinite(y)
    order = np.argsort(x[kept], kind="stable")
    parts = [part for part in np.array_split(order, DIFFICULTY_BINS) if part.size]
    return (
        [float(x[kept][part].mean()) for part in parts],
        [float(y[kept][part].mean()) for part in parts],
    )


@drawing()
def _space(scope: Scope, looks: Looks, entry: Entry) -> Drawn:
    """The paper's view in space: difficulty, bilinear's F1 and the difference of a method to it."""
    assert scope.oracle is not None and scope.reference is not None
    table = _table(scope, entry)
    difficulty = 1.0 - _table(scope, scope.oracle)["f1"].to_numpy(dtype=np.float64)
    base = _table(scope, scope.reference)["f1"].to_numpy(dtype=np.float64)
    delta = table[f"f1_delta_to_{BASELINE}"].to_numpy(dtype=np.float64)
    look = looks.of(entry.row)
    figure = Figure(figsize=(4.8, 4.2))
    axes = Axes3D(figure, rect=(0.02, 0.06, 0.84, 0.94), auto_add_to_figure=False)
    figure.add_axes(axes)
    axes.view_init(elev=20, azim=-58)
    for axis, text in (
        (axes.xaxis, "difficulty, points"),
        (axes.yaxis, "F1 of bilinear, points"),
        (axes.zaxis, "F1 minus bilinear's, points"),
    ):
        axis.pane.set(facecolor="none", edgecolor=INK, alpha=0.25)  # type: ignore[attr-defined]
        axis.line.set_color(INK)  # type: ignore[attr-defined]
        axis.set_label_text(text)
        axis.label.set_color(INK)
        axis._axinfo["grid"].update({"color": (*_ink_rgb(), 0.15), "linewidth": 0.6})  # type: ignore[attr-defined]
        percent_axis(axis)
        axis.set_major_locator(MaxNLocator(5))
        axis.set_tick_params(colors=INK, labelsize=9)
    dense = len(difficulty) > _RASTER_FROM
    if not dense:
        for x, y, z in zip(difficulty, base, delta, strict=True):
            axes.plot([x, x], [y, y], [0.0, z], color=look.colour, linewidth=0.9, alpha=0.75)
    axes.plot(
        difficulty,
        base,
        delta,
        **look.points(markersize=2.5 if dense else 5.5, alpha=0.5 if dense else 0.9, rasterized=dense),
    )
    caption = (
        f"{entry.row.label}: one point a class ({len(difficulty)} classes, {scope.over}). Height: F1 minus bilinear's,"
        f" over the class's difficulty (1 - F1 on the original) and bilinear's F1."
        f"{'' if dense else ' The stems start at no difference.'}"
    )
    data = {
        **entry.named,
        "classes": table["class"].tolist(),
        "difficulty": difficulty.tolist(),
        "reference_f1": base.tolist(),
        "delta": _numbers(delta),
    }
    return Drawn(
        f"classes-space-{entry.tag}-{scope.tag}",
        "classes",
        scope.task,
        scope.classifier,
        f"Difficulty, F1 of bilinear and gain of {entry.row.label}",
        caption,
        figure,
        data,
    )


def _ink_rgb() -> tuple[float, ...]:
    return tuple(int(INK[at : at + 2], 16) / 255 for at in (1, 3, 5))


# --- single classes ----------------------------------------------------------------------------------------------


@drawing()
def _hardest(scope: Scope, looks: Looks, shown: Sequence[Entry]) -> Drawn:
    """F1 of the classes that are hardest on the original."""
    assert scope.oracle is not None
    truth = _table(scope, scope.oracle)
    places = np.argsort(truth["f1"].to_numpy(dtype=np.float64), kind="stable")[:HARDEST]
    names = truth["class"].iloc[places].tolist()
    labels = [entry.label for entry in shown]
    figure = canvas(0.7 + 0.27 * len(names), legend=labels)
    axes = figure.subplots()
    dress(axes, x="F1, %")
    names_axis(axes.yaxis, names)
    lines = []
    for entry in shown:
        look = looks.of(entry.row)
        f1 = _table(scope, entry)["f1"].iloc[places].to_numpy(dtype=np.float64)
        # Equal values of several methods stay visible side by side.
        offset = 0.13 * (shown.index(entry) - (len(shown) - 1) / 2)
        size = 8.0 if entry is scope.oracle else 6.0
        axes.plot(f1, np.arange(len(names)) + offset, **look.points(markersize=size, clip_on=False))
        lines.append({**entry.named, "f1": f1.tolist()})
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0.0, 1.0)
    percent_axis(axes.xaxis)
    legend_below(figure, [handle(**looks.of(entry.row).points()) for entry in shown], labels)
    which = f"the {len(names)} classes of {len(truth)} with the lowest F1 on the original"
    caption = (
        f"F1 of {which if len(names) < len(truth) else f'all {len(names)} classes'}, those hardest on the original on"
        f" top ({scope.over}). {_per_class_error(scope, scope.oracle)}"
    )
    return Drawn(
        f"classes-hardest-{scope.tag}",
        "classes",
        scope.task,
        scope.classifier,
        "The hardest classes",
        caption,
        figure,
        {"classes": names, "class_index": truth["class_index"].iloc[places].tolist(), "methods": lines},
    )


@drawing()
def _extremes(scope: Scope, looks: Looks, entry: Entry, against: str) -> Drawn:
    """The classes that gained and lost most, with intervals."""
    table = _table(scope, entry)
    column = f"f1_delta_to_{against}"
    known = table[table[column].notna()].sort_values([column, "class_index"], ascending=[False, True])
    if len(known) > 2 * EXTREMES:
        known = pd.concat([known.head(EXTREMES), known.tail(EXTREMES)])
        split = EXTREMES
    else:
        split = int((known[column] >= 0).sum())
    names = known["class"].tolist()
    delta = known[column].to_numpy(dtype=np.float64)
    low = known[f"{column}_low"].to_numpy(dtype=np.float64)
    high = known[f"{column}_high"].to_numpy(dtype=np.float64)
    look = looks.of(entry.row)
    figure = canvas(0.6 + 0.22 * len(names))
    axes = figure.subplots()
    dress(axes, x=f"F1 minus that of {against}, points")
    names_axis(axes.yaxis, names)
    places = np.arange(len(names))
    axes.axvline(0.0, color=INK, linewidth=0.9, alpha=0.6)
    if 0 < split < len(names):
        axes.axhline(split - 0.5, color=INK, linewidth=0.8, linestyle=":")
    for place, left, right in zip(places, low, high, strict=True):
        if math.isfinite(left) and math.isfinite(right):
            axes.plot([left, right], [place, place], color=look.colour, linewidth=1.2, alpha=0.75)
    axes.plot(delta, places, **look.points())
    axes.set_ylim(len(names) - 0.5, -0.5)
    percent_axis(axes.xaxis)
    excluded = int(((low > 0) | (high < 0)).sum())
    caption = (
        f"{entry.row.label}: per-class F1 minus that of {against}, with 95 % intervals, "
        + (
            f"for the {EXTREMES} highest and the {EXTREMES} lowest of {len(table)} classes"
            if len(table) > len(names)
            else f"for all {len(names)} classes"
        )
        + f" ({scope.over}); {excluded} of the {len(names)} intervals leave 0 out. {_per_class_error(scope, entry)}"
        + (" The extremes of many classes are extreme by chance too." if len(table) > len(names) else "")
    )
    data = {
        **entry.named,
        "against": against,
        "classes": names,
        "class_index": known["class_index"].tolist(),
        "support": known["support"].tolist(),
        "delta": delta.tolist(),
        "low": [finite(value) for value in low.tolist()],
        "high": [finite(value) for value in high.tolist()],
    }
    return Drawn(
        f"classes-extremes-{against}-{entry.tag}-{scope.tag}",
        "classes",
        scope.task,
        scope.classifier,
        f"Classes that gained and lost most: {entry.row.label} against {against}",
        caption,
        figure,
        data,
    )
