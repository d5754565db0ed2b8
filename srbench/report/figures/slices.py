"""What every method reaches on each slice of the images, as a heat table a column."""

from __future__ import annotations

from collections.abc import Iterator

from srbench.leaderboard.slices import SliceTable
from srbench.leaderboard.texts import formatted, plural
from srbench.metrics.catalogue import metric
from srbench.report.drawn import Drawn, drawing
from srbench.report.figures.section import Material, Section
from srbench.report.figures.shifts import heat
from srbench.report.figures.style import slug

SECTION = Section("slices", "By slice of the images", order=26)


def draw(material: Material) -> Iterator[Drawn]:
    """Yield a heat table of each column of `--meta`, task and network."""
    for table in material.board.slices:
        if table.rows and table.slices:
            yield _slices(table, material.board.tasks[table.task]["dataset"]["unit"])


@drawing()
def _slices(table: SliceTable, unit: str) -> Drawn:
    info = metric(table.metric)
    values = [[row.values.get(each.name) for each in table.slices] for row in table.rows]
    texts = [[formatted(info, value) for value in line] for line in values]
    columns = [f"{each.name}, n={each.n}" for each in table.slices]
    figure = heat(values, texts, columns=columns, rows=[row.row.label for row in table.rows], share=info.share)
    word = f"{info.word[0].upper()}{info.word[1:]}"
    caption = (
        f"{word} by {table.column}; n is the number of {plural(unit)} of a slice. Its data hold the 95 % intervals,"
        " which are wide where n is small: two slices differ only where they do not overlap."
    )
    name = f"slices-{slug(table.column)}-{slug(table.task)}-{slug(table.classifier)}"
    title = f"{word} by {table.column}"
    return Drawn(name, "slices", table.task, table.classifier, title, caption, figure, table.to_json())
