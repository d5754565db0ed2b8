"""Shows and saves a leaderboard: Rich, Markdown, CSV, JSON, and the notes below each table; the only place that rounds.

Columns come from the catalogue of metrics.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

from srbench.compute.numerics import Numerics
from srbench.files.atomic import write_json, write_text
from srbench.leaderboard import BASELINE, MINIMUM_BATCHES, ORACLE, Leaderboard, Row
from srbench.leaderboard.fitting import fitted, label_limit, shortened
from srbench.leaderboard.grids import Grid
from srbench.leaderboard.ranks import ranking_name
from srbench.leaderboard.shifts import degraded_tasks
from srbench.metrics.catalogue import all_metrics, metric, metrics_of
from srbench.metrics.info import MetricInfo
from srbench.task_types import TaskType, task_type

MISSING = "–"
CONTROL_MARK = "†"
ADAPTED_MARK = "‡"
TIE_MARK = "≈"
BAR_WIDTH = 8
RANK_INTERVAL_PRIORITY = 7

# Below this many samples a class, a class's F1 is too uncertain to be read without its caution.
FEW_SAMPLES = 100


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        name: "rank", "rank_ci", "method", the name of a metric, or "NAME_ci" for the interval of one.
        header: Its header; a line break keeps it narrow.
        show: Text of a row.
        priority: The larger, the sooner it gives way on a narrow terminal.
        justify: Side on which it is flush.
        metric: The metric whose value or interval it shows, None for rank and method.
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
    """Return the type of a task."""
    return task_type(board.tasks[task]["dataset"].get("task_type", "classification"))


def _columns(metrics: Iterable[MetricInfo]) -> Iterator[Column]:
    yield Column("rank", "#", written_rank, 0)
    yield Column("rank_ci", "place\n95 %", written_places, RANK_INTERVAL_PRIORITY)
    yield Column("method", "method", row_name, 0, "left")
    metrics = tuple(metrics)
    behind = {info.second for info in metrics}
    for info in metrics:
        if info.name in behind:
            continue
        yield Column(info.name, info.header, partial(written, info), info.priority, metric=info)
        if info.interval_shown == "beside":
            header = f"{info.header.partition(chr(10))[0]}\n95 %"
            show = partial(written_interval, info)
            yield Column(f"{info.name}_ci", header, show, info.interval_priority, metric=info)


def written_rank(row: Row) -> str:
    """Return the place of a row, with the mark of a tie with the best, or a dash."""
    return MISSING if row.rank is None else f"{row.rank}{f' {TIE_MARK}' if row.tied else ''}"


def written_places(row: Row) -> str:
    """Return the interval of a row's place, or a dash."""
    if row.rank_interval is None:
        return MISSING
    first, last = row.rank_interval
    return str(first) if first == last else f"{first}–{last}"


def written(info: MetricInfo, row: Row) -> str:
    """Return the value of a metric as a table writes it, with its interval where that stands within."""
    text = formatted(info, row[info.name])
    if info.second is not None and text != MISSING:
        return f"{text} / {formatted(metric(info.second), row[info.second])}"
    ends = written_interval(info, row) if info.interval_shown == "within" else MISSING
    return text if ends == MISSING or text == MISSING else f"{text} {ends}"


def written_interval(info: MetricInfo, row: Row) -> str:
    """Return the interval of a metric as a table writes it, or a dash."""
    if info.name not in row.ci:
        return MISSING
    low, high = row.ci[info.name]
    sign = "+" if info.style == "signed" else ""
    return f"[{low:{sign}.{info.interval_digits}f}, {high:{sign}.{info.interval_digits}f}]"


def formatted(info: MetricInfo, value: float | None) -> str:
    """Return a value of a metric in its style, or a dash."""
    if value is None:
        return MISSING
    if info.style == "significant":
        return three(value)
    if info.style == "scaled":
        return scaled(value)
    if info.style == "count":
        return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"
    if info.style == "p":
        return "<0.001" if value < 0.001 else f"{value:.3f}"
    return f"{value:+.{info.digits}f}" if info.style == "signed" else fixed(value, info.digits)


