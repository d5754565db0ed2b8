"""Figures across tables: sweeps over the scale, other resamplers, and weights judged by other classifiers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srbench.files.strict import canonical_json
from srbench.metrics.catalogue import metric
from srbench.records.schema import Record
from srbench.report.drawn import FONT_PT, INK, Drawn, drawing
from srbench.report.figures.scope import Entry, Scope
from srbench.report.figures.style import (
    WIDE,
    WIDTH,
    Looks,
    canvas,
    dress,
    finite,
    handle,
    legend_below,
    matrix,
    names_axis,
    percent_axis,
    plain,
    slug,
)

_RESAMPLER = (("lr", "kernel"), ("lr", "antialias"), ("lr", "border"), ("sr", "kernel"), ("sr", "antialias"))
_SCALE = (("lr", "scale"), ("lr", "lr_side"))


@dataclass(frozen=True)
class _Series:
    """One method through several tables; None where a table lacks it."""

    label: str
    entries: tuple[Entry | None, ...]

    @property
    def first(self) -> Entry:
        return next(entry for entry in self.entries if entry is not None)


def _families(
    found: Sequence[Scope], free: Sequence[tuple[str, str]], place: Callable[[Record], Any]
) -> list[list[Scope]]:
    """Group scopes of one classifier whose tasks differ in the `free` fields alone, in order of `place`."""
    families: dict[str, dict[Any, Scope]] = {}
    for scope in found:
        where = place(scope.record)
        if where is None:
            continue
        record = scope.record
        fixed = {
            part: {name: value for name, value in values.items() if (part, name) not in free}
            for part, values in record.protocol.fields.items()
        }
        key = canonical_json(
            [fixed, record.dataset.sample_list_sha256, record.dataset.n, scope.partial, scope.classifier]
        )
        families.setdefault(key, {}).setdefault(where, scope)
    return [[family[at] for at in sorted(family)] for family in families.values() if len(family) > 1]


def _series(family: Sequence[Scope]) -> list[_Series]:
    """Follow every method through the tables of a family.

    Weights may be made for one table each; they are one line where no table holds two of the same method.
    """
    groups: dict[tuple[str, str], list[list[Entry]]] = {}
    for at, scope in enumerate(family):
        for entry in scope.entries:
            if entry.row.role != "oracle":
                places = groups.setdefault((entry.row.method, entry.row.track), [[] for _ in family])
                places[at].append(entry)
    done = []
    for (method, track), places in groups.items():
        names = list(dict.fromkeys(entry.row.weights for place in places for entry in place))
        suffix = f", {track}" if sum(other[0] == method for other in groups) > 1 else ""
        if all(len(place) <= 1 for place in places):
            label = (f"{method} ({names[0]})" if names[0] else method) if len(names) == 1 else method
            done.append(_Series(label + suffix, tuple(place[0] if place else None for place in places)))
            continue
        for name in names:
            own = [next((entry for entry in place if entry.row.weights == name), None) for place in places]
            done.append(_Series((f"{method} ({name})" if name else method) + suffix, tuple(own)))
    return done


# --- over the scale ----------------------------------------------------------------------------------------------


def sweeps(found: Sequence[Scope], looks: Looks) -> Iterator[Drawn]:
    """Yield accuracy and PSNR against the scale, where tasks differ in nothing else."""
    pictured: set[str] = set()
    for family in _families(found, _SCALE, _scale):
        names = dict.fromkeys((family[0].score_name, "psnr"))
        for name in names:
            # Classifiers share the images, so PSNR is drawn once.
            once = "+".join(scope.task for scope in family)
            if name == "psnr" and once in pictured:
                continue
            drawn = _sweep(family, looks, name)
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
    for series in _series(family):
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


# --- other resamplers --------------------------------------------------------------------------------------------


def resamplers(found: Sequence[Scope], looks: Looks) -> Iterator[Drawn]:
    """Yield the table and the ranks under each resampler, where tasks differ in nothing else."""
    for family in _families(found, _RESAMPLER, _choice):
        yield _choices_table(family)
        bump = _choices_ranks(family, looks)
        if bump is not None:
            yield bump


def _choice(record: Record) -> tuple[str, ...] | None:
    fields = record.protocol.fields
    values = tuple(str(fields.get(part, {}).get(name)) for part, name in _RESAMPLER)
    return None if values[0] == "None" else values


def _choice_names(family: Sequence[Scope]) -> list[str]:
    """Name each choice by the fields that vary within the family."""
    told = {"lr": "", "sr": "back by "}
    varying = [
        (part, name)
        for part, name in _RESAMPLER
        if len({str(scope.record.protocol.fields.get(part, {}).get(name)) for scope in family}) > 1
    ]
    names = []
    for scope in family:
        words = []
        for part, name in varying:
            value = scope.record.protocol.fields.get(part, {}).get(name)
            if name == "antialias":
                words.append(f"{told[part]}{'antialias' if value else 'no antialias'}")
            else:
                words.append(f"{told[part]}{value}{' border' if name == 'border' else ''}")
        names.append(", ".join(words))
    return names


def _per_choice(family: Sequence[Scope], series: _Series) -> list[float | None]:
    values = []
    for scope, entry in zip(family, series.entries, strict=True):
        value = finite(scope.score(entry.row)) if entry is not None else None
        values.append(value if isinstance(value, float) else None)
    return values


@drawing()
def _choices_table(family: Sequence[Scope]) -> Drawn:
    names = _choice_names(family)
    share = metric(family[0].score_name).share
    lines = [(series, _per_choice(family, series)) for series in _series(family)]
    lines = [(series, values) for series, values in lines if any(value is not None for value in values)]
    lines.sort(key=lambda line: (line[0].first.row.track != "frozen", -(line[1][0] or 0.0)))
    known = [value for _, values in lines for value in values if value is not None]
    low, high = min(known), max(known)
    depth = [
        [None if value is None else (value if share else (value - low) / ((high - low) or 1.0)) for value in values]
        for _, values in lines
    ]
    texts = [
        ["–" if value is None else f"{100 * value:.1f}" if share else f"{value:.2f}" for value in values]
        for _, values in lines
    ]
    figure = canvas(0.9 + 0.23 * len(lines), width=WIDTH if len(names) < 4 else WIDE)
    axes = figure.subplots()
    dress(axes, grid="")
    matrix(axes, depth, texts=texts)
    names_axis(axes.yaxis, [series.label for series, _ in lines], limit=30)
    _choices_axis(axes, names)
    caption = (
        f"{metric(family[0].score_name).axis} over {family[0].over}, the same images under each resampler."
        " A conclusion that changes from column to column is one about the resampler."
    )
    data = {
        "y": family[0].score_name,
        "choices": names,
        "tasks": [scope.task for scope in family],
        "rows": [
            {
                "label": series.label,
                "method": series.first.row.method,
                "track": series.first.row.track,
                "values": values,
            }
            for series, values in lines
        ],
    }
    return Drawn(
        f"resampler-table-{family[0].tag}",
        "resampler",
        None,
        family[0].classifier,
        "The same table under each resampler",
        caption[0].upper() + caption[1:],
        figure,
        data,
    )


def _choices_axis(axes: Any, names: Sequence[str]) -> None:
    names_axis(axes.xaxis, names)
    axes.xaxis.set_ticklabels([plain(name, 80).replace(", ", ",\n") for name in names])
    axes.xaxis.set_ticks_position("top")
    axes.tick_params(length=0)


@drawing()
def _choices_ranks(family: Sequence[Scope], looks: Looks) -> Drawn | None:
    lines = []
    for series in _series(family):
        row = series.first.row
        values = _per_choice(family, series)
        if row.role != "control" and row.track == "frozen" and None not in values:
            lines.append((series, [value for value in values if value is not None]))
    if len(lines) < 2:
        return None
    columns = list(zip(*(values for _, values in lines), strict=True))
    ranks = [[1 + sum(rival > value for rival in column) for value in column] for column in columns]
    # Ties share a rank, but not a place in the drawing.
    places: list[list[int]] = []
    for column in ranks:
        before = places[-1] if places else list(range(len(lines)))
        order = sorted(range(len(lines)), key=lambda at: (column[at], before[at]))
        places.append([order.index(at) for at in range(len(lines))])
    names = _choice_names(family)
    changed = [series.label for at, (series, _) in enumerate(lines) if len({column[at] for column in ranks}) > 1]
    figure = canvas(0.8 + 0.24 * len(lines), width=WIDTH if len(names) < 4 else WIDE)
    axes = figure.subplots()
    dress(axes, grid="")
    _choices_axis(axes, names)
    for at, (series, _) in enumerate(lines):
        look = looks.of(series.first.row)
        moved = series.label in changed
        ys = [places[column][at] for column in range(len(names))]
        axes.plot(range(len(names)), ys, **look.both(alpha=1.0 if moved else 0.55, linewidth=2.0 if moved else 1.2))
        end = len(names) - 1
        words = f"{ranks[end][at]}  {plain(series.label, 30)}"
        axes.text(end + 0.08, ys[end], words, va="center", fontsize=FONT_PT - 0.5, color=INK)
        axes.text(-0.08, ys[0], f"{ranks[0][at]}", va="center", ha="right", fontsize=FONT_PT - 0.5, color=INK)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlim(-0.25, len(names) - 0.75)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    caption = (
        f"Rank by {metric(family[0].score_name).word} over {family[0].over} among the"
        f" {len(lines)} ranked methods that every choice of resampler has; equal values share a rank. "
        + (f"Ranks change for {', '.join(changed)}." if changed else "No rank changes.")
    )
    data = {
        "choices": names,
        "tasks": [scope.task for scope in family],
        "rows": [
            {
                "label": series.label,
                "method": series.first.row.method,
                "values": values,
                "ranks": [column[at] for column in ranks],
            }
            for at, (series, values) in enumerate(lines)
        ],
        "changed": changed,
    }
    return Drawn(
        f"resampler-ranks-{family[0].tag}",
        "resampler",
        None,
        family[0].classifier,
        "Which ranks change with the resampler",
        caption,
        figure,
        data,
    )


# --- weights trained with one classifier, judged by another ------------------------------------------------------


def teacher_of(record: Record) -> str | None:
    """Return the id of the classifier that a record's weights were trained with, or None."""
    weights = record.method.weights
    teacher = weights.card.get("teacher") if weights is not None else None
    name = teacher.get("id") if isinstance(teacher, Mapping) else teacher
    return name if isinstance(name, str) and name else None


