"""The page: what stands in the report's HTML file, from a leaderboard and its records, and its rendering."""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from srbench import __version__
from srbench.leaderboard import BASELINE, ORACLE, Leaderboard, Row, tables
from srbench.metrics.catalogue import ESSENTIAL_PRIORITY
from srbench.records.cells import StoredCell
from srbench.report.best import Lead, leads, scored
from srbench.report.figures import sections
from srbench.report.galleries import Pictures
from srbench.report.inline import script_json
from srbench.task_types import TaskType

# Columns that a page of ordinary width has room for; the others are one click away.
GAP_RANGE = (-1.0, 1.5)  # a bar beyond these is cut off; its number says how far it goes
HEAT_COLOURS, HEAT_STOPS = "magma", 17
_PACKAGE = "srbench.report"
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_JOINTS = re.compile(r"([_/.-])")


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
    ends: tuple[str, str] | None = None
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


@dataclass(frozen=True)
class Task:
    """What stands above a task's tables, and these."""

    id: str
    anchor: str
    scale: str
    facts: tuple[tuple[str, tuple[str, ...]], ...]
    note: str
    protocol_fields: tuple[tuple[str, str], ...]
    fingerprint: str
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class FigureBlock:
    """A figure as it stands in the page.

    Attributes:
        name: Its file stem.
        section: Name of its section; see `figures.section.Section`.
        task: Id of the task, or None.
        classifier: Id of the classifier, or None.
        title: Plain text.
        caption: Plain text.
        body: The element that shows it.
        data: The numbers as JSON for a script element, or None where they are only in a file.
    """

    name: str
    section: str
    task: str | None
    classifier: str | None
    title: str
    caption: str
    body: Markup
    data: Markup | None


@dataclass(frozen=True)
class Page:
    """Everything that the template shows."""

    datasets: tuple[str, ...]
    tasks: tuple[Task, ...]
    warnings: tuple[str, ...]
    bootstrap: str
    figure_blocks: tuple[FigureBlock, ...] = ()
    pictures: Pictures | None = None
    left_out: tuple[str, ...] = ()
    filters: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = ()


def compose(board: Leaderboard, cells: Sequence[StoredCell]) -> Page:
    """Return the page of a board without figures and pictures."""
    tasks = tuple(_task(board, cells, name, at) for at, name in enumerate(board.tasks))
    how = board.bootstrap
    return Page(
        datasets=tuple(dict.fromkeys(about["dataset"]["name"] for about in board.tasks.values())),
        tasks=tasks,
        warnings=board.warnings,
        bootstrap=f"{100 * how['level']:.3g} % paired bootstrap, {how['draws']} draws, seed {how['seed']}",
        filters=_filters(tasks),
    )


def render(page: Page) -> str:
    """Return the HTML text."""
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return str(
        _template().render(
            page=page,
            version=__version__,
            css=Markup(_asset("page.css")),
            script=Markup(script),
            policy=(
                f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:;"
                " base-uri 'none'; form-action 'none'"
            ),
            sections=[(each.name, each.title) for each in sections() if _any_of(page, each.name)],
            data=_json,
            groups=lambda section: _grouped(page, section),
            heat=_heat_colours(),
            oracle=ORACLE,
            reference=BASELINE,
            control_mark=tables.CONTROL_MARK,
            adapted_mark=tables.ADAPTED_MARK,
        )
    )


def _any_of(page: Page, section: str) -> bool:
    return any(block.section == section for block in page.figure_blocks)


def _grouped(page: Page, section: str) -> list[tuple[tuple[tuple[str, str], ...], list[FigureBlock]]]:
    """Figures of a section by task and classifier, each with what its heading has to name."""
    several_tasks = len(page.tasks) > 1
    several_classifiers = len({table.classifier for task in page.tasks for table in task.tables}) > 1
    found = []
    figure_blocks = [block for block in page.figure_blocks if block.section == section]
    for (task, classifier), ours in itertools.groupby(figure_blocks, key=lambda block: (block.task, block.classifier)):
        names = []
        if several_classifiers and classifier:
            names.append(("classifier", classifier))
        if several_tasks and task:
            names.append(("task", task))
        found.append((tuple(names), list(ours)))
    return found


