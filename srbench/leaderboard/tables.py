"""Shows and saves a leaderboard: Rich, Markdown, HTML, CSV, JSON.

Columns come from the catalogue of metrics.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from pathlib import Path

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

from srbench.files.atomic import write_json, write_text
from srbench.leaderboard import Leaderboard, Row
from srbench.leaderboard.escapes import csv_text, markdown_cell, markdown_line
from srbench.leaderboard.fitting import counted_columns, fitted, label_limit
from srbench.leaderboard.grids import Grid
from srbench.leaderboard.notes import cautions, notes
from srbench.leaderboard.shift_grid import shift_grid
from srbench.leaderboard.shifts import degraded_tasks
from srbench.leaderboard.slice_grid import slice_grid
from srbench.leaderboard.texts import (
    MISSING,
    best_sizes,
    in_lines,
    in_one_line,
    plural,
    row_name,
    written,
    written_interval,
    written_places,
    written_rank,
)
from srbench.metrics.catalogue import CORE_PRIORITY, metrics_of
from srbench.metrics.info import MetricInfo
from srbench.task_types import TaskType, task_type, task_type_names

BAR_WIDTH = 8
AT_OWN_SIZE = ("accuracy", "accuracy_ci", "accuracy_delta", "p_holm", "cross_entropy", "p_best_size")
OF_IMAGES = ("psnr", "psnr_ci", "ssim")
SHORTEST = 18  # characters of a row's name, however narrow the terminal
RANK_INTERVAL_PRIORITY = 6


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        name: "rank", "rank_ci", "method", "best_input_sizes", the name of a metric, or "NAME_ci" for the interval of
            one.
        header: Its header; a line break keeps it narrow.
        show: Text of a row.
        priority: The larger, the sooner it gives way on a narrow terminal.
        justify: Side on which it is flush.
        metric: The metric whose value or interval it shows, None for rank, method and best sizes.
    """

    name: str
    header: str
    show: Callable[[Row], str]
    priority: int
    justify: str = "right"
    metric: MetricInfo | None = None

    @property
    def is_interval(self) -> bool:
        """Whether it shows the interval of its metric, or of the place, not the value."""
        return self.name == "rank_ci" or (self.metric is not None and self.name != self.metric.name)

    def filled(self, rows: Sequence[Row]) -> bool:
        """Say whether any of the rows has something to show in it."""
        if self.name == "rank_ci":
            return any(row.rank_interval is not None for row in rows)
        if self.name == "best_input_sizes":
            return any(row.best_input_sizes for row in rows)
        if self.metric is None:
            return self.name == "method" or any(row.rank is not None for row in rows)
        name = self.metric.name
        return any((name in row.ci) if self.is_interval else (row[name] is not None) for row in rows)


def columns(task_type_name: str = "classification") -> tuple[Column, ...]:
    """Return every column of a task type's table in the order of display.

    What `TaskType.shown` does not name follows in the order of the catalogue: a new metric needs no entry there.
    """
    known = {column.name: column for column in _columns(metrics_of(task_type_name))}
    return tuple(known[name] for name in dict.fromkeys([*task_type(task_type_name).shown, *known]))


def task_type_of(board: Leaderboard, task: str) -> TaskType:
    """Return the type of a task; boards of before it was recorded show it by what ranks their rows."""
    stored = board.tasks[task]["dataset"].get("task_type")
    if stored is None:
        rows = [row for row in board.rows if row.task == task]
        stored = next((row_type for row_type in task_type_names() if _is_ranked_by(rows, row_type)), "classification")
    return task_type(stored)


def _is_ranked_by(rows: Sequence[Row], name: str) -> bool:
    return any(row[metric] is not None for row in rows for metric in task_type(name).ranks)


def _columns(metrics: Iterable[MetricInfo]) -> Iterator[Column]:
    yield Column("rank", "#", written_rank, 0)
    yield Column("rank_ci", "place\n95 %", written_places, RANK_INTERVAL_PRIORITY)
    yield Column("method", "method", row_name, 0, "left")
    metrics = tuple(metrics)
    if any(info.name == "accuracy_best" for info in metrics):
        yield Column("best_input_sizes", "best\nsize", best_sizes, 3)
    behind = {info.second for info in metrics}
    for info in metrics:
        if info.name in behind:
            continue
        yield Column(info.name, info.header, partial(written, info), info.priority, metric=info)
        if info.interval_shown == "beside":
            *above, last = info.header.split("\n")
            header = "\n".join([*(above or [last]), "95 %"])
            show = partial(written_interval, info)
            yield Column(f"{info.name}_ci", header, show, info.interval_priority, metric=info)


