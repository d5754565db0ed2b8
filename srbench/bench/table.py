"""How `srbench bench` shows its figures on the terminal."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from srbench.bench import BenchResult, Case, Row
from srbench.leaderboard.fitting import fitted
from srbench.leaderboard.texts import MISSING, fixed, in_lines, scaled, three
from srbench.records.schema import Spread, named


@dataclass(frozen=True)
class _Column:
    header: str
    show: Callable[[Row], str]
    priority: int  # the larger, the sooner it gives way on a narrow terminal
    justify: str = "right"


def _columns() -> tuple[_Column, ...]:
    return (
        _Column("method", lambda row: _label(row.case), 0, "left"),
        _Column("stage", lambda row: row.case.stage.replace("_", " "), 0, "left"),
        _Column("batch", lambda row: str(row.case.batch), 0),
        _Column("ms /\nimage", lambda row: _middle(row.latency_ms), 0),
        _Column("p10 to p90", lambda row: _ends(row.latency_ms), 3),
        _Column("images\n/ s", lambda row: _middle(row.images_per_s), 0),
        _Column("para\u00ad\nmeters", lambda row: scaled(row.parameters), 5),
        _Column("FLOP /\nimage", lambda row: scaled(row.flops or None), 4),
        _Column("FLOP\n/ s", lambda row: scaled(row.flops_per_s), 2),
        _Column("share", lambda row: MISSING if row.share is None else f"{row.share:.1%}", 1),
        _Column("peak\nMB", lambda row: fixed(row.peak_memory_mb, 0), 6),
        _Column("compile\ns", lambda row: fixed(row.compile_s, 1), 7),
    )


def render(result: BenchResult, *, width: int) -> list[RenderableType]:
    """Return a table for each size, and what must be known to read them.

    Args:
        result: What was measured.
        width: Columns of the terminal; the least important columns give way, no number is ever wrapped.
    """
    shown: list[RenderableType] = []
    by_size: dict[tuple[tuple[int, int], tuple[int, int]], list[Row]] = {}
    for row in result.rows:
        by_size.setdefault((row.case.lr_size, row.case.sr_size), []).append(row)
    dropped = False
    for (lr_size, sr_size), rows in by_size.items():
        filled = [column for column in _columns() if any(column.show(row) != MISSING for row in rows)]
        title = f"LR {_by(lr_size)}, SR {_by(sr_size)}"
        table, kept = fitted(functools.partial(_table, title, rows=rows), filled, width=width)
        dropped |= len(kept) < len(filled)
        shown.append(table)
    lines = _notes(result)
    if dropped:
        lines.append("A wider terminal shows more columns; --out FILE.json keeps every figure.")
    return [*shown, Padding(Text("\n".join(lines), style="dim"), (0, 0, 1, 2))]


def _table(title: str, columns: Sequence[_Column], rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(in_lines(column.header), justify=column.justify, no_wrap=True, vertical="bottom")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(Text(column.show(row)) for column in columns), style="dim" if row.status != "ok" else "")
    return table


def _notes(result: BenchResult) -> list[str]:
    product, machine = result.matrix_product, result.environment
    compiled = ", compiled" if result.compiled else ""
    threads = "1 thread" if machine.threads == 1 else f"{machine.threads} threads"
    lines = [
        f"{machine.device}, {threads}, torch {machine.torch}, {result.precision}{compiled}; medians.",
        f"share: of the {scaled(product.flops_per_s)}FLOP/s that a product of two {product.side} x {product.side}"
        f" matrices in {product.arithmetic} reached in this run.",
    ]
    for row in result.failed:
        case = row.case
        lines.append(f"failed: {_label(case)}, {case.stage}, LR {_by(case.lr_size)}, batch {case.batch}: {row.reason}")
    return lines


def _label(case: Case) -> str:
    if case.method is None:
        return named(str(case.classifier), case.runtime)
    return f"{case.method} ({case.weights})" if case.weights else case.method


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _middle(spread: Spread | None) -> str:
    return MISSING if spread is None else three(spread.median)


def _ends(spread: Spread | None) -> str:
    return MISSING if spread is None else f"{three(spread.p10)} to {three(spread.p90)}"
