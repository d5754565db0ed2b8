"""What a table says in a few sentences, and what its bold numbers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from srbench.leaderboard import BASELINE, ORACLE, Row
from srbench.metrics.catalogue import metric
from srbench.report.best import Lead

MOST_NAMED = 4  # of the rows that are tied


def findings(rows: Sequence[Row], leading: Sequence[Lead], ranked_by: str) -> list[list[tuple[str, bool]]]:
    """What the table says, as runs of text; the flag marks a name that somebody else chose.

    Args:
        rows: Rows of one table.
        leading: The best rows of its columns.
        ranked_by: Metric that ranks the rows.
    """
    by_method = {row.method: row for row in rows if row.track == "frozen" and row.status == "ok" and not row.partial}
    return [
        [*(_tie(lead, ranked_by) if lead.tied else _winner(lead, ranked_by)), (_gap(lead, by_method, ranked_by), False)]
        for lead in leading
        if lead.column == ranked_by
    ]


def _winner(lead: Lead, name: str) -> list[tuple[str, bool]]:
    """Say that one row is told from all others, and by what from the next one."""
    verdict = "is more than chance" if lead.significant else "may be chance"
    return [
        (f"In the {lead.best.track} track ", False),
        (lead.best.label, True),
        (f" {_superlative(name)}: {_value(lead.best, name, interval=True)}. Its lead over ", False),
        (lead.second.label, True),
        (f" ({_value(lead.second, name)}) {verdict}: {lead.test}.", False),
    ]


def _tie(lead: Lead, name: str) -> list[tuple[str, bool]]:
    """Say that the samples do not tell which row is the best, and name those that could be."""
    named = lead.tied[:MOST_NAMED]
    line = [(f"In the {lead.best.track} track no row is the best alone: ", False)]
    for place, row in enumerate(named):
        last = place == len(named) - 1
        line.append(("" if place == 0 else " and " if last and len(lead.tied) == len(named) else ", ", False))
        line += [(row.label, True), (f" ({_value(row, name, interval=place == 0)})", False)]
    if len(lead.tied) > len(named):
        line.append((f" and {len(lead.tied) - len(named)} more", False))
    line.append((f" are tied in {metric(name).word} on these {lead.best.n} samples.", False))
    return line


def _gap(lead: Lead, by_method: Mapping[str, Row], ranked_by: str) -> str:
    """Say how much of the gap the first row wins back, or nothing where there is no gap."""
    best, oracle, base = lead.best, by_method.get(ORACLE), by_method.get(BASELINE)
    swept = ranked_by == "accuracy_best"
    gap = "gap_over_free" if swept else "recovered_gap"
    if best[gap] is None or oracle is None or base is None or oracle[ranked_by] is None or base[ranked_by] is None:
        return ""
    subject = "The first of them" if lead.tied else "It"
    ends = best.ci.get(gap)
    spelled = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""
    sizes = ", each at its best input size" if swept else ""
    return (
        f" {subject} wins back {best[gap]:.2f}{spelled} of the gap between {BASELINE}"
        f" ({base[ranked_by]:.3f}) and the {ORACLE} ({oracle[ranked_by]:.3f}){sizes}."
    )


def _superlative(name: str) -> str:
    if name == "accuracy":
        return "is the most accurate"
    return f"has the {'highest' if metric(name).higher_is_better else 'lowest'} {metric(name).word}"


def _value(row: Row, name: str, *, interval: bool = False) -> str:
    digits = metric(name).interval_digits
    ends = row.ci.get(name) if interval else None
    return f"{row[name]:.{digits}f}" + (f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if ends else "")


def bold_note(leading: Sequence[Lead]) -> list[str]:
    """Say what bold numbers mean, where there are any."""
    if not leading:
        return []
    return [
        "bold: the best ranked row of its track, only where it is better than the next best by more than chance on the"
        " same samples: exact McNemar p < 0.05 for accuracy, top-5 and agreement (the gap and the difference to"
        f" {BASELINE} follow accuracy); a 95 % paired bootstrap interval of the difference without 0 for the other"
        " means; for F1, accuracy at the best input size, and a PSNR that pools batches, intervals that are apart."
        " Where it is what ranks the rows, no row may be tied with it either"
    ]
