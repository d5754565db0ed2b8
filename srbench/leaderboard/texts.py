"""How rows, values, intervals and places are written; the only place that rounds."""

from __future__ import annotations

import math

from srbench.leaderboard.fitting import shortened
from srbench.leaderboard.rows import Row
from srbench.metrics.catalogue import metric
from srbench.metrics.info import MetricInfo
from srbench.task_types import Interval

MISSING = "–"
CONTROL_MARK = "†"
ADAPTED_MARK = "‡"
TIE_MARK = "≈"


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


def with_interval(info: MetricInfo, value: float | None, ends: Interval | None) -> str:
    """Return a value of a metric with its interval behind it, where there is one."""
    if value is None or ends is None:
        return formatted(info, value)
    return f"{formatted(info, value)} [{ends[0]:.{info.interval_digits}f}, {ends[1]:.{info.interval_digits}f}]"


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


def in_one_line(header: str) -> str:
    """Return a column's header without its breaks: a soft hyphen stands only where a word is broken."""
    return header.replace("\u00ad\n", "").replace("-\n", "-").replace("\n", " ")


def in_lines(header: str) -> str:
    """Return a column's header with its breaks, as a terminal shows it."""
    return header.replace("\u00ad\n", "-\n")


def best_sizes(row: Row) -> str:
    """Return the input sizes that are best on the halves of the samples, in pixels: "160", or "160, 192"."""
    return ", ".join(map(str, sorted(set(row.best_input_sizes)))) or MISSING


def row_name(row: Row, most: int | None = None) -> str:
    """Return method and weights with the marks that say what kind of row it is.

    Args:
        row: The row.
        most: Characters that the name may have; the label loses its middle, the marks stay. None keeps all.
    """
    marks = (CONTROL_MARK if row.role == "control" else "") + (ADAPTED_MARK if row.track == "adapted" else "")
    states = [row.status] * (row.status != "ok") + ["partial"] * row.partial
    suffix = (f" {marks}" if marks else "") + (f" [{', '.join(states)}]" if states else "")
    if most is None:
        return row.label + suffix
    ran = f"[{row.runtime}]" if row.runtime is not None else ""  # what tells it from torch's row stays
    return shortened(row.label.replace(ran, "", 1), most - len(ran) - len(suffix)) + ran + suffix


def plural(unit: str) -> str:
    """Return the plural of what a sample is: "patches", "images"."""
    return unit + ("es" if unit.endswith(("ch", "sh", "s", "x")) else "s")


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
