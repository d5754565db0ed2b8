"""A leaderboard's tables in LaTeX, for papers: booktabs, one float a task and network."""

from __future__ import annotations

from collections.abc import Sequence

from srbench.leaderboard.board import Leaderboard
from srbench.leaderboard.notes import notes
from srbench.leaderboard.rows import Row
from srbench.leaderboard.tables import Column, filled_columns, groups, plain_text, task_type_of, title
from srbench.leaderboard.texts import in_one_line
from srbench.metrics.catalogue import ESSENTIAL_PRIORITY

_SIGNS = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "≈": r"$\approx$",
    "·": r"$\cdot$",
    "–": "--",
    "…": r"\ldots{}",
}


def latex(board: Leaderboard) -> str:
    """Return every table with its more important columns, and its notes below; needs the package booktabs.

    Rows of the two tracks are apart. The value that ranks is bold where the row is the first of its track and no other
    is tied with it. Rows without a result are left out.
    """
    parts = [r"% needs \usepackage{booktabs}"]
    for task, classifier, all_rows in groups(board):
        rows = [row for row in all_rows if row.status == "ok"]
        if rows:
            parts.append(_float(board, task, title(board, task, classifier, all_rows), rows))
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Return a text in which no sign means anything to LaTeX."""
    return "".join(_SIGNS.get(sign, sign) for sign in text)


def _float(board: Leaderboard, task: str, caption: str, rows: Sequence[Row]) -> str:
    kind = task_type_of(board, task)
    wanted = [column for column in filled_columns(rows, kind) if column.priority <= ESSENTIAL_PRIORITY]
    ranked_by = next((name for name in (*kind.ranks, "psnr") if any(row[name] is not None for row in rows)), None)
    headers = " & ".join(escaped(in_one_line(column.header)) for column in wanted)
    lines = [
        r"\begin{table}",
        rf"\caption{{{escaped(caption)}}}",
        rf"\begin{{tabular}}{{{''.join('l' if column.justify == 'left' else 'r' for column in wanted)}}}",
        r"\toprule",
        rf"{headers} \\",
        r"\midrule",
    ]
    for index, row in enumerate(rows):
        if index and row.track != rows[index - 1].track:
            lines.append(r"\midrule")
        lines.append(rf"{' & '.join(_cell(column, row, ranked_by) for column in wanted)} \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"", r"\footnotesize"]
    lines += [rf"{escaped(note)}.\par" for note in notes(board, task, rows)]
    return "\n".join([*lines, r"\end{table}"])


def _cell(column: Column, row: Row, ranked_by: str | None) -> str:
    text = escaped(plain_text(column, row))
    best = column.name == ranked_by and row.rank == 1 and not row.tied
    return rf"\textbf{{{text}}}" if best else text