def _json(value: Any) -> Markup:
    return Markup(script_json(value))


@cache
def _heat_colours() -> dict[str, str]:
    """The colours of the maps of the error: tables for the page's filter, and the same as a ramp."""
    from matplotlib import colormaps

    stops = colormaps[HEAT_COLOURS](np.linspace(0, 1, HEAT_STOPS))[:, :3]
    tables_of = {
        name: " ".join(f"{value:.4f}" for value in stops[:, at]) for at, name in enumerate(("red", "green", "blue"))
    }
    ramp = ",".join(f"#{''.join(f'{round(255 * value):02x}' for value in stop)}" for stop in stops)
    return {**tables_of, "ramp": ramp}


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(_PACKAGE, "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": _breakable, "options": _options}
    return environment.get_template("page.html.j2")


def _options(sentence: str) -> Markup:
    """A sentence whose command-line options stay in one piece."""
    return Markup(_OPTION.sub(r"<code>\g<0></code>", str(escape(sentence))))


def _breakable(name: str) -> Markup:
    """A name that may wrap after the signs that join its words."""
    return Markup(_JOINTS.sub(r"\1<wbr>", str(escape(name))))


@cache
def _asset(name: str) -> str:
    return resources.files(_PACKAGE).joinpath("assets", name).read_text(encoding="utf-8")


# --- tasks -------------------------------------------------------------------------------------------------------


def _task(board: Leaderboard, cells: Sequence[StoredCell], name: str, at: int) -> Task:
    about = board.tasks[name]
    ours = [cell for cell in cells if cell.record.cell.task == name]
    by_key = scored(ours)
    shown = [
        _table(board, by_key, name, classifier, rows, f"table-{at}-{number}")
        for number, (task, classifier, rows) in enumerate(tables.groups(board))
        if task == name
    ]
    dataset, protocol = about["dataset"], about["protocol"]
    classes = f", {dataset['n_classes']} classes" if dataset["n_classes"] else ""
    environments = [cell.record.environment for cell in ours]
    created = [cell.record.created for cell in ours]
    scale = _scale(protocol["fields"])
    facts = (
        ("data", (f"{dataset['name']}, {dataset['split']}: {dataset['n']} {tables.plural(dataset['unit'])}{classes}",)),
        ("protocol", (f"{protocol['name']}{f', {scale}' if scale else ''}",)),
        ("device", tuple(about["devices"])),
        ("threads", _distinct(environment.threads for environment in environments)),
        ("code", _distinct(_code(cell) for cell in ours)),
        (
            "libraries",
            _distinct(
                ", ".join(
                    f"{library} {found}"
                    for library, found in (
                        ("Python", each.python),
                        ("torch", each.torch),
                        ("torchvision", each.torchvision),
                        ("timm", each.timm),
                        ("driver", each.driver),
                    )
                    if found
                )
                for each in environments
            ),
        ),
        ("computed", _span(min(created), max(created))),
    )
    return Task(
        id=name,
        anchor=f"task-{at}",
        scale=scale,
        facts=facts,
        note=dataset["note"],
        protocol_fields=tuple(
            (f"{part}.{key}", "none" if value is None else str(value).lower() if value in (True, False) else str(value))
            for part, values in protocol["fields"].items()
            for key, value in values.items()
        ),
        fingerprint=protocol["fingerprint"],
        tables=tuple(shown),
    )


def _distinct(values: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(value) for value in values))


def _code(cell: StoredCell) -> str:
    code = cell.record.code
    if code.commit is None:
        return f"srbench {code.version}"
    return f"srbench {code.version}, commit {code.commit[:12]}{' with changes' if code.dirty else ''}"


def _span(first: str, last: str) -> tuple[str, ...]:
    """When the records were made, to the minute; as it is written where it is no ISO time."""
    try:
        ends = [datetime.fromisoformat(text).astimezone(UTC) for text in (first, last)]
    except ValueError:
        return tuple(dict.fromkeys((first, last)))
    days = [f"{each:%Y-%m-%d, %H:%M}" for each in ends]
    if days[0] == days[1]:
        return (f"{days[0]} UTC",)
    return (f"{days[0]} to {f'{ends[1]:%H:%M}' if ends[0].date() == ends[1].date() else days[1]} UTC",)


