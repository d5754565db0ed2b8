"""Is a commit slower than the one before it? Both are measured on the same machine, in turn, and noise sets the bound.

    python tests/benchmarks/regressions.py                        the working tree against its base commit
    python tests/benchmarks/regressions.py --base HEAD --head HEAD    what the machine's noise alone looks like

The benchmarks marked `gate` run in fresh processes, three at a time: base, head, and base again. They take turns in
slices of some milliseconds of CPU time, so that a machine that changes its speed changes it for all three. Head over
base is the median over the slices, and so is base over base, which tells how much noise there is. A benchmark is slower
if the median of its ratios over several rounds of fresh processes lies above a bound that this noise justifies, and
does so again when it is measured a second time.

Exit codes: 0 nothing is slower, or there is nothing to compare with; 1 something is; 2 the call was wrong.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tabulate import tabulate

FOLDER = "tests/benchmarks"
BENCHMARKS = "tests/benchmarks/test_stages.py"
ROUNDS = 7
# A virtual machine was seen to halve its speed for a third of a second at a time while it was idle, so a slice is much
# shorter than that, and there are many.
SLICE_S, SLICES, LEAST_SLICES = 0.02, 15, 3
BENCHMARK_S = 0.3  # of one benchmark in one process and round, unless it is longer than that itself
# Smaller differences are not told apart: code that did not change moves in memory and differs by a few per cent.
LEAST_BOUND = 1.10
# Of the standard error of a median of ratios. Noise is itself estimated from few rounds and has heavy tails, and some
# twenty benchmarks are judged at once: with 4.5 no base is slower than itself in a thousand simulated runs (tests).
ERRORS = 4.5
# A bound above this would not notice the slowdown of 1.5 that the gate is for.
USEFUL_BOUND = 1.4

Verdict = Literal["same", "faster", "slower", "too noisy", "only at base", "only at head", "fails at head"]
Runner = Callable[[Sequence[str]], "Trio"]


class CallError(Exception):
    """The call was wrong."""


class NothingToCompareError(Exception):
    """There is no base."""


@dataclass(frozen=True)
class Process:
    """What one process found.

    Attributes:
        seconds: What a call of each benchmark took, slice by slice.
        failed: Benchmarks that failed.
    """

    seconds: Mapping[str, Sequence[float]]
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trio:
    """What three processes found that took turns: base, head, base."""

    before: Process
    head: Process
    after: Process

    @property
    def both(self) -> set[str]:
        """Benchmarks that all three have."""
        return set(self.before.seconds) & set(self.head.seconds) & set(self.after.seconds)


@dataclass(frozen=True)
class Round:
    """A head between two bases: seconds of each slice."""

    before: Sequence[float]
    head: Sequence[float]
    after: Sequence[float]

    @property
    def ratio(self) -> float:
        """Head over base, logarithm."""
        return statistics.median(
            math.log(head) - (math.log(before) + math.log(after)) / 2
            for before, head, after in zip(self.before, self.head, self.after, strict=True)
        )

    @property
    def noise(self) -> float:
        """Base over base, logarithm."""
        return statistics.median(
            math.log(after / before) for before, after in zip(self.before, self.after, strict=True)
        )


@dataclass(frozen=True)
class Line:
    """What is known of a benchmark.

    Attributes:
        name: Its name.
        verdict: What follows.
        ratio: Median of head over base, or None where there is nothing to compare.
        bound: What the ratio must not exceed.
        rounds: The rounds that were judged.
        again: It was measured a second time, and those rounds are the ones judged.
    """

    name: str
    verdict: Verdict
    ratio: float | None = None
    bound: float | None = None
    rounds: tuple[Round, ...] = field(default=(), repr=False)
    again: bool = False


def spread(rounds: Sequence[Round]) -> float:
    """Return the standard deviation of one time's logarithm, estimated from base against base without its outliers."""
    # 0.6745 is the median of a normal variable's absolute value; a difference of two times has twice the variance
    return statistics.median(abs(each.noise) for each in rounds) / 0.6745 / math.sqrt(2)


def scatter(rounds: Sequence[Round]) -> float:
    """Return the same deviation as the ratios of head over base show it: what is slower is so in every round."""
    middle = statistics.median(each.ratio for each in rounds)
    return statistics.median(abs(each.ratio - middle) for each in rounds) / 0.6745 / math.sqrt(1.5)


