"""A table of the page: headers, groups of rows, cells and bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srbench.leaderboard import Leaderboard, Row, tables, texts
from srbench.leaderboard.notes import notes
from srbench.metrics.catalogue import ESSENTIAL_PRIORITY
from srbench.records.cells import StoredCell
from srbench.records.schema import hash_inputs
from srbench.report.best import leads
from srbench.report.findings import bold_note, findings
from srbench.task_types import TaskType

GAP_RANGE = (-1.0, 1.5)  # a bar beyond these is cut off; its number says how far it goes


@dataclass(frozen=True)
class Head:
    """A column's header."""

    name: str
    text: str
    first: str  # direction of the first click: what is best comes first
    essential: bool


@dataclass(frozen=True)
class Bar:
    """The recovered gap as a bar: places in percent of its range; the whisker is None without an interval."""

    zero: float
    one: float
    left: float
    width: float
    whisker: tuple[float, float] | None


@dataclass(frozen=True)
class Cell:
    """A number of the table: unrounded as the attribute, rounded as the text."""

    column: str
    value: str | None
    text: str
    ci: tuple[str, str] | None = None
    interval: str | None = None
    best: bool = False
    bar: Bar | None = None
    note: str | None = None


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    row: Row
    mark: str
    cells: tuple[Cell, ...]

    @property
    def anchor(self) -> str:
        """Its id in a page, the same wherever and whenever the row is shown."""
        return row_anchor(self.row)


@dataclass(frozen=True)
class Group:
    """Rows that are compared with each other, and sorted apart from the others."""

    title: str
    track: str
    lines: tuple[Line, ...]
    failed: bool = False


@dataclass(frozen=True)
class Table:
    """The table of one task and classifier."""

    id: str
    classifier: str | None
    classifier_fields: Mapping[str, str]
    heads: tuple[Head, ...]
    sorted_by: str
    groups: tuple[Group, ...]
    findings: tuple[Sequence[tuple[str, bool]], ...]
    notes: tuple[str, ...]


def row_anchor(row: Row) -> str:
    """Return the id of a row in a page; it follows from what identifies the row, not from its place or numbers."""
    return f"row-{hash_inputs({'row': list(row.key)})[:12]}"


def page_table(
    board: Leaderboard,
    by_key: Mapping[Any, StoredCell],
    task: str,
    classifier: str | None,
    rows: Sequence[Row],
    anchor: str,
) -> Table:
    """Return the table of one task and classifier: `rows` in groups, with the best of each column in bold."""
    about = board.tasks[task]
    pooled = about["protocol"]["fields"].get("score", {}).get("psnr_reduction") == "batch"
    kind = tables.task_type_of(board, task)
    shown = [row for row in rows if row.status == "ok"]
    ranked_by = _sorted_by(shown, kind)
    leading = leads(
        rows,
        by_key,
        bootstrap=board.bootstrap,
        draws=board.draws,
        ranked_by=(ranked_by, *kind.ranks),
        pooled_psnr=pooled,
    )
    best = {(lead.best.key, lead.column) for lead in leading if lead.significant}
    wanted = _columns(rows, kind)
    return Table(
        id=anchor,
        classifier=classifier,
        classifier_fields=_classifier_fields(about["classifiers"].get(classifier)),
        heads=tuple(_head(column) for column in wanted),
        sorted_by=ranked_by,
        groups=_groups(rows, wanted, best),
        findings=tuple(findings(rows, leading, ranked_by)),
        notes=(
            *(line for line in notes(board, task, shown) if line != about["dataset"]["note"]),
            *bold_note(leading),
        ),
    )


def _columns(rows: Sequence[Row], kind: TaskType) -> list[tables.Column]:
    """Columns with something to show; intervals stand below their values."""
    answered, left_out = tables.has_answers(rows, kind), tables.misleading(rows)
    ok = [row for row in rows if row.status == "ok"]
    return [
        column
        for column in tables.columns(kind.name)
        if not column.is_interval
        and column.name not in left_out
        and (column.filled(ok) or (answered and column.name in kind.essential))
    ]


def _head(column: tables.Column) -> Head:
    text = column.header.replace("\u00ad\n", "\u00ad").replace("-\n", "-").replace("\n", " ")
    first = "descending" if column.metric is not None and column.metric.higher_is_better else "ascending"
    return Head(column.name, text, first, column.priority <= ESSENTIAL_PRIORITY)


