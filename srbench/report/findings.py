"""What a table says in a few sentences, and what its bold numbers mean."""

from __future__ import annotations

from collections.abc import Sequence

from srbench.leaderboard import BASELINE, ORACLE, Row
from srbench.report.best import Lead


def findings(rows: Sequence[Row], leading: Sequence[Lead]) -> list[list[tuple[str, bool]]]:
    """What the table says, as runs of text; the flag marks a name that somebody else chose."""
    lines = []
    by_method = {row.method: row for row in rows if row.track == "frozen" and row.status == "ok" and not row.partial}
    oracle, base = by_method.get(ORACLE), by_method.get(BASELINE)
    for lead in leading:
        if lead.column == "srcc":
            verdict = "is more than chance" if lead.significant else "may be chance"
            lines.append(
                [
                    (f"In the {lead.best.track} track ", False),
                    (lead.best.label, True),
                    (f" has the highest SRCC: {lead.best['srcc']:.3f}. Its lead over ", False),
                    (lead.second.label, True),
                    (f" ({lead.second['srcc']:.3f}) {verdict}: {lead.test}.", False),
                ]
            )
        if lead.column != "accuracy":
            continue
        best, second = lead.best, lead.second
        line = [("In the ", False), (best.track, False), (" track ", False), (best.label, True)]
        line.append((f" is the most accurate: {_share(best)}", False))
        if best["recovered_gap"] is not None and oracle is not None and base is not None:
            ci = best.ci.get("recovered_gap")
            spelled = f" [{ci[0]:.2f}, {ci[1]:.2f}]" if ci else ""
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
            verdict = "is more than chance" if lead.significant else "may be chance"
            line.append((f" ({second['accuracy']:.3f}) {verdict}: {lead.test}.", False))
        lines.append(line)
    return lines


def _share(row: Row) -> str:
    ci = row.ci.get("accuracy")
    return f"{row['accuracy']:.3f}" + (f" [{ci[0]:.3f}, {ci[1]:.3f}]" if ci else "")


def bold_note(leading: Sequence[Lead]) -> list[str]:
    """Say what bold numbers mean, where there are any."""
    if not leading:
        return []
    return [
        "bold: the best ranked row of its track, only where it is better than the next best by more than chance on the"
        " same samples: exact McNemar p < 0.05 for accuracy, top-5 and agreement (the gap and the difference to"
        f" {BASELINE} follow accuracy); a 95 % paired bootstrap interval of the difference without 0 for the other"
        " means; for F1, and for a PSNR that pools batches, intervals that are apart"
    ]