def render(
    board: Leaderboard, *, width: int, where: str = "leaderboard.csv", verbose: bool = False
) -> list[RenderableType]:
    """Return the tables for a terminal, each followed by its notes.

    Args:
        board: The leaderboard.
        width: Columns of the terminal. Where the table is wider, long labels lose their middle and the least important
            columns give way, then the bars and the intervals of differences and gaps; no number is ever wrapped.
        where: File that holds all columns, named where some gave way.
        verbose: Show each row that has no weights, with its reason; otherwise one line names them.
    """
    shown: list[RenderableType] = []
    beside, hidden = _beside(board), {} if verbose else degraded_tasks(board.tasks)
    for task, classifier, all_rows in groups(board):
        if task in hidden:
            continue
        rows, lacking = (all_rows, []) if verbose else _with_weights(all_rows)
        asked = task_type_of(board, task)
        heading, wanted = title(board, task, classifier, rows), filled_columns(rows, asked)
        table, left_out = _narrowed(heading, rows, wanted, width=width)
        first = cautions(board, task, rows)
        lines = notes(board, task, rows)[len(first) :] + lacking
        if left_out:
            lines.append(f"a wider terminal, or {where}, shows {left_out}")
        shown += [Text(f"caution: {line}", style="bold yellow") for line in first]
        shown += [table, Padding(Text("\n".join(lines), style="dim"), (0, 0, 1, 2))]
        for grid in beside.get((task, classifier), []):
            shown += grid.rendered(width=width, where="leaderboard.md")
    if hidden:
        counted = "1 degraded task" if len(hidden) == 1 else f"{len(hidden)} degraded tasks"
        shown.append(Text(f"all columns of {counted} are in leaderboard.md; -v shows them here", style="dim"))
    shown += [Text(f"warning: {line}", style="yellow") for line in board.warnings]
    return shown


def markdown(board: Leaderboard) -> str:
    """Return the tables with every column as Markdown."""
    parts = []
    beside = _beside(board)
    for task, classifier, rows in groups(board):
        text = _whole_table(board, task, rows, "pipe")
        first = cautions(board, task, rows)
        said = "".join(f"**Caution:** {markdown_line(line)}\n\n" for line in first)
        lines = _bullets(notes(board, task, rows)[len(first) :])
        heading = markdown_line(title(board, task, classifier, rows))
        parts.append(f"## {heading}\n\n{said}{text}\n\n{lines}\n")
        for grid in beside.get((task, classifier), []):
            parts.append(f"### {markdown_line(grid.title)}\n\n{grid.as_text('pipe')}\n\n{_bullets(grid.notes)}\n")
    if board.warnings:
        parts.append(f"## Warnings\n\n{_bullets(board.warnings)}\n")
    return "\n".join(parts)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {markdown_line(line)}" for line in lines)


def html(board: Leaderboard) -> str:
    """Return the tables with every column as HTML for a notebook; one line names the rows that have no weights."""
    parts = []
    beside, hidden = _beside(board), degraded_tasks(board.tasks)
    for task, classifier, all_rows in groups(board):
        if task in hidden:
            continue
        rows, lacking = _with_weights(all_rows)
        first = cautions(board, task, rows)
        said = "".join(f"<p>caution: {escape(line)}</p>" for line in first)
        below = [*notes(board, task, rows)[len(first) :], *lacking]
        lines = "".join(f"<li>{escape(line)}</li>" for line in below)
        heading = escape(title(board, task, classifier, rows))
        parts.append(f"<h4>{heading}</h4>{said}{_whole_table(board, task, rows, 'html')}<ul>{lines}</ul>")
        for grid in beside.get((task, classifier), []):
            lines = "".join(f"<li>{escape(line)}</li>" for line in grid.notes)
            parts.append(f"<h4>{escape(grid.title)}</h4>{grid.as_text('html')}<ul>{lines}</ul>")
    parts += [f"<p>warning: {escape(line)}</p>" for line in board.warnings]
    return "".join(parts)