def common_spread(by_name: Mapping[str, Sequence[Round]]) -> float:
    """Return the deviation that the benchmarks have in common: the median of their root mean squares.

    A machine that changes its speed changes all times alike, and in a handful of rounds the outlier-proof estimate of
    each may then seem small by the same luck; a root mean square hardly can. Its outliers are some benchmarks' alone,
    and the median over benchmarks leaves them out.
    """
    squares = [statistics.fmean(each.noise**2 for each in rounds) for rounds in by_name.values()]
    return math.sqrt(statistics.median(squares) / 2) if squares else 0.0


def bound_of(deviation: float, rounds: int) -> float:
    """Return the ratio that noise alone does not exceed.

    Args:
        deviation: Standard deviation of one time's logarithm.
        rounds: Number of ratios whose median is judged.
    """
    # A head between two bases has 1 + 1/4 + 1/4 of the variance; a median has pi / 2 of a mean's.
    error = deviation * math.sqrt(1.5) * math.sqrt(math.pi / 2 / rounds)
    return max(LEAST_BOUND, math.exp(ERRORS * error))


def judge(
    by_name: Mapping[str, Sequence[Round]], *, common: float, earlier: Mapping[str, Sequence[Round]] | None = None
) -> dict[str, Line]:
    """Compare every benchmark that both sides have.

    A benchmark's own noise is known from a handful of rounds and may seem small by luck, so the noise that all of them
    have in common is the least that is assumed, and the scatter of its ratios.

    Args:
        by_name: Rounds of each benchmark.
        common: Deviation that is assumed at least.
        earlier: Further rounds that tell about noise alone.
    """
    lines = {}
    for name, rounds in by_name.items():
        own = spread([*rounds, *(earlier or {}).get(name, ())])
        bound = bound_of(max(own, common, scatter(rounds)), len(rounds))
        ratio = math.exp(statistics.median(each.ratio for each in rounds))
        # Where the whole machine is restless, the tails of its noise lie far beyond what few rounds show.
        restless = bound_of(common, len(rounds)) > USEFUL_BOUND
        verdict: Verdict = "slower" if ratio > (bound**2 if restless else bound) else "same"
        if verdict == "same" and bound > USEFUL_BOUND:
            verdict = "too noisy"
        elif ratio < 1 / bound:
            verdict = "faster"
        lines[name] = Line(name, verdict, ratio, bound, tuple(rounds))
    return lines


def compare(run: Runner, *, rounds: int = ROUNDS, say: Callable[[str], None] = lambda _: None) -> list[Line]:
    """Measure and judge; what seems slower, or is too noisy to tell, is measured a second time.

    Args:
        run: Runs the benchmarks in three fresh processes, all of them where no names are given.
        rounds: How often.
        say: Takes a line about what is going on.
    """
    trios = _repeat(run, (), rounds, say)
    measured = _rounds(trios)
    common = common_spread(measured)
    lines = judge(measured, common=common)
    doubtful = sorted(name for name, line in lines.items() if line.verdict in ("slower", "too noisy"))
    if doubtful:
        say(f"measuring {len(doubtful)} again: {', '.join(map(short, doubtful))}")
        again = _rounds(_repeat(run, doubtful, rounds, say))
        # The machine may be calmer now, but few benchmarks take part, and few seem calm by luck.
        calmer = min(common, max(common_spread(again), common / 2))
        found = judge(again, common=calmer, earlier=measured)
        whole = judge({name: [*measured[name], *more] for name, more in again.items()}, common=common)
        for name, line in found.items():
            by_chance = line.verdict == "slower" and whole[name].verdict != "slower"
            verdict: Verdict = "same" if by_chance else line.verdict
            lines[name] = Line(name, verdict, line.ratio, line.bound, line.rounds, again=True)
    failed = {name for trio in trios for name in trio.head.failed}
    at_base = {name for trio in trios for name in trio.before.seconds} - set(lines) - failed
    at_head = {name for trio in trios for name in trio.head.seconds} - set(lines) - failed
    singles = [(failed, "fails at head"), (at_base - at_head, "only at base"), (at_head - at_base, "only at head")]
    every = [*lines.values(), *(Line(name, verdict) for names, verdict in singles for name in names)]  # type: ignore[arg-type]
    return sorted(every, key=lambda line: line.name)


