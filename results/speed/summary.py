"""Write what `results/speed/measure.sh` found as tables in Markdown.

python results/speed/summary.py out/speed > out/speed/summary.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from srbench.files.atomic import write_text
from srbench.files.strict import read_json
from srbench.records.cells import StoredCell, find_records

BENCHES = ("fp32", "bf16", "bf16-compiled")
PRECISIONS = ("fp32", "bf16")


def main() -> None:
    """Write the tables of a folder."""
    folder = Path(sys.argv[1])
    benches = {name: read_json(path) for name in BENCHES if (path := folder / f"bench-{name}.json").is_file()}
    cells = {precision: _cells(folder / f"eval-{precision}") for precision in PRECISIONS}
    environment, code = (benches["fp32"][name] for name in ("environment", "code"))
    day = cells["fp32"]["esrgan"].record.created[:10]
    parts = [
        f"{environment['device']}, {environment['threads']} threads, torch {environment['torch']}, Python"
        f" {environment['python']}; commit {code['commit'][:9]}{' with changes' if code['dirty'] else ''}; {day}",
        _alone(benches),
        _evaluated(cells, benches),
        _agreement(cells),
        _training(folder),
    ]
    write_text(folder / "summary.md", "\n\n".join(parts) + "\n")


def _cells(out: Path) -> dict[str, StoredCell]:
    return {cell.record.cell.method: cell for cell in find_records([out])[0]}


def _table(headers: tuple[str, ...], lines: list[tuple[Any, ...]]) -> str:
    align = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(lines, headers=headers, tablefmt="github", colalign=align, disable_numparse=True)


def _alone(benches: dict[str, Any]) -> str:
    """The full network and the classifier, apart from any other work."""
    lines = []
    for name, bench in benches.items():
        product = bench["matrix_product"]["flops_per_s"]
        for row in bench["rows"]:
            if row["status"] != "ok":
                lines.append((name, row["stage"], row["batch"], "", "", "", row["reason"]))
                continue
            share = "" if row["share"] is None else f"{row['share']:.0%}"
            flops = "" if row["flops"] is None else f"{row['flops'] / 1e9:.1f}"
            rate = row["images_per_s"]["median"]
            lines.append((name, row["stage"], row["batch"], f"{rate:.3g}", flops, share, f"{product / 1e12:.3g}"))
    return _table(("precision", "stage", "batch", "images/s", "GFLOP/image", "share", "product, TFLOP/s"), lines)


def _evaluated(cells: dict[str, dict[str, StoredCell]], benches: dict[str, Any]) -> str:
    """What the pass of an evaluation reaches; its seconds are those of restoring and classifying."""
    lines = []
    for precision, found in cells.items():
        record = found["esrgan"].record
        timing, n = record.timing, record.dataset.n
        classifying = next(row["macs"] for row in benches["fp32"]["rows"] if row["stage"] == "classify")
        product = benches.get(precision, {}).get("matrix_product", {}).get("flops_per_s")
        rate = n / timing.pass_s
        flops = 2 * (record.method.macs + classifying)
        share = f"{rate * flops / product:.0%}" if product else ""
        whole = n / timing.total_time_s
        lines.append((precision, n, f"{flops / 1e9:.1f}", f"{rate:.3g}", share, f"{whole:.3g}"))
    return _table(
        ("evaluation in", "photographs", "GFLOP/image", "images/s in the pass", "share", "with decoding"), lines
    )


def _agreement(cells: dict[str, dict[str, StoredCell]]) -> str:
    """What bf16 changes."""
    lines = []
    for method in ("bicubic", "esrgan"):
        whole, half = (cells[precision][method].samples().set_index("sample_id") for precision in PRECISIONS)
        half = half.loc[whole.index]
        psnr = float((half["psnr"] - whole["psnr"]).mean())
        most = float(np.abs(half["psnr"] - whole["psnr"]).max())
        other = int((half["pred"] != whole["pred"]).sum())
        lines.append((method, f"{psnr:+.4f}", f"{most:.4f}", f"{other} of {len(whole)}"))
    return _table(("bf16 against fp32", "PSNR dB, mean", "largest", "other predictions"), lines)


def _training(folder: Path) -> str:
    curves = pd.read_csv(folder / "training" / "curves.csv").dropna(subset="seconds")
    spent = curves["seconds"].sum()
    waiting = float((curves["wait_share"] * curves["seconds"]).sum() / spent)
    images = float((curves["images_per_s"] * curves["seconds"]).sum() / spent)
    return _table(
        ("training", "images/s", "waiting for data"), [("esrgan, pixels alone", f"{images:.3g}", f"{waiting:.1%}")]
    )


if __name__ == "__main__":
    main()
