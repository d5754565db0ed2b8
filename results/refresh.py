"""Turn an `srbench eval --out` folder into a committed result: tables, how they were made, the report's figures.

    python results/refresh.py demo out/demo --command 'srbench eval --all'
    python results/refresh.py real-photos out/real-photos --command '...'

README.md and results/README.md get the table or the picture, where they have markers for those of this name. Records,
samples and pixels stay outside the repository; what is committed is small text and vector graphics.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from srbench.leaderboard import Leaderboard, Row, build
from srbench.leaderboard.escapes import markdown_cell
from srbench.leaderboard.tables import columns, task_type_of
from srbench.leaderboard.texts import TIE_MARK, best_sizes, row_name, written_rank
from srbench.records.cells import NO_CLASSIFIER, StoredCell, find_records, safe_name
from srbench.records.made import MADE_FILE, Made, made_by
from srbench.report.figures import draw_all

ROOT = Path(__file__).resolve().parent.parent
DRAWN = ("cost-latency", "iou", "ap", "box-sizes")  # the first is shown on pages
FILES = ("leaderboard.json", "leaderboard.csv", "leaderboard.md", "per_class.csv")


def main() -> None:
    """Refresh one folder of results/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="folder below results/")
    parser.add_argument("out", type=Path, help="folder that srbench eval --out wrote")
    parser.add_argument("--command", required=True, help="the command that made it")
    arguments = parser.parse_args()
    target = ROOT / "results" / arguments.name
    target.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copyfile(arguments.out / file, target / file)
    cells, _ = find_records([arguments.out])
    board = build(cells)
    provenance = made_by([cell.record for cell in cells], arguments.command)
    (target / MADE_FILE).write_text(json.dumps(provenance.to_json(), indent=1) + "\n", encoding="utf-8")
    figures = draw(board, cells, target)
    for page in (ROOT / "README.md", ROOT / "results" / "README.md"):
        fill_page(page, board, arguments.name, provenance, figures[:1])


def draw(board: Leaderboard, cells: Sequence[StoredCell], target: Path) -> list[str]:
    """Save the report's figures of DRAWN and of training; return the names of those that pages show."""
    for old in target.glob("*.svg"):
        if old.name.startswith((*(f"{each}-" for each in DRAWN), "training-")):  # others are not from here
            old.unlink()
    shown = []
    for figure in draw_all(board, cells):
        kind = next((each for each in DRAWN if figure.name.startswith(f"{each}-")), None)
        if kind is not None:
            name = f"{kind}-{safe_name(figure.classifier, missing=NO_CLASSIFIER)}.svg"
            shown += [name] if kind == DRAWN[0] else []
        elif figure.section == "training":
            name = f"{figure.name}.svg"
        else:
            continue
        (target / name).write_text(figure.svg(), encoding="utf-8")
    return shown


def drawn(board: Leaderboard, score: str = "accuracy") -> list[Row]:
    """Return the rows that have an accuracy, or another score."""
    return [row for row in board.rows if row.status == "ok" and row[score] is not None and score in row.ci]


def fill_page(page: Path, board: Leaderboard, name: str, provenance: Made, figures: Sequence[str]) -> None:
    """Put the table and the picture between those of a page's markers that bear the name."""
    text = page.read_text(encoding="utf-8")
    here = "" if page.parent.name == "results" else "results/"
    made = (
        f"Made by `{provenance.command}` at commit {', '.join(each[:9] for each in provenance.commits)}"
        f" on {', '.join(provenance.devices)}, {', '.join(provenance.dates)};"
        f" every column is in [results/{name}]({here}{name}/leaderboard.md). † control, ‡ classifier trained too."
    )
    rows = drawn(board)
    if any(row.accuracy_by_size for row in rows):
        table = swept_table(rows)
    elif rows:
        table = short_table(board)
    else:
        table = rated_table(board) if drawn(board, "srcc") else dense_table(board)
    text = between(text, f"table:{name}", f"{table}\n\n{made}")
    for figure in figures:
        text = between(text, f"picture:{name}", f"![accuracy against latency on {name}]({here}{name}/{figure})")
    page.write_text(text, encoding="utf-8")