def _repeat(run: Runner, names: Sequence[str], rounds: int, say: Callable[[str], None]) -> list[Trio]:
    trios = []
    for number in range(rounds):
        began = time.monotonic()
        trios.append(run(names))
        say(f"round {number + 1} of {rounds}: {time.monotonic() - began:.0f} s")
    return trios


def _rounds(trios: Sequence[Trio]) -> dict[str, list[Round]]:
    """Return the rounds of every benchmark that all processes have."""
    return {
        name: [Round(trio.before.seconds[name], trio.head.seconds[name], trio.after.seconds[name]) for trio in trios]
        for name in sorted(set.intersection(*(trio.both for trio in trios)))
    }


def broken(lines: Sequence[Line]) -> list[Line]:
    """Return the lines that make the gate fail."""
    return [line for line in lines if line.verdict in ("slower", "fails at head")]


def markdown(lines: Sequence[Line], *, base: str, head: str, rounds: int) -> str:
    """Return the table and what must be known to read it."""
    body = []
    for line in lines:
        if line.ratio is None or line.bound is None:
            body.append((short(line.name), "", "", "", "", "", line.verdict))
            continue
        noise = sorted(math.exp(each.noise) for each in line.rounds)
        body.append(
            (
                short(line.name),
                seconds(statistics.median(value for each in line.rounds for value in each.before)),
                seconds(statistics.median(value for each in line.rounds for value in each.head)),
                f"{line.ratio:.3f}",
                f"{line.bound:.3f}",
                f"{noise[0]:.2f} to {noise[-1]:.2f}",
                f"{line.verdict}, measured again" if line.again else line.verdict,
            )
        )
    headers = ("benchmark", "base", "head", "head / base", "bound", "base / base", "")
    align = ("left", "right", "right", "right", "right", "right", "left")
    table = tabulate(body, headers=headers, tablefmt="github", colalign=align, disable_numparse=True) if body else ""
    found = broken(lines)
    verdict = f"**{len(found)} slower or failing**" if found else "Nothing is slower"
    return (
        f"### Timing: {head} against {base}\n\n{verdict}.\n\n{table}\n\n"
        f"CPU time, one thread; medians over {rounds} rounds of fresh processes that take turns: base, head, base. The"
        f" bound is {ERRORS:g} standard errors of the noise of base against base, at least {LEAST_BOUND:g}.\n"
    )


def short(name: str) -> str:
    """Return a benchmark's name without its file."""
    return name.rpartition("::")[2].removeprefix("test_")


