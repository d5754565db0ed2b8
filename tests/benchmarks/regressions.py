"""Is a commit slower than the one before it? Both are measured on the same machine, in turn.

    python tests/benchmarks/regressions.py                            the working tree against its base commit
    python tests/benchmarks/regressions.py --base HEAD --head HEAD    must find nothing, whatever the machine does

Each commit is laid out in a folder of its own, and a fresh process of pytest-benchmark runs its benchmarks marked
`gate` there: base and head, then head and base, and so on. A benchmark is slower if head over base lies above the
threshold twice, the second time in processes that run the doubtful ones alone.

Exit codes: 0 nothing is slower, or there is nothing to compare with; 1 something is; 2 the call was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

BENCHMARKS = "tests/benchmarks/test_stages.py"
ROUNDS = 5
THRESHOLD = 1.25  # about halfway, as ratios go, between nothing and the slowdown of 1.5 that the gate is for
SECONDS = "0.3"  # that a benchmark runs in one process

Run = Callable[[str, Sequence[str]], "Times"]


class CallError(Exception):
    """The call was wrong."""


class NothingToCompareError(Exception):
    """There is no base."""


@dataclass(frozen=True)
class Times:
    """What one process found: the shortest time of a call by benchmark, seconds, and the benchmarks that failed."""

    seconds: Mapping[str, float]
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """A benchmark and what is known of it; without a ratio there is nothing to compare."""

    name: str
    verdict: str
    ratio: float | None = None
    base: float | None = None
    head: float | None = None


def compare(run: Run, *, rounds: int = ROUNDS) -> list[Line]:
    """Measure base and head in turn, and what seems slower once more.

    Args:
        run: Takes "base" or "head" and names of benchmarks (all of them where there are none), and runs a process.
        rounds: How often each side runs.
    """
    bases, heads = _measure(run, (), rounds)
    lines = _judge(bases, heads)
    doubtful = [name for name, line in lines.items() if line.verdict == "slower"]
    if doubtful:
        lines |= _judge(*_measure(run, doubtful, rounds))
    failed = {name for times in heads for name in times.failed}
    only = {
        side: {name for each in found for name in each.seconds} for side, found in (("base", bases), ("head", heads))
    }
    for name in (only["base"] | only["head"] | failed) - set(lines):
        where = "fails at head" if name in failed else f"only at {'base' if name in only['base'] else 'head'}"
        lines[name] = Line(name, where)
    return [lines[name] for name in sorted(lines)]


def ratio(bases: Sequence[float], heads: Sequence[float]) -> float:
    """Return head over base.

    Other work on a machine only makes a time longer, so the shortest times are compared. A machine that was faster
    during a single process would mislead them; the median over neighbours in time is not misled. The lower of the two
    counts: noise must deceive both to pass for a slowdown.
    """
    neighbours = statistics.median(head / base for base, head in zip(bases, heads, strict=True))
    return min(min(heads) / min(bases), neighbours)


def _measure(run: Run, names: Sequence[str], rounds: int) -> tuple[list[Times], list[Times]]:
    found: dict[str, list[Times]] = {"base": [], "head": []}
    for number in range(rounds):
        for side in ("base", "head") if number % 2 == 0 else ("head", "base"):
            found[side].append(run(side, names))
    return found["base"], found["head"]


def _judge(bases: Sequence[Times], heads: Sequence[Times]) -> dict[str, Line]:
    lines = {}
    for name in set.intersection(*(set(times.seconds) for times in (*bases, *heads))):
        base, head = ([times.seconds[name] for times in side] for side in (bases, heads))
        value = ratio(base, head)
        verdict = "slower" if value > THRESHOLD else "faster" if value < 1 / THRESHOLD else "same"
        lines[name] = Line(name, verdict, value, min(base), min(head))
    return lines


def broken(lines: Sequence[Line]) -> list[Line]:
    """Return the lines that make the gate fail."""
    return [line for line in lines if line.verdict in ("slower", "fails at head")]


def markdown(lines: Sequence[Line], *, base: str, head: str, rounds: int) -> str:
    """Return the table and what must be known to read it."""
    body = [
        (
            line.name.rpartition("::")[2].removeprefix("test_"),
            *("" if value is None else f"{1e3 * value:.3g} ms" for value in (line.base, line.head)),
            "" if line.ratio is None else f"{line.ratio:.2f}",
            line.verdict,
        )
        for line in lines
    ]
    align = ("left", "right", "right", "right", "left")
    headers = ("benchmark", "base", "head", "head / base", "")
    table = tabulate(body, headers=headers, tablefmt="github", colalign=align, disable_numparse=True) if body else ""
    verdict = f"**{len(broken(lines))} slower or failing**" if broken(lines) else "Nothing is slower"
    return (
        f"### Timing: {head} against {base}\n\n{verdict}.\n\n{table}\n\n"
        f"CPU time, one thread, {rounds} processes of each side in turn; slower is above {THRESHOLD:g}, twice.\n"
    )


# --- commits and processes -----------------------------------------------------------------------------------------


def git(root: Path, *words: str, **variables: str) -> str | None:
    """Return what git prints, or None where it fails."""
    command, environment = ["git", "-C", str(root), *words], os.environ | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def base_of(root: Path, asked: str | None) -> str:
    """Return the commit to compare with: the one asked for, where this branch left main, or on main the one before.

    Raises:
        CallError: If the one asked for does not exist.
        NothingToCompareError: If there is none, as in a shallow clone.
    """
    head = git(root, "rev-parse", "--verify", "HEAD^{commit}")
    if head is None:
        raise NothingToCompareError("this is no git checkout with a commit")
    if asked and asked.strip("0"):  # a push that makes a branch names its past as zeros
        commit = git(root, "rev-parse", "--verify", f"{asked}^{{commit}}")
        if commit is None and re.fullmatch(r"[0-9a-f]{40}", asked):  # named by a machine, perhaps before a forced push
            raise NothingToCompareError(f"the base {asked[:9]} is not in this clone")
        if commit is None:
            raise CallError(f"there is no commit {asked} here")
        return commit
    left = (git(root, "merge-base", "HEAD", branch) for branch in ("origin/main", "main"))
    commit = next((commit for commit in left if commit not in (None, head)), None)
    commit = commit or git(root, "rev-parse", "--verify", "HEAD~1^{commit}")
    if commit is None:
        raise NothingToCompareError("there is no commit before this one here: it is the first, or the clone is shallow")
    return commit


def lay_out(root: Path, commit: str | None, target: Path) -> None:
    """Put a commit, or the working tree where it is None, into a folder from which Python can import it."""
    target.mkdir()
    if commit is None:  # what is there, untracked files included, by way of an index of its own
        index = str(target.with_suffix(".index"))
        git(root, "add", "--all", GIT_INDEX_FILE=index)
        commit = git(root, "write-tree", GIT_INDEX_FILE=index)
    archive = subprocess.run(["git", "-C", str(root), "archive", str(commit)], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(target)], input=archive, check=True)
    for folder in ("baselines", "methods"):  # where setup.py maps them to
        (target / "srbench" / folder).symlink_to(target / folder, target_is_directory=True)


def run_process(tree: Path, names: Sequence[str], *, timer: str) -> Times:
    """Run a commit's own benchmarks in a fresh process: one thread, no plugins but those needed.

    Raises:
        CallError: If pytest itself fails.
    """
    scratch = tree.with_suffix(".scratch")
    scratch.mkdir(exist_ok=True)
    report = scratch / "report.json"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", *(names or [BENCHMARKS]), "-m", "gate", "-q", "-rfE"]
    command += ["--override-ini", "addopts=", "--benchmark-json", str(report), "--benchmark-timer", timer]
    command += ["--benchmark-max-time", SECONDS, "--benchmark-min-rounds", "5", "--benchmark-warmup", "on"]
    for plugin in ("pytest_timeout", "pytest_benchmark.plugin", "no:cacheprovider"):
        command += ["-p", plugin]
    # Options of a pytest above this one are not meant; told that it is xdist's, pytest-benchmark would measure nothing.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {name: str(scratch) for name in ("SRBENCH_CACHE", "SRBENCH_WEIGHTS")}
    environment |= {"PYTHONPATH": str(tree), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 5) and "file or directory not found" not in done.stdout + done.stderr:
        raise CallError(f"pytest ends with {done.returncode} in {tree.name}:\n{(done.stdout + done.stderr)[-3000:]}")
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, flags=re.M)
    text = report.read_text(encoding="utf-8") if report.exists() else ""
    timed = json.loads(text)["benchmarks"] if text else []
    return Times({each["fullname"]: each["stats"]["min"] for each in timed if not each.get("has_error")}, tuple(failed))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print the table, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="commit to compare with; where this branch left main, or the one before")
    parser.add_argument("--head", help="commit to judge; the working tree if left out")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="processes of each side")
    parser.add_argument("--timer", default="time.process_time", help="the clock, as module.function")
    parser.add_argument("--markdown", type=Path, help="file that the table is appended to")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2], help="the checkout")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    try:
        if options.rounds < 3:
            raise CallError("--rounds takes at least 3: of two processes one may be disturbed")
        base = base_of(root, options.base)
        head = base_of(root, options.head) if options.head else None
        with tempfile.TemporaryDirectory(prefix="srbench-timing-") as folder:
            trees = {"base": Path(folder) / "base", "head": Path(folder) / "head"}
            lay_out(root, base, trees["base"])
            lay_out(root, head, trees["head"])
            lines = compare(
                lambda side, names: run_process(trees[side], names, timer=options.timer), rounds=options.rounds
            )
    except NothingToCompareError as reason:
        print(f"timing: skipped, {reason}")
        return 0
    except CallError as error:
        print(f"timing: {error}", file=sys.stderr)
        return 2
    text = markdown(lines, base=base[:9], head=head[:9] if head else "the working tree", rounds=options.rounds)
    print(text, end="")
    if options.markdown is not None:
        with options.markdown.open("a", encoding="utf-8") as stream:
            stream.write(text)
    return 1 if broken(lines) else 0


if __name__ == "__main__":
    sys.exit(main())