def _sorted_by(rows: Sequence[Row], kind: TaskType) -> str:
    """The column that orders the board's rows."""
    return next((name for name in kind.ranks if any(row[name] is not None for row in rows)), "psnr")


def _groups(rows: Sequence[Row], wanted: Sequence[tables.Column], best: set[Any]) -> tuple[Group, ...]:
    parts: dict[tuple[str, str, bool], list[Row]] = {}
    for row in rows:
        if row.status != "ok":
            group = ("Without a result", "", True)
        elif row.partial:
            group = ("Partial, never ranked", row.track, False)
        elif row.track == "adapted":
            group = ("Adapted track: the classifier was trained too", "adapted", False)
        elif row.role in ("oracle", "control"):
            group = ("Reference points, never ranked", "", False)
        else:
            group = ("Frozen track: the classifier is untouched", "frozen", False)
        parts.setdefault(group, []).append(row)
    value_range = _gap_range(rows)
    return tuple(
        Group(title, track, tuple(_line(row, wanted, best, value_range) for row in ours), failed)
        for (title, track, failed), ours in sorted(parts.items(), key=lambda item: item[0][2])
    )


def _line(row: Row, wanted: Sequence[tables.Column], best: set[Any], value_range: tuple[float, float]) -> Line:
    mark = {"oracle": "oracle", "control": f"control {texts.CONTROL_MARK}"}.get(row.role, "")
    if row.track == "adapted":
        mark = f"{mark} {texts.ADAPTED_MARK}".strip()
    cells = tuple(_cell(column, row, best, value_range) for column in wanted if column.name != "method")
    return Line(row, mark, cells)


def _cell(column: tables.Column, row: Row, best: set[Any], value_range: tuple[float, float]) -> Cell:
    name = column.name
    value = _value(column, row)
    ci = row.ci.get(name)
    interval = None if column.metric is None or ci is None else texts.written_interval(column.metric, row)
    if name == "rank" and row.rank_interval is not None and len(set(row.rank_interval)) > 1:
        interval = texts.written_places(row)
    return Cell(
        column=name,
        value=None if value is None else repr(value) if isinstance(value, int) else _number(value),
        text=column.show(row).partition(" [")[0],
        ci=None if ci is None else (_number(ci[0]), _number(ci[1])),
        interval=interval,
        best=(row.key, name) in best,
        bar=_bar(value, ci, value_range) if name == "recovered_gap" and value is not None else None,
        note=row.notes.get(name),
    )


def _value(column: tables.Column, row: Row) -> float | None:
    """Return what a column sorts a row by."""
    if column.metric is not None:
        return row[column.name]
    return max(row.best_input_sizes, default=None) if column.name == "best_input_sizes" else row.rank


def _number(value: float) -> str:
    return "inf" if math.isinf(value) else repr(float(value))


def _gap_range(rows: Sequence[Row]) -> tuple[float, float]:
    """The range that the bars of one table share: 0 to 1, and as far beyond as values go."""
    values = [0.0, 1.0]
    for row in rows:
        gap = row["recovered_gap"]
        if gap is not None:
            values += [gap, *row.ci.get("recovered_gap", ())]
    return max(min(values), GAP_RANGE[0]), min(max(values), GAP_RANGE[1])


def _bar(value: float, ci: tuple[float, float] | None, value_range: tuple[float, float]) -> Bar:
    low, high = value_range

    def percent(share: float) -> float:
        return round(100 * (min(max(share, low), high) - low) / (high - low), 2)

    left, right = sorted((percent(0.0), percent(value)))
    return Bar(
        zero=percent(0.0),
        one=percent(1.0),
        left=left,
        width=round(right - left, 2),
        whisker=None if ci is None else (percent(ci[0]), percent(ci[1])),
    )


def _classifier_fields(entry: Mapping[str, Any] | None) -> dict[str, str]:
    if entry is None:
        return {}
    size = entry["input_size"]
    return {
        "architecture": f"{entry['library']} {entry['name']}",
        "input": f"{size} pixels" if size else "any size",
        "classes": str(entry["n_classes"]),
        "mean": ", ".join(f"{value:g}" for value in entry["mean"]),
        "std": ", ".join(f"{value:g}" for value in entry["std"]),
        "sha256 of its weights": entry["weights_sha256"],
    }