def transfers(found: Sequence[Scope]) -> Iterator[Drawn]:
    """Yield the recovered gap of weights trained with one classifier under every classifier of a task."""
    for task in dict.fromkeys(scope.task for scope in found):
        drawn = _transfer(task, [scope for scope in found if scope.task == task and scope.classifier is not None])
        if drawn is not None:
            yield drawn


@drawing()
def _transfer(task: str, ours: Sequence[Scope]) -> Drawn | None:
    judges = [scope.classifier or "" for scope in ours]
    lines: dict[tuple[str, str, str | None], dict[str, Entry]] = {}
    for scope in ours:
        for entry in scope.entries:
            teacher = teacher_of(entry.record)
            if teacher is not None and entry.row.track == "frozen" and entry.row.role != "control":
                key = entry.row.method, teacher, entry.row.weights
                lines.setdefault(key, {})[scope.classifier or ""] = entry
    away = any(judge != teacher for (_, teacher, _), judged in lines.items() for judge in judged)
    if len(judges) < 2 or not away:
        return None
    rows: list[dict[str, Any]] = []
    texts, depth, outlined = [], [], []
    for at, key in enumerate(sorted(lines, key=lambda each: (each[0], each[1], each[2] or ""))):
        method, teacher, weights = key
        gaps: dict[str, Any] = {}
        for column, judge in enumerate(judges):
            gaps[judge] = _gap(lines[key].get(judge))
            if judge == teacher:
                outlined.append((at, column))
        rows.append({"method": method, "weights": weights, "teacher": teacher, "gaps": gaps})
        values = [gaps[judge]["value"] for judge in judges]
        depth.append(values)
        texts.append([_gap_text(gaps[judge]) for judge in judges])
    figure = canvas(1.0 + 0.46 * len(rows), width=WIDTH if len(judges) <= 3 else WIDE)
    axes = figure.subplots()
    dress(axes, grid="")
    matrix(axes, depth, texts=texts, outlined=outlined)
    names = [f"{row['method']}" + (f" ({row['weights']})" if row["weights"] else "") for row in rows]
    names_axis(axes.yaxis, names)
    axes.yaxis.set_ticklabels(
        [
            f"{plain(name, 30)}\n{plain('trained with ' + row['teacher'], 34)}"
            for name, row in zip(names, rows, strict=True)
        ]
    )
    names_axis(axes.xaxis, judges, limit=24)
    axes.xaxis.set_ticks_position("top")
    axes.tick_params(length=0)
    caption = (
        f"Recovered gap in % (0 is bilinear, 100 the original) over {ours[0].over}, with its 95 % interval: weights"
        " trained with one classifier (rows) scored by each (columns). A frame marks a classifier that is the teacher's"
        " own; what falls off beside it was fitted to that teacher. A dash: not scored, or the gap is too small."
    )
    return Drawn(
        f"transfer-{slug(task)}",
        "transfer",
        task,
        None,
        "Trained with one classifier, scored by another",
        caption,
        figure,
        {"classifiers": judges, "rows": rows},
    )


def _gap(entry: Entry | None) -> dict[str, Any]:
    if entry is None:
        return dict.fromkeys(("value", "low", "high", "accuracy")) | {"reason": "no ok cell"}
    low, high = entry.row.ci.get("recovered_gap", (None, None))
    return {
        "value": finite(entry.row["recovered_gap"]),
        "low": low,
        "high": high,
        "accuracy": finite(entry.row["accuracy"]),
        "reason": entry.row.notes.get("recovered_gap"),
    }


def _gap_text(gap: Mapping[str, Any]) -> str:
    if not isinstance(gap["value"], float):
        return "–"
    text = f"{100 * gap['value']:.1f}"
    return text if gap["low"] is None else f"{text}\n{100 * gap['low']:.1f} to {100 * gap['high']:.1f}"