def seconds(value: float) -> str:
    """Return a duration with three significant digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


# --- trees and processes -------------------------------------------------------------------------------------------


def git(root: Path, *words: str) -> str | None:
    """Return what git prints, or None where it fails."""
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
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
        found = git(root, "rev-parse", "--verify", f"{asked}^{{commit}}")
        if found is None and re.fullmatch(r"[0-9a-f]{40}", asked):  # named by a machine, perhaps before a forced push
            raise NothingToCompareError(f"the base {asked[:9]} is not in this clone")
        if found is None:
            raise CallError(f"there is no commit {asked} here")
        return found
    for branch in ("origin/main", "main"):
        found = git(root, "merge-base", "HEAD", branch)
        if found is not None and found != head:
            return found
    found = git(root, "rev-parse", "--verify", "HEAD~1^{commit}")
    if found is None:
        raise NothingToCompareError("there is no commit before this one here: it is the first, or the clone is shallow")
    return found


def lay_out(root: Path, commit: str | None, target: Path) -> None:
    """Put a commit, or the working tree where it is None, into a folder from which Python can import it."""
    target.mkdir(parents=True)
    if commit is not None:
        archive = subprocess.run(["git", "-C", str(root), "archive", commit], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", str(target)], input=archive, check=True)
    else:
        listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard") or ""
        for name in filter(None, listed.split("\0")):
            if (root / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, target / name)
    for module, folder in _homes(target / "setup.py").items():
        link = target.joinpath(*module.split("."))
        if not link.exists():
            link.symlink_to(target / folder, target_is_directory=True)


def _homes(setup: Path) -> dict[str, str]:
    """Return where setup.py says that packages lie which are not below their parent."""
    if not setup.is_file():
        return {}
    for node in ast.parse(setup.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "HOMES":
            return dict(ast.literal_eval(node.value))
    return {}


class Processes:
    """Runs the benchmarks of both trees in fresh processes that take turns."""

    def __init__(self, trees: Mapping[str, Path], scratch: Path, *, timer: str) -> None:
        """Refuse trees that Python would not import.

        Args:
            trees: Folder of "base" and of "head".
            scratch: Where the processes may write.
            timer: The clock, as module.function.

        Raises:
            CallError: If something else is imported in a tree's place.
        """
        self._trees, self._scratch, self._timer = trees, scratch, timer
        scratch.mkdir()
        shutil.copy2(Path(__file__).with_name("turns.py"), scratch)
        for tree in trees.values():
            self._check_imports(tree)

    def __call__(self, names: Sequence[str]) -> Trio:
        """Run the benchmarks that are marked `gate`, or those named, at base, head and base.

        Raises:
            CallError: If pytest itself fails.
        """
        sides = [
            _Pytest(side, self._trees[side], self._scratch / str(place), self._words(names), self._environment(side))
            for place, side in enumerate(("base", "head", "base"))
        ]
        try:
            take_turns(sides)
            return Trio(*(side.result() for side in sides))
        finally:
            for side in sides:
                side.stop()

    def _words(self, names: Sequence[str]) -> list[str]:
        words = [sys.executable, "-m", "pytest", *(names or [BENCHMARKS]), "-m", "gate", "-q"]
        words += ["--override-ini", "addopts="]
        for plugin in ("pytest_timeout", "turns", "no:cacheprovider"):
            words += ["-p", plugin]
        return words

    def _environment(self, side: str) -> dict[str, str]:
        # Nothing but the code differs: one thread, the same order of sets, the tree's own modules first.
        folders = {name: str(self._scratch / name.lower()) for name in ("SRBENCH_CACHE", "SRBENCH_WEIGHTS")}
        path = f"{self._trees[side]}{os.pathsep}{self._scratch}"
        fixed = {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        # Plugins that are not needed are half of a short process's time, and pytest-benchmark gives way to the turns.
        fixed |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "SRBENCH_TURNS_TIMER": self._timer}
        return dict(os.environ, **folders, **fixed)

    def _check_imports(self, tree: Path) -> None:
        """An editable install elsewhere must not stand in for what a tree lacks: it would be compared with itself."""
        code = (
            "import importlib.util as u; "
            "print(*(u.find_spec(name).origin for name in ('srbench', 'srbench.baselines') if u.find_spec(name)))"
        )
        environment = dict(os.environ, PYTHONPATH=str(tree))
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tree, env=environment, capture_output=True, text=True, check=False
        )
        strangers = [path for path in done.stdout.split() if not Path(path).is_relative_to(tree)]
        if done.returncode or strangers:
            raise CallError(f"srbench of {tree} is not what Python imports there: {done.stdout}{done.stderr[-1000:]}")


class _Pytest:
    """A process of pytest that waits for its turn; see turns.py for what it says."""

    def __init__(
        self, side: str, tree: Path, scratch: Path, words: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self._side, self._log = side, scratch.with_suffix(".log")
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                words,
                cwd=tree,
                env=dict(environment, SRBENCH_TURNS=f"{theirs_in},{theirs_out}"),
                pass_fds=(theirs_in, theirs_out),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = os.fdopen(ours_in), os.fdopen(ours_out, "w")
        self._seconds: dict[str, list[float]] = {}
        self.left: list[str] = []
        self.said = ""  # what it said before it began to wait

    @property
    def pending(self) -> str | None:
        """The benchmark before which it waits."""
        return self.said.removeprefix("ready ") if self.said.startswith("ready ") else None

    def listen(self) -> None:
        """Wait until it waits, or is gone."""
        self.said = self._in.readline().strip()

    def go(self, answer: str = "go") -> None:
        """Let it go on to where it waits next."""
        if self.pending in self.left:
            self.left.remove(self.pending)
        with contextlib.suppress(BrokenPipeError):
            self._out.write(answer + "\n")
            self._out.flush()
        self.listen()

    def begin(self) -> None:
        """Wait until its benchmarks are known and the first one waits."""
        self.listen()
        if self.said.startswith("["):
            self.left = json.loads(self.said)
            self.go()

    def note(self, name: str) -> None:
        """Keep what the last slice took."""
        self._seconds.setdefault(name, []).append(float(self.said.split()[1]))

    def result(self) -> Process:
        """Let the process end and return what it found."""
        with contextlib.suppress(BrokenPipeError):
            self._out.write("go\n")
            self._out.flush()
        code, said = self._process.wait(), self._log.read_text(encoding="utf-8", errors="replace")
        if code == 5 or (code == 4 and "no tests ran" in said):  # nothing is marked there, or no such file
            return Process({})
        if code not in (0, 1):
            raise CallError(f"pytest ends with {code} at the {self._side}:\n{said[-3000:]}")
        failed = [line.split()[1] for line in said.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        return Process({name: times for name, times in self._seconds.items() if name not in failed}, tuple(failed))

    def stop(self) -> None:
        """End the process if it still runs, and close the pipes."""
        self._process.kill()
        self._process.wait()
        for stream in (self._in, self._out):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def take_turns(sides: Sequence[_Pytest]) -> None:
    """Let processes run the same benchmarks, one slice of one process at a time."""
    for side in sides:
        side.begin()
    while waiting := [side for side in sides if side.pending]:
        # A benchmark that another process has not come to yet waits for it, unless they wait for each other.
        ripe = [
            side
            for side in waiting
            if all(other.pending == side.pending or side.pending not in other.left for other in waiting)
        ]
        name = (ripe or waiting)[0].pending
        assert name is not None
        _share(name, [side for side in waiting if side.pending == name])


def _share(name: str, sides: Sequence[_Pytest]) -> None:
    for side in sides:
        side.go()  # set-up, warm-up and calibration
    ready = [side for side in sides if side.said.startswith("calibrated ")]
    if not ready:
        return
    slowest = max(float(side.said.split()[1]) for side in ready)
    loops = max(1, round(SLICE_S / max(slowest, 1e-9)))
    slices = min(SLICES, max(LEAST_SLICES, int(BENCHMARK_S / (loops * max(slowest, 1e-9)))))
    for side in ready:
        side.go(f"{slices} {loops}")
    for _ in range(slices):
        for side in ready:
            if side.said.startswith("slice"):
                side.go()
                if side.said.startswith("slice "):
                    side.note(name)
    for side in ready:
        if side.said.startswith("slice"):
            side.go()  # to the next benchmark


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print the table, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="commit to compare with; where this branch left main, or the one before")
    parser.add_argument("--head", help="commit to judge; the working tree if left out")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="heads between bases")
    parser.add_argument("--timer", default="time.process_time", help="the clock, as module.function")
    parser.add_argument("--markdown", type=Path, help="file that the table is appended to")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2], help="the checkout")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    try:
        if options.rounds < 3:
            raise CallError("--rounds takes at least 3: noise cannot be told from fewer")
        base = base_of(root, options.base)
        head = base_of(root, options.head) if options.head else None
        with tempfile.TemporaryDirectory(prefix="srbench-timing-") as folder:
            trees = {"base": Path(folder) / "base", "head": Path(folder) / "head"}
            lay_out(root, base, trees["base"])
            lay_out(root, head, trees["head"])
            run = Processes(trees, Path(folder) / "scratch", timer=options.timer)
            lines = compare(run, rounds=options.rounds, say=lambda text: print(text, file=sys.stderr, flush=True))
    except NothingToCompareError as reason:
        print(f"timing: skipped, {reason}")
        return 0
    except CallError as error:
        print(f"timing: {error}", file=sys.stderr)
        return 2
    label = head[:9] if head else "the working tree"
    text = markdown(lines, base=base[:9], head=label, rounds=options.rounds)
    print(text, end="")
    if options.markdown is not None:
        with options.markdown.open("a", encoding="utf-8") as stream:
            stream.write(text)
    return 1 if broken(lines) else 0


if __name__ == "__main__":
    sys.exit(main())