def write(board: Leaderboard, out_dir: Path) -> list[Path]:
    """Write leaderboard.json, .csv, .md and per_class.csv, each atomically; return them.

    Raises:
        RecordError: If the disk fails.
    """
    paths = [out_dir / name for name in ("leaderboard.json", "leaderboard.csv", "leaderboard.md", "per_class.csv")]
    write_json(paths[0], board.to_json())
    write_text(paths[1], csv_text(board.frame))
    write_text(paths[2], markdown(board))
    write_text(paths[3], csv_text(board.per_class))
    return paths


def groups(board: Leaderboard) -> list[tuple[str, str | None, list[Row]]]:
    """Return (task, classifier, rows) of each table, in the board's order."""
    by_table: dict[tuple[str, str | None], list[Row]] = {}
    for row in board.rows:
        by_table.setdefault((row.task, row.classifier), []).append(row)
    return [(task, classifier, rows) for (task, classifier), rows in by_table.items()]


def title(board: Leaderboard, task: str, classifier: str | None, rows: Sequence[Row]) -> str:
    """Return the line above a table."""
    dataset = board.tasks[task]["dataset"]
    sizes = sorted({row.n for row in rows if row.status == "ok" and not row.partial}) or [dataset["n"]]
    name = classifier or "no classifier"
    return f"{task} · {name} · {sizes[0]} {plural(dataset['unit'])}"


def _beside(board: Leaderboard) -> dict[tuple[str, str | None], list[Grid]]:
    """Return the further tables that stand below that of a task and network."""
    found: dict[tuple[str, str | None], list[Grid]] = {}
    for table in board.shifts:
        found.setdefault((table.task, table.classifier), []).append(shift_grid(table, board.tasks))
    for sliced in board.slices:
        unit = board.tasks[sliced.task]["dataset"]["unit"]
        found.setdefault((sliced.task, sliced.classifier), []).append(slice_grid(sliced, unit))
    return found


# --- the parts of a table ----------------------------------------------------------------------------------------


def _with_weights(rows: Sequence[Row]) -> tuple[Sequence[Row], list[str]]:
    """Return the rows that do not lack weights, and the line that names the methods of the others."""
    lacking = list(dict.fromkeys(row.method for row in rows if row.lacks_weights))
    if not lacking:
        return rows, []
    counted = "1 method has" if len(lacking) == 1 else f"{len(lacking)} methods have"
    line = (
        f"{counted} no weights for this task: {', '.join(lacking)}; see `srbench list weights`, and -v for the reasons"
    )
    return [row for row in rows if not row.lacks_weights], [line]


def _narrowed(heading: str, rows: Sequence[Row], wanted: Sequence[Column], *, width: int) -> tuple[Table, str]:
    """Return the table as a terminal has room for it, and what it leaves out: "3 more columns", or nothing.

    What answers the question goes last: place, method, accuracy with its interval, against bilinear, gap, latency.
    """
    core = {column.name for column in wanted if column.priority <= CORE_PRIORITY}
    for most, compact in ((None, False), (label_limit(width), False), (label_limit(width), True), (SHORTEST, True)):
        build = functools.partial(_rich_table, heading, rows=rows, most=most, compact=compact)
        table, shown = fitted(build, wanted, width=width)
        # Long labels are cut before any column goes; only a column of the core is worth more than what stands in cells.
        if len(shown) == len(wanted) or (most is not None and core <= {column.name for column in shown}):
            break
    dropped = len(wanted) - len(shown)
    parts = [counted_columns(dropped)] * (dropped > 0) + ["the intervals of differences and gaps"] * compact
    return table, " and ".join(parts)


def _whole_table(board: Leaderboard, task: str, rows: Sequence[Row], style: str) -> str:
    """Return a table with every column in a style of tabulate."""
    wanted = filled_columns(rows, task_type_of(board, task))
    as_cell = markdown_cell if style == "pipe" else str
    return tabulate(
        [[as_cell(plain_text(column, row)) for column in wanted] for row in rows],
        headers=[in_one_line(column.header) for column in wanted],
        tablefmt=style,
        colalign=[column.justify for column in wanted],
        disable_numparse=True,
    )


