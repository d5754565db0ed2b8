"""The page: what stands in the report's HTML file, from a leaderboard and its records, and its rendering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from srbench.leaderboard import Leaderboard, tables, texts
from srbench.records.cells import StoredCell
from srbench.report.best import scored
from srbench.report.galleries import Pictures
from srbench.report.page_table import Table, page_table


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
    tasks = tuple(_task(board, cells, name, index) for index, name in enumerate(board.tasks))
    how = board.bootstrap
    return Page(
        datasets=tuple(dict.fromkeys(about["dataset"]["name"] for about in board.tasks.values())),
        tasks=tasks,
        warnings=board.warnings,
        bootstrap=f"{100 * how['level']:.3g} % paired bootstrap, {how['draws']} draws, seed {how['seed']}",
        filters=_filters(tasks),
    )


def _task(board: Leaderboard, cells: Sequence[StoredCell], name: str, index: int) -> Task:
    about = board.tasks[name]
    ours = [cell for cell in cells if cell.record.cell.task == name]
    by_key = scored(ours)
    shown = [
        page_table(board, by_key, name, classifier, rows, f"table-{index}-{number}")
        for number, (task, classifier, rows) in enumerate(tables.groups(board))
        if task == name
    ]
    dataset, protocol = about["dataset"], about["protocol"]
    environments = [cell.record.environment for cell in ours]
    created = [cell.record.created for cell in ours]
    scale = _scale(protocol["fields"])
    facts = (
        *task_facts(about),
        ("device", tuple(about["devices"])),
        ("threads", _distinct(environment.threads for environment in environments)),
        ("code", _distinct(_code(cell) for cell in ours)),
        (
            "libraries",
            _distinct(
                ", ".join(
                    f"{library} {release}"
                    for library, release in (
                        ("Python", each.python),
                        ("torch", each.torch),
                        ("torchvision", each.torchvision),
                        ("timm", each.timm),
                        ("driver", each.driver),
                    )
                    if release
                )
                for each in environments
            ),
        ),
        ("computed", _span(min(created), max(created))),
    )
    return Task(
        id=name,
        anchor=f"task-{index}",
        scale=scale,
        facts=facts,
        note=dataset["note"],
        protocol_fields=protocol_fields(protocol["fields"]),
        fingerprint=protocol["fingerprint"],
        tables=tuple(shown),
    )


def task_facts(about: Mapping[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return what a leaderboard knows of a task's data and protocol, as (name, lines)."""
    dataset, protocol = about["dataset"], about["protocol"]
    classes = f", {dataset['n_classes']} classes" if dataset["n_classes"] else ""
    scale = _scale(protocol["fields"])
    return (
        ("data", (f"{dataset['name']}, {dataset['split']}: {dataset['n']} {texts.plural(dataset['unit'])}{classes}",)),
        ("protocol", (f"{protocol['name']}{f', {scale}' if scale else ''}",)),
    )


def protocol_fields(fields: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Return the fields of a protocol as (name, text)."""
    return tuple(
        (f"{part}.{key}", "none" if value is None else str(value).lower() if value in (True, False) else str(value))
        for part, values in fields.items()
        for key, value in values.items()
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
    options_by_name: dict[str, dict[str, str]] = {"task": {}, "classifier": {}, "track": {}, "scale": {}}
    for task in tasks:
        options_by_name["task"][task.id] = task.id
        options_by_name["scale"][task.scale] = task.scale or "without a scale"
        for table in task.tables:
            options_by_name["classifier"][table.classifier or ""] = table.classifier or "no classifier"
            for group in table.groups:
                if group.track:
                    options_by_name["track"][group.track] = group.track
    return tuple((name, name, tuple(options.items())) for name, options in options_by_name.items() if len(options) > 1)
