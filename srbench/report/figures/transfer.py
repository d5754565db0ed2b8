"""Weights trained with one classifier, scored by the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from srbench.records.schema import Record
from srbench.report.drawn import Drawn, drawing
from srbench.report.figures.scope import Entry, Scope
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import (
    WIDE,
    WIDTH,
    canvas,
    dress,
    finite,
    matrix,
    names_axis,
    plain,
    slug,
)

SECTION = Section("transfer", "With another classifier", order=60)


def teachers_of(record: Record) -> tuple[str, ...]:
    """Return the ids of the classifiers that a record's weights were trained with."""
    weights = record.method.weights
    card = weights.card if weights is not None else {}
    extra = card.get("extra")
    several = extra.get("teachers") if isinstance(extra, Mapping) else None
    names = [each.get("id") if isinstance(each, Mapping) else each for each in several or [card.get("teacher")]]
    return tuple(name for name in names if isinstance(name, str) and name)


def draw(material: Material) -> Iterator[Drawn]:
    """Yield the recovered gap of weights trained with one classifier under every classifier of a task."""
    for task in dict.fromkeys(scope.task for scope in material.scopes):
        drawn = _transfer(
            task, [scope for scope in material.scopes if scope.task == task and scope.classifier is not None]
        )
        if drawn is not None:
            yield drawn


@drawing()
def _transfer(task: str, ours: Sequence[Scope]) -> Drawn | None:
    classifiers = [scope.classifier or "" for scope in ours]
    lines: dict[tuple[str, tuple[str, ...], str | None], dict[str, Entry]] = {}
    for scope in ours:
        for entry in scope.entries:
            teachers = teachers_of(entry.record)
            if teachers and entry.row.track == "frozen" and entry.row.role != "control":
                key = entry.row.method, teachers, entry.row.weights
                lines.setdefault(key, {})[scope.classifier or ""] = entry
    away = any(classifier not in teachers for (_, teachers, _), scored in lines.items() for classifier in scored)
    if len(classifiers) < 2 or not away:
        return None
    rows: list[dict[str, Any]] = []
    texts, depth, outlined = [], [], []
    for at, key in enumerate(sorted(lines, key=lambda each: (each[0], each[1], each[2] or ""))):
        method, teachers, weights = key
        gaps: dict[str, Any] = {}
        for column, classifier in enumerate(classifiers):
            gaps[classifier] = _gap(lines[key].get(classifier))
            if classifier in teachers:
                outlined.append((at, column))
        rows.append({"method": method, "weights": weights, "teacher": " and ".join(teachers), "gaps": gaps})
        values = [gaps[classifier]["value"] for classifier in classifiers]
        depth.append(values)
        texts.append([_gap_text(gaps[classifier]) for classifier in classifiers])
    figure = canvas(1.0 + 0.46 * len(rows), width=WIDTH if len(classifiers) <= 3 else WIDE)
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
    names_axis(axes.xaxis, classifiers, limit=24)
    axes.xaxis.set_ticks_position("top")
    axes.tick_params(length=0)
    caption = (
        f"Recovered gap in % (0 is bilinear, 100 the original) over {ours[0].over}, with its 95 % interval: weights"
        " trained with one classifier (rows) scored by each (columns). A frame marks a classifier that was a"
        " teacher; what falls off beside it was fitted to its teachers. A dash: not scored, or the gap is too small."
    )
    return Drawn(
        f"transfer-{slug(task)}",
        "transfer",
        task,
        None,
        "Trained with one classifier, scored by another",
        caption,
        figure,
        {"classifiers": classifiers, "rows": rows},
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
