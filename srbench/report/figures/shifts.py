"""What every method keeps under each degradation, as a heat table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from matplotlib.figure import Figure

from srbench.leaderboard.shifts import ShiftTable
from srbench.leaderboard.texts import formatted, plural
from srbench.metrics.catalogue import metric
from srbench.report.drawn import Drawn, drawing
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import WIDE, WIDTH, canvas, dress, matrix, names_axis, slug

SECTION = Section("shifts", "Under degradations", order=25)
_INCHES_A_ROW = 0.3
_WIDE_FROM = 5  # columns


def draw(material: Material) -> Iterator[Drawn]:
    """Yield a heat table of each task that stands beside degraded ones."""
    for table in material.board.shifts:
        yield _heat(table, material)


@drawing()
def _heat(table: ShiftTable, material: Material) -> Drawn:
    info, about = metric(table.metric), material.board.tasks[table.task]
    names = [about["protocol"]["name"], *table.tasks]
    values = [[row.row[table.metric], *(row.values.get(name) for name in table.tasks)] for row in table.rows]
    worst = [
        (at, names.index(row.worst)) for at, row in enumerate(table.rows) if row.worst is not None and len(names) > 2
    ]
    texts = [[formatted(info, value) for value in line] for line in values]
    labels = [row.row.label for row in table.rows]
    figure = heat(values, texts, columns=names, rows=labels, share=info.share, outlined=worst)
    word, dataset = f"{info.word[0].upper()}{info.word[1:]}", about["dataset"]
    caption = (
        f"{word} over {dataset['n']} {plural(dataset['unit'])} without further degradation ({names[0]}) and under each;"
        " the worst of a row is framed. Images, HR and scoring are the same in every column; each degradation draws its"
        " parameters for every image from its id."
    )
    data = {**table.to_json(), "base": [row.row[table.metric] for row in table.rows]}
    name = f"shifts-{slug(table.task)}-{slug(table.classifier)}"
    return Drawn(name, "shifts", table.task, table.classifier, f"{word} under degradations", caption, figure, data)


def heat(
    values: Sequence[Sequence[float | None]],
    texts: Sequence[Sequence[str]],
    *,
    columns: Sequence[str],
    rows: Sequence[str],
    share: bool,
    outlined: Iterable[tuple[int, int]] = (),
) -> Figure:
    """Return a table whose cells deepen with their value.

    Args:
        values: Rows of numbers; None is an empty cell.
        texts: What is written in each cell.
        columns: Headings.
        rows: Names of the rows.
        share: Whether the numbers are shares, drawn as they are; others are drawn from their least to their largest.
        outlined: (row, column) of cells with a frame.
    """
    known = [value for line in values for value in line if value is not None]
    low, span = (0.0, 1.0) if share or not known else (min(known), (max(known) - min(known)) or 1.0)
    shares = [[None if value is None else (value - low) / span for value in line] for line in values]
    figure = canvas(0.7 + _INCHES_A_ROW * len(values), width=WIDE if len(columns) > _WIDE_FROM else WIDTH)
    axes = figure.subplots()
    dress(axes, grid="")
    matrix(axes, shares, texts=texts, outlined=outlined)
    names_axis(axes.xaxis, columns)
    names_axis(axes.yaxis, rows)
    axes.xaxis.tick_top()
    return figure
