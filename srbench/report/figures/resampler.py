"""How methods rank under other resampling kernels, where tasks differ in nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from srbench.metrics.catalogue import metric
from srbench.records.schema import Record
from srbench.report.drawn import FONT_PT, INK, Drawn, drawing
from srbench.report.figures.families import Series, families, series_of
from srbench.report.figures.scope import Scope
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import (
    WIDE,
    WIDTH,
    Looks,
    canvas,
    dress,
    finite,
    matrix,
    names_axis,
    plain,
)

SECTION = Section("resampler", "Which resampling kernel?", order=80)
_RESAMPLER = (("lr", "kernel"), ("lr", "antialias"), ("lr", "border"), ("sr", "kernel"), ("sr", "antialias"))


def draw(material: Material) -> Iterator[Drawn]:
    """Yield the table and the ranks under each resampler, where tasks differ in nothing else."""
    for family in families(material.scopes, _RESAMPLER, _choice):
        yield _choices_table(family)
        bump = _choices_ranks(family, material.looks)
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


def _per_choice(family: Sequence[Scope], series: Series) -> list[float | None]:
    values = []
    for scope, entry in zip(family, series.entries, strict=True):
        value = finite(scope.score(entry.row)) if entry is not None else None
        values.append(value if isinstance(value, float) else None)
    return values


@drawing()
def _choices_table(family: Sequence[Scope]) -> Drawn:
    names = _choice_names(family)
    share = metric(family[0].score_name).share
    lines = [(series, _per_choice(family, series)) for series in series_of(family)]
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
    for series in series_of(family):
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