def misleading(rows: Sequence[Row]) -> tuple[str, ...]:
    """Name the columns that are left out although they are filled: those of a size that is not the data's own.

    Without an original no input size is; where there are several, only the best one is worth a column.
    """
    swept = any(row["accuracy_best_delta"] is not None for row in rows)
    return AT_OWN_SIZE if swept and not any(row.role == "oracle" for row in rows) else ()


def filled_columns(rows: Sequence[Row], asked: TaskType) -> list[Column]:
    """Return the columns that have something to show; the essential ones stay wherever a network answered."""
    answered = has_answers(rows, asked)
    left_out = misleading(rows)

    def keeps(column: Column) -> bool:
        if column.name == "psnr_ci" and answered:  # the interval of the network's own number takes its place
            return False
        if column.name in left_out:
            return False
        return column.filled(rows) or (answered and column.name in asked.essential)

    kept = [column for column in columns(asked.name) if keeps(column)]
    if any(row["accuracy_best"] is not None for row in rows):
        # rows are ranked at their best input size, and those columns go last
        after = CORE_PRIORITY + 1
        own = {"accuracy": 3, "accuracy_ci": after, "accuracy_delta": after, "recovered_gap": after}
        return [replace(column, priority=own.get(column.name, column.priority)) for column in kept]
    if answered:
        return kept
    # Without a network the images themselves are what is asked about, and their columns come first.
    first = [
        replace(column, priority=1 + at) for at, name in enumerate(OF_IMAGES) for column in kept if column.name == name
    ]
    named = {column.name for column in first}
    at = next((at + 1 for at, column in enumerate(kept) if column.name == "method"), 0)
    return [*kept[:at], *first, *(column for column in kept[at:] if column.name not in named)]


def has_answers(rows: Sequence[Row], asked: TaskType) -> bool:
    """Say whether a network's answers were held against what the data say in any of the rows."""
    names = [name for name in asked.essential if name in asked.ranks]
    return any(row[name] is not None for row in rows for name in names)


def _rich_table(
    heading: str, wanted: Sequence[Column], rows: Sequence[Row], most: int | None = None, compact: bool = False
) -> Table:
    """Return a table for a terminal.

    Args:
        heading: What stands above it.
        wanted: Its columns.
        rows: Its rows.
        most: Characters that a row's name may have; None keeps all.
        compact: Leave out bars and the intervals that stand within cells.
    """
    # Text, not markup: a name in square brackets would vanish.
    table = Table(box=box.SIMPLE_HEAD, title=Text(heading, "bold"), title_justify="left", pad_edge=False)
    if compact:
        table.padding = (0, 1, 0, 0)
    for column in wanted:
        table.add_column(in_lines(column.header), justify=column.justify, no_wrap=True, vertical="bottom")  # type: ignore[arg-type]
    sections = [(row.track, row.status != "ok") for row in rows]
    for index, row in enumerate(rows):
        style = {"oracle": "bold", "control": "italic"}.get(row.role, "")
        cells = [
            Text(row_name(row, most) if column.name == "method" else _cell(column, row, compact)) for column in wanted
        ]
        last = index + 1 < len(rows) and sections[index] != sections[index + 1]
        table.add_row(*cells, style="dim" if row.status != "ok" else style, end_section=last)
    return table


def _cell(column: Column, row: Row, compact: bool) -> str:
    text = plain_text(column, row)
    if compact:
        return text if column.is_interval else text.partition(" [")[0]
    gap = row["recovered_gap"] if column.name == "recovered_gap" else None
    return text if gap is None else f"{text} {bar(gap)}"


def plain_text(column: Column, row: Row) -> str:
    """Return what a column says of a row, without a bar."""
    # A row without a result shows what it is and nothing else; its parameters would look like a measurement.
    return column.show(row) if row.status == "ok" or column.name == "method" else MISSING


def bar(share: float) -> str:
    """Return a bar of eighths of a character for a share, cut off at 0 and 1."""
    eighths = round(min(max(share, 0.0), 1.0) * BAR_WIDTH * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(BAR_WIDTH, "░")