def between(text: str, mark: str, content: str) -> str:
    """Replace what stands between `<!-- mark -->` and `<!-- /... -->`, where the mark is there."""
    kind = mark.split(":")[0]
    pattern = re.compile(rf"(<!-- {re.escape(mark)} -->\n).*?(<!-- /{kind} -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)


def short_table(board: Leaderboard) -> str:
    """Return the seeds' columns and the recovered gap as Markdown, the classifiers side by side."""
    classifiers = list(dict.fromkeys(row.classifier for row in board.rows))
    head = ["method", "PSNR dB"]
    for classifier in classifiers:
        head += [f"{classifier}: accuracy", "cross-entropy", "recovered gap (95 %)", "total s"]
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join([":--"] + ["--:"] * (len(head) - 1)) + "|"]
    names = list(dict.fromkeys(row_name(row) for row in drawn(board)))
    for name in names:
        rows = {row.classifier: row for row in drawn(board) if row_name(row) == name}
        first = next(iter(rows.values()))
        cells = [name, _psnr(first)]
        for classifier in classifiers:
            row = rows.get(classifier)
            cells += (
                ["–"] * 4
                if row is None
                else [_number(row["accuracy"]), _number(row["cross_entropy"]), _gap(row), f"{row['total_time_s']:.1f}"]
            )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def swept_table(rows: Sequence[Row]) -> str:
    """Return rows at several input sizes as Markdown: the first network in full, of the others the gap over free."""
    networks = list(dict.fromkeys(row.classifier for row in rows))
    first, *others = ([row for row in rows if row.classifier == network] for network in networks)
    (own,) = first[0].accuracy_by_size.keys() - first[0].p_by_size.keys()
    head = ["#", "method", "PSNR dB", f"accuracy at {own}", "at the best size", "recovered gap", "gap over free"]
    head += ["fixed / broken", *(f"{network}: at the best size | gap over free" for network in networks[1:])]
    head = " | ".join(head).split(" | ")
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join([":--"] * 2 + ["--:"] * (len(head) - 2)) + "|"]
    for row in first:
        cells = [written_rank(row), row_name(row), _psnr(row), _number(row["accuracy"]), _best(row), _gap(row)]
        cells += [
            _gap(row, "gap_over_free"),
            "–" if row["fixed"] is None else f"{row['fixed']:.0f} / {row['broken']:.0f}",
        ]
        for rest in others:
            same = [each for each in rest if row_name(each) == row_name(row)]
            cells += [_best(same[0]), _gap(same[0], "gap_over_free")] if same else ["–", "–"]
        lines.append("| " + " | ".join(cells) + " |")
    said = (
        f"Behind every method stands {networks[0]}; sizes are the shortest side of what it sees, in pixels. The best"
        f" size, in brackets, is chosen on one half of the images for the other, {own} unless another leads it by more"
        " than a standard error. Recovered gap: 0 is bilinear, 1 the original, both at"
        f" {own}. Gap over free: the same, both at their best sizes. Fixed / broken: images that"
        f" bilinear at {own} gets wrong and the row right, and the reverse. {TIE_MARK}: tied with the best. Square"
        " brackets: 95 % intervals."
    )
    return "\n".join([*lines, "", said])


def rated_table(board: Leaderboard) -> str:
    """Return the correlations of image quality as Markdown, the classifiers below each other."""
    lines = ["| method | PSNR dB | SRCC (95 %) | against bilinear (95 %) | PLCC | EMD |", "|:--|--:|--:|--:|--:|--:|"]
    for row in drawn(board, "srcc"):
        psnr = "–" if row["psnr"] is None else f"{row['psnr']:.2f}"
        delta = "–" if row["srcc_delta"] is None or row.method == "bilinear" else f"{row['srcc_delta']:+.3f}"
        ends = [
            f" [{low:{sign}.3f}, {high:{sign}.3f}]" if low is not None and high is not None else ""
            for name, sign in (("srcc", ""), ("srcc_delta", "+"))
            for low, high in (row.ci.get(name, (None, None)),)
        ]
        lines.append(
            f"| {row_name(row)} | {psnr} | {_number(row['srcc'])}{ends[0]} | {delta}{ends[1]} | {_number(row['plcc'])}"
            f" | {_number(row['emd'])} |"
        )
    return "\n".join(lines)


def dense_table(board: Leaderboard) -> str:
    """Return rows of masks or boxes as Markdown: what their task type measures, the recovered gap and PSNR."""
    kind = task_type_of(board, board.rows[0].task)
    rows = drawn(board, kind.ranks[0])
    names = {"recovered_gap", "psnr", *(each.name for each in kind.metrics)}
    wanted = [
        column
        for column in columns(kind.name)
        if column.filled(rows) and (column.name in {"rank", "method", f"{kind.ranks[0]}_ci"} or column.name in names)
    ]
    lines = [
        "| " + " | ".join(" ".join(column.header.split()) for column in wanted) + " |",
        "|" + "|".join(":--" if column.justify == "left" else "--:" for column in wanted) + "|",
        *("| " + " | ".join(markdown_cell(column.show(row)) for column in wanted) + " |" for row in rows),
    ]
    said = (
        f"Behind every method stands {board.rows[0].classifier}. Recovered gap: 0 is bilinear, 1 the original."
        f" {TIE_MARK}: tied with the best. Brackets: 95 % intervals."
    )
    return "\n".join([*lines, "", said])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _psnr(row: Row) -> str:
    return "–" if row["psnr"] is None else "inf" if row["psnr"] == float("inf") else f"{row['psnr']:.2f}"


def _best(row: Row) -> str:
    return "–" if row["accuracy_best"] is None else f"{row['accuracy_best']:.3f} ({best_sizes(row)})"


def _gap(row: Row, name: str = "recovered_gap") -> str:
    if row[name] is None:
        return "–"
    ends = row.ci.get(name)
    return f"{row[name]:.2f}" + (
        f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends and row.method not in {"original", "bilinear"} else ""
    )


if __name__ == "__main__":
    main()