def render(
    board: Leaderboard, *, width: int, where: str = "leaderboard.csv", verbose: bool = False
) -> list[RenderableType]:
    """Return the tables for a terminal, each followed by its notes.

    Args:
        board: The leaderboard.
        width: Columns of the terminal. Where the table is wider, long labels lose their middle, and the least important
            columns give way; no number is ever wrapped.
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
        heading, wanted = title(board, task, classifier, rows), _filled(rows, asked)
        table, shown_columns = fitted(functools.partial(_rich_table, heading, rows=rows), wanted, width=width)
        if len(shown_columns) < len(wanted):
            build = functools.partial(_rich_table, heading, rows=rows, most=label_limit(width))
            table, shown_columns = fitted(build, wanted, width=width)
        dropped = len(wanted) - len(shown_columns)
        lines = notes(board, task, rows) + lacking
        if dropped:
            lines.append(f"{dropped} more columns are in {where}; a wider terminal shows them")
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
        lines = "\n".join(f"- {line}" for line in notes(board, task, rows))
        parts.append(f"## {title(board, task, classifier, rows)}\n\n{text}\n\n{lines}\n")
        for grid in beside.get((task, classifier), []):
            lines = "\n".join(f"- {line}" for line in grid.notes)
            parts.append(f"### {grid.title}\n\n{grid.as_text('pipe')}\n\n{lines}\n")
    if board.warnings:
        parts.append("## Warnings\n\n" + "\n".join(f"- {line}" for line in board.warnings) + "\n")
    return "\n".join(parts)


def html(board: Leaderboard) -> str:
    """Return the tables with every column as HTML for a notebook; one line names the rows that have no weights."""
    parts = []
    beside, hidden = _beside(board), degraded_tasks(board.tasks)
    for task, classifier, all_rows in groups(board):
        if task in hidden:
            continue
        rows, lacking = _with_weights(all_rows)
        lines = "".join(f"<li>{escape(line)}</li>" for line in [*notes(board, task, rows), *lacking])
        heading = escape(title(board, task, classifier, rows))
        parts.append(f"<h4>{heading}</h4>{_whole_table(board, task, rows, 'html')}<ul>{lines}</ul>")
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
    write_text(paths[1], board.frame.to_csv(index=False, lineterminator="\n"))
    write_text(paths[2], markdown(board))
    write_text(paths[3], board.per_class.to_csv(index=False, lineterminator="\n"))
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


def row_name(row: Row, most: int | None = None) -> str:
    """Return method and weights with the marks that say what kind of row it is.

    Args:
        row: The row.
        most: Characters that the name may have; the label loses its middle, the marks stay. None keeps all.
    """
    marks = (CONTROL_MARK if row.role == "control" else "") + (ADAPTED_MARK if row.track == "adapted" else "")
    states = [row.status] * (row.status != "ok") + ["partial"] * row.partial
    suffix = (f" {marks}" if marks else "") + (f" [{', '.join(states)}]" if states else "")
    return (row.label if most is None else shortened(row.label, most - len(suffix))) + suffix


def plural(unit: str) -> str:
    """Return the plural of what a sample is: "patches", "images"."""
    return unit + ("es" if unit.endswith(("ch", "sh", "s", "x")) else "s")


def notes(board: Leaderboard, task: str, rows: Sequence[Row]) -> list[str]:
    """Return the sentences that must stand below a table."""
    about = board.tasks[task]
    dataset, unit = about["dataset"], plural(about["dataset"]["unit"])
    lines = [dataset["note"]] if dataset["note"] else []
    lines += _mark_notes(rows)
    lines += _interval_notes(board, rows, unit)
    lines += _place_notes(rows)
    lines += _seed_notes(board, task, rows)
    lines += _power_note(board, task, rows, unit)
    lines += _numerics_note(about)
    lines += _class_notes(board, task, rows)
    if any(row.partial for row in rows):
        sizes = sorted({row.n for row in rows if row.partial and row.status == "ok"})
        lines.append(f"partial: --limit left {', '.join(map(str, sizes)) or 'no'} {unit}; such rows are never ranked")
    if dataset["n_unreadable"]:
        named = ", ".join(dataset["unreadable"])
        more = ", ..." if dataset["n_unreadable"] > len(dataset["unreadable"]) else ""
        lines.append(f"unreadable and left out of every row: {dataset['n_unreadable']} ({named}{more})")
    if dataset["n_not_degraded"]:
        lines.append(
            f"{dataset['n_not_degraded']} of {dataset['n']} {unit} are already at or below the LR size:"
            " the degradation does nothing to them"
        )
    one_channel = dataset.get("n_one_channel", 0)  # boards of before it was counted do not say
    if one_channel and about["protocol"]["fields"].get("score", {}).get("channels") == "y":
        lines.append(f"{one_channel} of {dataset['n']} {unit} are stored with one channel, which is taken as Y itself")
    lines += _exact_notes(rows)
    lines += _null_notes(rows)
    for status in ("skipped", "error"):
        reasons: dict[str, list[str]] = {}
        for row in rows:
            if row.status == status:
                reasons.setdefault(row.reason or "", []).append(row.label)
        lines += [f"{status}: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return lines


def _beside(board: Leaderboard) -> dict[tuple[str, str | None], list[Grid]]:
    """Return the further tables that stand below that of a task and network."""
    from srbench.leaderboard.shift_grid import shift_grid  # which writes its numbers as this module does

    found: dict[tuple[str, str | None], list[Grid]] = {}
    for table in board.shifts:
        found.setdefault((table.task, table.classifier), []).append(shift_grid(table, board.tasks))
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


def _whole_table(board: Leaderboard, task: str, rows: Sequence[Row], style: str) -> str:
    """Return a table with every column in a style of tabulate."""
    wanted = _filled(rows, task_type_of(board, task))
    return tabulate(
        [[_plain(column, row) for column in wanted] for row in rows],
        headers=[column.header.replace("-\n", "-").replace("\n", " ") for column in wanted],
        tablefmt=style,
        colalign=[column.justify for column in wanted],
        disable_numparse=True,
    )


def _filled(rows: Sequence[Row], asked: TaskType) -> list[Column]:
    """Columns that have something to show; the essential ones stay wherever a network answered."""
    answered = any(row[asked.ranks[0]] is not None for row in rows)

    def keeps(column: Column) -> bool:
        if column.name == "psnr_ci" and answered:  # the interval of the network's own number takes its place
            return False
        return column.filled(rows) or (answered and column.name in asked.essential)

    return [column for column in columns(asked.name) if keeps(column)]


def _rich_table(heading: str, wanted: Sequence[Column], rows: Sequence[Row], most: int | None = None) -> Table:
    """Return a table for a terminal; `most` is the number of characters that a row's name may have."""
    # Text, not markup: a name in square brackets would vanish.
    table = Table(box=box.SIMPLE_HEAD, title=Text(heading, "bold"), title_justify="left", pad_edge=False)
    for column in wanted:
        table.add_column(column.header, justify=column.justify, no_wrap=True, vertical="bottom")  # type: ignore[arg-type]
    sections = [(row.track, row.status != "ok") for row in rows]
    for index, row in enumerate(rows):
        style = {"oracle": "bold", "control": "italic"}.get(row.role, "")
        cells = [Text(row_name(row, most) if column.name == "method" else _cell(column, row)) for column in wanted]
        last = index + 1 < len(rows) and sections[index] != sections[index + 1]
        table.add_row(*cells, style="dim" if row.status != "ok" else style, end_section=last)
    return table


