"""Turn an `srbench eval --out` folder into a committed result: tables, how they were made, a plot, README's table.

    python results/refresh.py demo out/demo --command 'srbench eval --all'
    python results/refresh.py real-photos out/real --command '...' --no-readme

Records and samples stay outside the repository; what is committed is small text, and a plot of the intervals.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

from srbench.compare import load_board
from srbench.leaderboard import Leaderboard, Row
from srbench.store import find_records
from srbench.tables import row_name

ROOT = Path(__file__).resolve().parent.parent
FILES = ("leaderboard.json", "leaderboard.csv", "leaderboard.md", "per_class.csv")


def main() -> None:
    """Refresh one folder of results/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="folder below results/")
    parser.add_argument("out", type=Path, help="folder that srbench eval --out wrote")
    parser.add_argument("--command", required=True, help="the command that made it")
    parser.add_argument("--no-readme", action="store_true", help="leave README.md alone")
    arguments = parser.parse_args()
    target = ROOT / "results" / arguments.name
    target.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copyfile(arguments.out / file, target / file)
    board = load_board(arguments.out)
    provenance = made_by(arguments.out, arguments.command)
    (target / "made.json").write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")
    plot(board, target / "accuracy.svg", provenance)
    if not arguments.no_readme:
        fill_readme(board, arguments.name, provenance)


def made_by(out: Path, command: str) -> dict[str, object]:
    """Return command, commits, devices and days of the records of a folder."""
    records = [cell.record for cell in find_records([out])[0]]
    return {
        "command": command,
        "commits": sorted({f"{each.code.commit}{' (changed)' if each.code.dirty else ''}" for each in records}),
        "devices": sorted({f"{each.environment.device}, {each.environment.threads} threads" for each in records}),
        "torch": sorted({each.environment.torch for each in records}),
        "dates": sorted({each.created[:10] for each in records}),
    }


def plot(board: Leaderboard, path: Path, provenance: dict[str, object]) -> None:
    """Draw accuracy with its interval for every row, a panel a classifier."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "srbench"  # the same figures give the same file
    classifiers = list(dict.fromkeys(row.classifier for row in board.rows))
    most = max(sum(row.classifier == each for row in drawn(board)) for each in classifiers)
    figure, axes = plt.subplots(
        1, len(classifiers), figsize=(5.6 * len(classifiers), 0.3 * most + 1.3), squeeze=False, layout="constrained"
    )
    for axis, classifier in zip(axes[0], classifiers, strict=True):
        rows = [row for row in drawn(board) if row.classifier == classifier][::-1]
        for place, row in enumerate(rows):
            low, high = (100 * end for end in row.ci["accuracy"])
            colour = "#444444" if row.kind in {"oracle", "control"} else "#b5502a" if row.weights else "#2a6fb5"
            axis.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
            marker = "D" if row.track == "adapted" else "o"
            axis.plot(100 * row.accuracy, place, marker, color=colour, markersize=6)
        axis.set_yticks(range(len(rows)), [row_name(row) for row in rows])
        for method, style in (("original", ":"), ("bilinear", "--")):
            value = next(row.accuracy for row in rows if row.method == method)
            axis.axvline(100 * value, linestyle=style, color="#999999", linewidth=1, zorder=0)
        axis.set_title(str(classifier), fontsize=11)
        axis.set_xlabel("accuracy, % (95 % interval)")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#eeeeee")
        axis.set_axisbelow(True)
    dates = ", ".join(map(str, provenance["dates"]))  # type: ignore[call-overload]
    figure.suptitle(
        "dotted: original, dashed: bilinear; blue: interpolation, red: trained, grey: reference and controls,"
        f" diamond: classifier adapted too ({dates})",
        fontsize=8,
        color="#666666",
    )
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def drawn(board: Leaderboard) -> list[Row]:
    """Return the rows that have an accuracy."""
    return [row for row in board.rows if row.status == "ok" and row.accuracy is not None and "accuracy" in row.ci]


def fill_readme(board: Leaderboard, name: str, provenance: dict[str, object]) -> None:
    """Put the table and the picture between README's markers."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    picture = f"![accuracy of every method with its 95 % interval](results/{name}/accuracy.svg)"
    made = (
        f"Made by `{provenance['command']}` at commit {', '.join(each[:9] for each in provenance['commits'])}"  # type: ignore[attr-defined]
        f" on {', '.join(provenance['devices'])}, {', '.join(provenance['dates'])};"  # type: ignore[arg-type]
        f" every column is in [results/{name}](results/{name}/leaderboard.md). † control, ‡ classifier trained too."
    )
    text = between(text, f"table:{name}", f"{short_table(board)}\n\n{made}")
    text = between(text, f"picture:{name}", picture)
    readme.write_text(text, encoding="utf-8")


def between(text: str, mark: str, content: str) -> str:
    """Replace what stands between `<!-- mark -->` and `<!-- /... -->`."""
    kind = mark.split(":")[0]
    pattern = re.compile(rf"(<!-- {re.escape(mark)} -->\n).*?(<!-- /{kind} -->)", re.DOTALL)
    replaced, count = pattern.subn(lambda found: f"{found[1]}{content}\n{found[2]}", text)
    if count != 1:
        raise SystemExit(f"README.md needs exactly one pair of markers {mark}, found {count}")
    return replaced


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
        psnr = "inf" if first.psnr == float("inf") else f"{first.psnr:.2f}" if first.psnr is not None else "–"
        cells = [name, psnr]
        for classifier in classifiers:
            row = rows.get(classifier)
            cells += (
                ["–"] * 4
                if row is None
                else [_number(row.accuracy), _number(row.cross_entropy), _gap(row), f"{row.total_time_s:.1f}"]
            )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _gap(row: Row) -> str:
    if row.recovered_gap is None:
        return "–"
    ends = row.ci.get("recovered_gap")
    return f"{row.recovered_gap:.2f}" + (
        f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends and row.method not in {"original", "bilinear"} else ""
    )


if __name__ == "__main__":
    main()