def _scale(fields: Mapping[str, Mapping[str, Any]]) -> str:
    lr = fields.get("lr", {})
    if lr.get("none"):
        return "no downscaling"
    if lr.get("lr_side"):
        return f"LR side {lr['lr_side']}"
    return f"scale {lr['scale']:.4g}" if lr.get("scale") else ""


def _filters(tasks: Sequence[Task]) -> tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]:
    """(attribute, label, options) of every choice that there is more than one option of."""
    found: dict[str, dict[str, str]] = {"task": {}, "classifier": {}, "track": {}, "scale": {}}
    for task in tasks:
        found["task"][task.id] = task.id
        found["scale"][task.scale] = task.scale or "without a scale"
        for table in task.tables:
            found["classifier"][table.classifier or ""] = table.classifier or "no classifier"
            for group in table.groups:
                if group.track:
                    found["track"][group.track] = group.track
    return tuple((name, name, tuple(options.items())) for name, options in found.items() if len(options) > 1)


# --- tables ------------------------------------------------------------------------------------------------------


def _table(
    board: Leaderboard,
    by_key: Mapping[Any, StoredCell],
    task: str,
    classifier: str | None,
    rows: Sequence[Row],
    anchor: str,
) -> Table:
    about = board.tasks[task]
    pooled = about["protocol"]["fields"].get("score", {}).get("psnr_reduction") == "batch"
    found = leads(rows, by_key, bootstrap=board.bootstrap, pooled_psnr=pooled)
    best = {(lead.best.key, lead.column) for lead in found if lead.significant}
    kind = tables.task_type_of(board, task)
    wanted = _columns(rows, kind)
    shown = [row for row in rows if row.status == "ok"]
    return Table(
        id=anchor,
        classifier=classifier,
        classifier_fields=_classifier_fields(about["classifiers"].get(classifier)),
        heads=tuple(_head(column) for column in wanted),
        sorted_by=_sorted_by(shown, kind),
        groups=_groups(rows, wanted, best),
        findings=tuple(_findings(rows, found)),
        notes=(
            *(line for line in tables.notes(board, task, shown) if line != about["dataset"]["note"]),
            *_bold_note(found),
        ),
    )


def _columns(rows: Sequence[Row], kind: TaskType) -> list[tables.Column]:
    """Columns with something to show; intervals stand below their values."""
    answered = any(row[kind.ranks[0]] is not None for row in rows)
    ok = [row for row in rows if row.status == "ok"]
    return [
        column
        for column in tables.columns(kind.name)
        if not column.is_interval and (column.filled(ok) or (answered and column.name in kind.essential))
    ]


def _head(column: tables.Column) -> Head:
    text = column.header.replace("-\n", "\u00ad").replace("\n", " ")
    if column.name == "cross_entropy":
        text = "cross-entropy"
    first = "descending" if column.metric is not None and column.metric.higher_is_better else "ascending"
    return Head(column.name, text, first, column.priority <= ESSENTIAL_PRIORITY)


def _sorted_by(rows: Sequence[Row], kind: TaskType) -> str:
    """The column that orders the board's rows."""
    return next((name for name in kind.ranks if any(row[name] is not None for row in rows)), "psnr")


def _groups(rows: Sequence[Row], wanted: Sequence[tables.Column], best: set[Any]) -> tuple[Group, ...]:
    parts: dict[tuple[str, str, bool], list[Row]] = {}
    for row in rows:
        if row.status != "ok":
            place = ("Without a result", "", True)
        elif row.partial:
            place = ("Partial, never ranked", row.track, False)
        elif row.track == "adapted":
            place = ("Adapted track: the classifier was trained too", "adapted", False)
        elif row.role in ("oracle", "control"):
            place = ("Reference points, never ranked", "", False)
        else:
            place = ("Frozen track: the classifier is untouched", "frozen", False)
        parts.setdefault(place, []).append(row)
    spread = _gap_range(rows)
    return tuple(
        Group(title, track, tuple(_line(row, wanted, best, spread) for row in ours), failed)
        for (title, track, failed), ours in sorted(parts.items(), key=lambda item: item[0][2])
    )


