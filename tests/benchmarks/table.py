"""pytest-benchmark's JSON as a Markdown table.

python tests/benchmarks/table.py out/bench/benchmarks.json > out/bench/benchmarks.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

HEADERS = ("benchmark", "median", "p25 to p75", "minimum", "rounds", "ratio")


def main() -> None:
    """Print the table of one file."""
    print(markdown(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), end="")


def markdown(content: dict[str, Any]) -> str:
    """Return the table, the longest benchmarks last, and the machine below it."""
    found = sorted(content["benchmarks"], key=lambda each: each["stats"]["median"])
    body = [
        (
            each["name"].removeprefix("test_"),
            seconds(each["stats"]["median"]),
            f"{seconds(each['stats']['q1'])} to {seconds(each['stats']['q3'])}",
            seconds(each["stats"]["min"]),
            each["stats"]["rounds"],
            _ratio(each.get("extra_info", {})),
        )
        for each in found
    ]
    right = ("left", "right", "right", "right", "right", "left")
    machine, commit = content["machine_info"], content.get("commit_info", {})
    processor = machine.get("cpu", {}).get("brand_raw") or machine.get("processor") or machine.get("machine")
    changes = ", with changes" if commit.get("dirty") else ""
    threads = {1: "one thread", 2: "two threads"}.get(machine["threads"], f"{machine['threads']} threads")
    return (
        f"{tabulate(body, headers=HEADERS, tablefmt='github', colalign=right, disable_numparse=True)}\n\n"
        f"{processor}, {threads}, Python {machine.get('python_version')};"
        f" commit {str(commit.get('id'))[:9]}{changes}; {content['datetime'][:19]}\n"
    )


def seconds(value: float) -> str:
    """Return a duration with three significant digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def _ratio(extra: dict[str, Any]) -> str:
    if "ratio" not in extra:
        return ""
    low, high = min(extra["ratios"]), max(extra["ratios"])
    text = f"{extra['ratio']:.3f} ({low:.3f} to {high:.3f})"
    if "cpu_ratio" in extra:
        text += f", in CPU time {extra['cpu_ratio']:.3f}"
    if "strict_ratio" in extra:
        text += f"; to the loop that shares HR {extra['strict_ratio']:.3f}, in CPU time {extra['strict_cpu_ratio']:.3f}"
    return f"{text}: {extra['ratio_of']}"


if __name__ == "__main__":
    main()