def _cell(column: Column, row: Row) -> str:
    text = _plain(column, row)
    gap = row["recovered_gap"] if column.name == "recovered_gap" else None
    return text if gap is None else f"{text} {bar(gap)}"


def _plain(column: Column, row: Row) -> str:
    # A row without a result shows what it is and nothing else; its parameters would look like a measurement.
    return column.show(row) if row.status == "ok" or column.name == "method" else MISSING


def bar(share: float) -> str:
    """Return a bar of eighths of a character for a share, cut off at 0 and 1."""
    eighths = round(min(max(share, 0.0), 1.0) * BAR_WIDTH * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(BAR_WIDTH, "░")


def fixed(value: float | None, digits: int) -> str:
    """Return a number with so many digits behind the point, or a dash."""
    if value is None:
        return MISSING
    return "inf" if math.isinf(value) else f"{value:.{digits}f}"


def three(value: float | None) -> str:
    """Return three significant digits, never in powers of ten, or a dash."""
    if value is None:
        return MISSING
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def scaled(value: float | None) -> str:
    """Return three significant digits with k, M, G or T, or a dash."""
    if value is None:
        return MISSING
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


# --- the notes ---------------------------------------------------------------------------------------------------


def _mark_notes(rows: Sequence[Row]) -> list[str]:
    lines = []
    if any(row.role == "oracle" for row in rows):
        lines.append(f"{ORACLE}: the classifier on HR itself, the most that can be recovered")
    if any(row.role == "control" for row in rows):
        lines.append(f"{CONTROL_MARK} control: keeps the comparison honest and has no rank")
    if any(row.track == "adapted" for row in rows):
        lines.append(
            f"{ADAPTED_MARK} adapted: the classifier was trained too; never ranked against frozen rows;"
            f" differences refer to the frozen {ORACLE} and {BASELINE}"
        )
    return lines


def _interval_notes(board: Leaderboard, rows: Sequence[Row], unit: str) -> list[str]:
    if not any(row.ci for row in rows):
        return []
    how = board.bootstrap
    line = (
        f"intervals: {100 * how['level']:.3g} % paired bootstrap over {unit}, {how['draws']} draws, seed {how['seed']}"
    )
    if any(row["p_holm"] is not None for row in rows):
        line += f"; p: exact McNemar against {BASELINE}, Holm-corrected over {_families(rows)}"
    lines = [line]
    score = board.tasks[rows[0].task]["protocol"]["fields"].get("score", {})
    if score.get("psnr_reduction") == "batch":
        lines.append(
            f"PSNR: mean over batches of {score['psnr_batch']} {unit} with pooled MSE; its interval resamples batches"
            f" (at least {MINIMUM_BATCHES})"
        )
    return lines


def _place_notes(rows: Sequence[Row]) -> list[str]:
    """Say what the intervals of places are, and which rows are tied."""
    lines = []
    if any(row.rank_interval is not None for row in rows):
        lines.append("place 95 %: the middle 95 % of a row's places over the same draws")
    if any(row.tied for row in rows):
        lines.append(
            f"{TIE_MARK} tied with the best of its track: the 95 % interval of the difference holds 0 (it holds for all"
            " pairs of rows at once, because the same data chose the best)"
        )
    return lines


def _seed_notes(board: Leaderboard, task: str, rows: Sequence[Row]) -> list[str]:
    """Say which trainings a row of several seeds stands for, and what each of them reached."""
    kind, lines = task_type_of(board, task), []
    for row in rows:
        name = ranking_name(row, kind) if row.seeds else None
        if name is None:
            continue
        info = metric(name)
        each = ", ".join(
            f"{formatted(info, seed.values.get(name))} ({seed.weights}, seed {seed.seed})" for seed in row.seeds
        )
        lines.append(f"{row.label}: means over {len(row.seeds)} trainings; {info.word} {each}")
    if lines:
        lines.append("rows of several seeds: intervals resample seeds and images, and p is from these draws")
    return lines


def _power_note(board: Leaderboard, task: str, rows: Sequence[Row], unit: str) -> list[str]:
    """Say which difference the number of samples can show."""
    power = next((each for row in rows if (each := board.power_of(task, row.classifier)) is not None), None)
    if power is None:
        return []
    seen = f"where two methods disagree on {100 * power['discordance']:.1f} % of them, as rows and {BASELINE} do here"
    if power["difference"] is None:
        return [f"{power['n']} {unit} cannot show any difference in accuracy to exact McNemar p < 0.05"]
    return [
        f"the smallest difference in accuracy that {power['n']} {unit} could show is"
        f" {100 * power['difference']:.1f} points (exact McNemar p < 0.05 in 80 % of such data sets), {seen}"
    ]


def _numerics_note(about: Mapping[str, Any]) -> list[str]:
    """Say in which arithmetic the values were computed; boards of before it was recorded say nothing."""
    if "numerics" not in about:
        return []
    numerics = Numerics(**about["numerics"])
    return [f"computed in {numerics.arithmetic} on {'a GPU' if numerics.device == 'cuda' else 'a CPU'}"]


def _families(rows: Sequence[Row]) -> str:
    sizes = [sum(row["p_holm"] is not None and row.track == track for row in rows) for track in ("frozen", "adapted")]
    named = [f"{size} {track}" for size, track in zip(sizes, ("frozen", "adapted"), strict=True) if size]
    return f"{' and '.join(named)} rows"


def _class_notes(board: Leaderboard, task: str, rows: Sequence[Row]) -> list[str]:
    about = board.tasks[task]
    classes, size = about["dataset"]["n_classes"], about["dataset"]["n"]
    if not classes or all(row["f1_macro"] is None for row in rows) or size / classes >= FEW_SAMPLES:
        return []
    each = size / classes
    if each < 1:
        unit = about["dataset"]["unit"]
        counted = f"{size} {unit if size == 1 else plural(unit)} for {classes} classes"
        return [f"F1 of single classes: {counted}, fewer than one a class; F1 is taken over those present"]
    # A share near one half of so many samples; F1 is no steadier than that.
    points = 100 * 0.5 / math.sqrt(each)
    return [f"F1 of single classes: about {each:.0f} a class, a standard error near {points:.0f} points"]


def _null_notes(rows: Sequence[Row]) -> list[str]:
    """Say why values are missing: always for the gap and the image metrics, else where other rows have a value."""
    ok = [row for row in rows if row.status == "ok"]
    reasons: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    told = {info.name: info.absence for info in all_metrics() if info.absence is not None}
    for name, absence in {**told, "ci.psnr": "always"}.items():
        lacking = [row for row in ok if name in row.notes]
        if absence == "elsewhere" and len(lacking) == len(ok):
            continue
        for reason in dict.fromkeys(row.notes[name] for row in lacking):
            where = tuple(row.label for row in lacking if row.notes[name] == reason)
            spelled = () if len(where) == len(ok) else where
            reasons.setdefault((reason, spelled), []).append(name)
    lines = []
    for (reason, where), names in reasons.items():
        scope = f" for {', '.join(where)}" if where else ""
        lines.append(f"no {' and no '.join(_spoken(name) for name in names)}{scope}: {reason}")
    return lines


def _exact_notes(rows: Sequence[Row]) -> list[str]:
    """Say for which rows exact images stand in a mean at the most that one image counts."""
    labels: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, text in row.notes.items():
            if name.startswith("exact."):
                labels.setdefault((name.removeprefix("exact."), text), []).append(row.label)
    return [f"{metric(name).word}: {text}: {', '.join(named)}" for (name, text), named in labels.items()]


def _spoken(name: str) -> str:
    prefix, _, of = name.rpartition(".")
    return f"interval of {metric(of).word}" if prefix == "ci" else metric(name).word