def _line(row: Row, wanted: Sequence[tables.Column], best: set[Any], spread: tuple[float, float]) -> Line:
    mark = {"oracle": "oracle", "control": f"control {tables.CONTROL_MARK}"}.get(row.role, "")
    if row.track == "adapted":
        mark = f"{mark} {tables.ADAPTED_MARK}".strip()
    cells = tuple(_cell(column, row, best, spread) for column in wanted if column.name != "method")
    return Line(row, mark, cells)


def _cell(column: tables.Column, row: Row, best: set[Any], spread: tuple[float, float]) -> Cell:
    name = column.name
    value = row.rank if column.metric is None else row[name]
    ends = row.ci.get(name)
    return Cell(
        column=name,
        value=None if value is None else repr(value) if isinstance(value, int) else _number(value),
        text=column.show(row).partition(" [")[0],
        ends=None if ends is None else (_number(ends[0]), _number(ends[1])),
        interval=None if column.metric is None or ends is None else tables.written_interval(column.metric, row),
        best=(row.key, name) in best,
        bar=_bar(value, ends, spread) if name == "recovered_gap" and value is not None else None,
        note=row.notes.get(name),
    )


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


def _bar(value: float, ends: tuple[float, float] | None, spread: tuple[float, float]) -> Bar:
    low, high = spread

    def place(share: float) -> float:
        return round(100 * (min(max(share, low), high) - low) / (high - low), 2)

    left, right = sorted((place(0.0), place(value)))
    return Bar(
        zero=place(0.0),
        one=place(1.0),
        left=left,
        width=round(right - left, 2),
        whisker=None if ends is None else (place(ends[0]), place(ends[1])),
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


# --- sentences ---------------------------------------------------------------------------------------------------


def _findings(rows: Sequence[Row], found: Sequence[Lead]) -> list[list[tuple[str, bool]]]:
    """What the table says, as runs of text; the flag marks a name that somebody else chose."""
    lines = []
    by_method = {row.method: row for row in rows if row.track == "frozen" and row.status == "ok" and not row.partial}
    oracle, base = by_method.get(ORACLE), by_method.get(BASELINE)
    for lead in found:
        if lead.column == "srcc":
            said = "is more than chance" if lead.significant else "may be chance"
            lines.append(
                [
                    (f"In the {lead.best.track} track ", False),
                    (lead.best.label, True),
                    (f" has the highest SRCC: {lead.best['srcc']:.3f}. Its lead over ", False),
                    (lead.second.label, True),
                    (f" ({lead.second['srcc']:.3f}) {said}: {lead.test}.", False),
                ]
            )
        if lead.column != "accuracy":
            continue
        best, second = lead.best, lead.second
        line = [("In the ", False), (best.track, False), (" track ", False), (best.label, True)]
        line.append((f" is the most accurate: {_share(best)}", False))
        if best["recovered_gap"] is not None and oracle is not None and base is not None:
            ends = best.ci.get("recovered_gap")
            spelled = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""
            line.append(
                (
                    f", which wins back {best['recovered_gap']:.2f}{spelled} of the gap between {BASELINE}"
                    f" ({base['accuracy']:.3f}) and the {ORACLE} ({oracle['accuracy']:.3f})",
                    False,
                )
            )
        line += [(". Its lead over ", False), (second.label, True)]
        if lead.test == "equal":
            line[-2:] = [(". It shares that place with ", False), (second.label, True), (".", False)]
        else:
            said = "is more than chance" if lead.significant else "may be chance"
            line.append((f" ({second['accuracy']:.3f}) {said}: {lead.test}.", False))
        lines.append(line)
    return lines


def _share(row: Row) -> str:
    ends = row.ci.get("accuracy")
    return f"{row['accuracy']:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def _bold_note(found: Sequence[Lead]) -> list[str]:
    if not found:
        return []
    return [
        "bold: the best ranked row of its track, only where it is better than the next best by more than chance on the"
        " same samples: exact McNemar p < 0.05 for accuracy, top-5 and agreement (the gap and the difference to"
        f" {BASELINE} follow accuracy); a 95 % paired bootstrap interval of the difference without 0 for the other"
        " means; for F1, and for a PSNR that pools batches, intervals that are apart"
    ]
