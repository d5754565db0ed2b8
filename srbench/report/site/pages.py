"""The HTML of the site: its index, and the page of a folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from srbench import __version__
from srbench.leaderboard import Row, texts
from srbench.leaderboard.ranks import ranking_name
from srbench.leaderboard.tables import groups, task_type_of
from srbench.metrics.catalogue import metric
from srbench.report.inline import inline_svg, script_json
from srbench.report.page_table import row_anchor
from srbench.report.rendering import asset, policy, template
from srbench.report.site.entries import Entry

MOST_SVG = 400_000  # characters; a larger figure is a file beside the page
ROWS_SHOWN = 100  # of the index, until more are asked for
_FILTERS = ("hardware", "library", "dataset", "network")


@dataclass(frozen=True)
class Found:
    """A row as the index lists it.

    Attributes:
        row: The row.
        entry: The folder that it stands in.
        link: Its address, relative to the index.
        dataset: Name of its dataset.
        score: What ranks it, with its interval, or a dash.
        word: What that is.
    """

    row: Row
    entry: Entry
    link: str
    dataset: str
    score: str
    word: str

    @property
    def place(self) -> str:
        """Its place, with the mark of a tie."""
        return texts.written_rank(self.row)

    @property
    def latency(self) -> str:
        """Milliseconds an image."""
        return texts.formatted(metric("latency_ms"), self.row["latency_ms"])

    @property
    def name(self) -> str:
        """Method and weights with their marks."""
        return texts.row_name(self.row)

    @property
    def values(self) -> Mapping[str, Sequence[str]]:
        """What the filters of the index look at, by name."""
        named = (self.entry.hardware, (self.entry.library,), (self.dataset,), (self.row.classifier or "",))
        return dict(zip(_FILTERS, named, strict=True))

    @property
    def text(self) -> str:
        """What the search of the index looks at."""
        row = self.row
        parts = (row.method, row.weights, row.classifier, row.track, row.role, row.task, self.dataset, self.entry.name)
        return " ".join(filter(None, (*parts, *self.entry.hardware, self.entry.library))).lower()


def index_page(entries: Sequence[Entry]) -> str:
    """Return the HTML of the index."""
    rows = [each for entry in entries for each in _rows(entry)]
    options = {name: sorted({value for each in rows for value in each.values[name] if value}) for name in _FILTERS}
    script = asset("index.js")
    return str(
        template("index.html.j2").render(
            shelves=[
                (
                    hardware,
                    [(library, list(same)) for library, same in itertools.groupby(ours, key=lambda e: e.library)],
                )
                for hardware, ours in _grouped(entries, lambda entry: " and ".join(entry.hardware))
            ],
            leading={entry.name: _leading(entry) for entry in entries},
            rows=rows,
            options={name: values for name, values in options.items() if len(values) > 1},
            rows_shown=ROWS_SHOWN,
            data=lambda value: script_json(value),
            version=__version__,
            css=Markup(asset("page.css") + asset("site.css")),
            script=Markup(script),
            policy=policy(script),
        )
    )


def results_page(entry: Entry, figures: Mapping[str, str], entries: Sequence[Entry]) -> str:
    """Return the HTML of a folder's page.

    Args:
        entry: The folder.
        figures: Its figures as harmless SVG documents, by name.
        entries: All folders of the site: those that share a task are linked.
    """
    script = asset("page.js")
    return str(
        template("results.html.j2").render(
            entry=entry,
            figures=[(name, name.replace("-", " "), _shown(name, text)) for name, text in figures.items()],
            others=[
                other for other in entries if other is not entry and set(other.board.tasks) & set(entry.board.tasks)
            ],
            version=__version__,
            css=Markup(asset("page.css") + asset("site.css")),
            script=Markup(script),
            policy=policy(script),
            control_mark=texts.CONTROL_MARK,
            adapted_mark=texts.ADAPTED_MARK,
        )
    )


def _shown(name: str, svg: str) -> Markup | None:
    return Markup(inline_svg(svg, name=name, label=name.replace("-", " "))) if len(svg) <= MOST_SVG else None


def _grouped(entries: Sequence[Entry], key: Callable[[Entry], str]) -> list[tuple[str, list[Entry]]]:
    return [(name, list(ours)) for name, ours in itertools.groupby(entries, key=key)]


def _rows(entry: Entry) -> list[Found]:
    return [_found(entry, row) for task, _, rows in groups(entry.board) for row in rows if row.status == "ok" and task]


def _found(entry: Entry, row: Row) -> Found:
    name = ranking_name(row, task_type_of(entry.board, row.task))
    score, word = texts.MISSING, ""
    if name is not None:
        info = metric(name)
        score, word = texts.with_interval(info, row[name], row.ci.get(name)), info.word
    dataset = str(entry.board.tasks[row.task]["dataset"]["name"])
    return Found(row, entry, f"{entry.slug}/index.html#{row_anchor(row)}", dataset, score, word)


def _leading(entry: Entry) -> list[tuple[str, str, str, Found]]:
    """Return for each table its anchor, task, network and first row: the best frozen one where there is one."""
    found = []
    tables = {(task.id, table.classifier): table.id for task in entry.tasks for table in task.tables}
    for task, classifier, rows in groups(entry.board):
        ranked = [row for row in rows if row.status == "ok"]
        ranked.sort(key=lambda row: (row.rank is None, row.track == "adapted", row.rank or 0))
        if ranked:
            found.append((tables[task, classifier], task, classifier or "", _found(entry, ranked[0])))
    return found
