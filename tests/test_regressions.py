"""The timing gate: what it concludes from made-up times, its choice of a base, the whole on a repository."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "regressions.py"
spec = importlib.util.spec_from_file_location("regressions", SCRIPT)
regressions = importlib.util.module_from_spec(spec)
sys.modules["regressions"] = regressions
spec.loader.exec_module(regressions)

NAMES = tuple(f"tests/benchmarks/test_stages.py::test_stage{number}" for number in range(20))


class Machine:
    """Runs 20 benchmarks of 10 ms on a machine that other work disturbs.

    Args:
        seed: Of its moods.
        scatter: Standard deviation of a time's logarithm, upwards only.
        outliers: Share of the times that are up to 2.5 times too long.
        halved: Share of the processes during which the whole machine runs at half its speed.
        slower: Benchmark of the head -> how many times it takes as long.
        only: Benchmarks that one side alone has.
        failing: Benchmarks that fail at the head.
    """

    def __init__(
        self,
        seed: int,
        *,
        scatter: float = 0.0,
        outliers: float = 0.0,
        halved: float = 0.0,
        slower: dict[str, float] | None = None,
        only: dict[str, str] | None = None,
        failing: Sequence[str] = (),
    ) -> None:
        self._draws, self._scatter, self._outliers, self._halved = (
            np.random.default_rng(seed),
            scatter,
            outliers,
            halved,
        )
        self._slower, self._only, self._failing = slower or {}, only or {}, failing
        self.calls: list[tuple[str, tuple[str, ...]]] = []

    def __call__(self, side: str, names: Sequence[str]) -> regressions.Times:
        self.calls.append((side, tuple(names)))
        speed = 2.0 if self._draws.random() < self._halved else 1.0
        seconds = {}
        for name in names or NAMES:
            disturbed = self._draws.uniform(1.2, 2.5) if self._draws.random() < self._outliers else 1.0
            noise = np.exp(self._scatter * abs(self._draws.standard_normal()))
            factor = self._slower.get(name, 1.0) if side == "head" else 1.0
            if self._only.get(name, side) == side and not (side == "head" and name in self._failing):
                seconds[name] = 0.01 * factor * speed * disturbed * noise
        return regressions.Times(seconds, tuple(self._failing) if side == "head" else ())


WEATHERS = {
    "calm": {"scatter": 0.01},
    "usual": {"scatter": 0.04, "outliers": 0.05},
    "busy": {"scatter": 0.1, "outliers": 0.1},
    "halving": {"scatter": 0.04, "halved": 0.3},
}


@pytest.mark.parametrize("weather", WEATHERS.values(), ids=WEATHERS)
def test_base_against_base_is_not_slower(weather):
    for seed in range(200):
        lines = regressions.compare(Machine(seed, **weather))
        assert regressions.broken(lines) == [], f"seed {seed}"


@pytest.mark.parametrize(("weather", "at_least"), [("calm", 100), ("usual", 99), ("busy", 90), ("halving", 75)])
def test_a_slowdown_of_a_half_is_found_and_nothing_else(weather, at_least):
    runs = [
        [line.name for line in regressions.broken(regressions.compare(machine))]
        for machine in (Machine(seed, slower={NAMES[7]: 1.5}, **WEATHERS[weather]) for seed in range(100))
    ]
    assert runs.count([NAMES[7]]) >= at_least and runs.count([]) + runs.count([NAMES[7]]) == 100


def test_noise_must_deceive_the_shortest_times_and_the_neighbours():
    assert regressions.ratio([1.0, 1.0, 1.0], [1.5, 1.6, 1.5]) == pytest.approx(1.5)
    # the machine was fast during one process of the base alone
    assert regressions.ratio([1.0, 0.5, 1.0], [1.0, 1.0, 1.0]) == 1.0
    # two of three heads were disturbed
    assert regressions.ratio([1.0, 1.0, 1.0], [1.0, 2.0, 2.0]) == 1.0


def test_sides_take_turns_and_only_the_doubtful_is_measured_again():
    machine = Machine(3, slower={NAMES[2]: 2.0})
    lines = regressions.compare(machine, rounds=3)
    turns = ["base", "head", "head", "base", "base", "head"]
    assert machine.calls == [(side, ()) for side in turns] + [(side, (NAMES[2],)) for side in turns]
    assert [line.name for line in regressions.broken(lines)] == [NAMES[2]]


def test_what_was_slow_by_chance_the_first_time_is_let_go():
    def run(side, names):
        return regressions.Times(dict.fromkeys(names or NAMES[:1], 0.016 if side == "head" and not names else 0.01))

    (line,) = regressions.compare(run)
    assert line.verdict == "same" and line.ratio == 1.0


def test_one_side_s_benchmarks_are_listed_and_one_that_fails_at_the_head_breaks_the_gate():
    machine = Machine(0, only={NAMES[0]: "base", NAMES[1]: "head"}, failing=[NAMES[5]], slower={NAMES[4]: 0.5})
    lines = regressions.compare(machine)
    verdicts = {line.name: line.verdict for line in lines if line.verdict != "same"}
    wanted = {NAMES[0]: "only at base", NAMES[1]: "only at head", NAMES[4]: "faster", NAMES[5]: "fails at head"}
    assert verdicts == wanted and len(lines) == 20
    assert [line.name for line in regressions.broken(lines)] == [NAMES[5]]


def test_the_table():
    lines = regressions.compare(Machine(0, slower={NAMES[2]: 2.0}, only={NAMES[19]: "base"}))
    text = regressions.markdown(lines, base="abc123456", head="the working tree", rounds=5)
    assert text.startswith("### Timing: the working tree against abc123456\n\n**1 slower or failing**.")
    rows = {cells[0]: cells for line in text.splitlines() if len(cells := line.strip("| ").split()) > 4}
    assert [word for word in rows["stage2"] if word != "|"] == ["stage2", "10", "ms", "20", "ms", "2.00", "slower"]
    assert "only at base" in next(line for line in text.splitlines() if "stage19" in line)


# --- repositories --------------------------------------------------------------------------------------------------


def git(root: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", "-C", str(root), *identity, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


CLOCK = """
from srbench.baselines import COST

now = 0.0


def clock():
    global now
    now += 1e-7  # a clock that stands still has no precision
    return now


def work():
    global now
    now += COST
"""

BENCHMARKS = """
import pytest
from srbench import clock


@pytest.mark.gate
def test_work(benchmark):
    benchmark(clock.work)


def test_not_for_the_gate(benchmark):
    benchmark(clock.work)
"""

CONFTEST = 'def pytest_configure(config):\n    config.addinivalue_line("markers", "gate: in the gate")\n'


@pytest.fixture
def checkout(tmp_path) -> Callable[..., Path]:
    """Return a function that makes a repository with a commit for each cost; time passes by a clock of its own."""

    def make(*costs: float) -> Path:
        root = tmp_path / "checkout"
        files = {
            "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--no-such-option'\n",
            "srbench/__init__.py": "",
            "srbench/clock.py": CLOCK,
            "methods/__init__.py": "",
            "tests/benchmarks/conftest.py": CONFTEST,
            "tests/benchmarks/test_stages.py": BENCHMARKS,
        }
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        git(root, "init", "-q", "-b", "main")
        for cost in costs:
            commit(root, cost)
        return root

    return make


def commit(root: Path, cost: float) -> str:
    (root / "baselines").mkdir(exist_ok=True)
    (root / "baselines" / "__init__.py").write_text(f"COST = {cost}\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", f"costs {cost}")
    return git(root, "rev-parse", "HEAD")


def gate(root: Path, *words: str, timer: str = "srbench.clock.clock") -> tuple[int, str, str]:
    command = [sys.executable, SCRIPT, "--root", root, "--rounds", "3", "--timer", timer, *words]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_slowdown_of_a_half_in_the_working_tree_fails_and_the_commit_itself_does_not(checkout, tmp_path):
    root = checkout(0.005, 0.01)
    (root / "baselines" / "__init__.py").write_text("COST = 0.015\n")
    code, out, _ = gate(root, "--base", "HEAD", "--markdown", tmp_path / "table.md")
    assert code == 1 and "| work        |  10 ms |  15 ms |          1.50 | slower |" in out, out
    assert "not_for_the_gate" not in out
    assert (tmp_path / "table.md").read_text() == out
    code, out, _ = gate(root, "--base", "HEAD", "--head", "HEAD")
    assert code == 0 and "Nothing is slower" in out and "|          1.00 | same |" in out
    assert git(root, "status", "--porcelain") == "M baselines/__init__.py"
    assert git(root, "worktree", "list").count("\n") == 0


def test_a_base_without_benchmarks_has_nothing_to_say(checkout):
    root = checkout(0.01)
    (root / "tests" / "benchmarks" / "test_stages.py").unlink()
    commit(root, 0.01)
    (root / "tests" / "benchmarks" / "test_stages.py").write_text(BENCHMARKS)
    code, out, _ = gate(root, "--base", "HEAD")
    assert code == 0 and "only at head" in out


def test_a_benchmark_that_raises_fails(checkout):
    root = checkout(0.01)
    (root / "srbench" / "clock.py").write_text(CLOCK + "    raise RuntimeError\n")
    code, out, _ = gate(root, "--base", "HEAD")
    assert code == 1 and "fails at head" in out


def test_where_the_base_is(checkout, tmp_path):
    root = checkout(0.01)
    with pytest.raises(regressions.NothingToCompareError, match="the first, or the clone is shallow"):
        regressions.base_of(root, None)
    first, second = git(root, "rev-parse", "HEAD"), commit(root, 0.02)
    assert regressions.base_of(root, None) == first, "on main, the commit before"
    git(root, "checkout", "-q", "-b", "feature")
    commit(root, 0.03)
    commit(root, 0.04)
    assert regressions.base_of(root, None) == second, "on a branch, where it left main"
    assert regressions.base_of(root, first[:10]) == first
    assert regressions.base_of(root, "0" * 40) == second, "a push that makes a branch has no past"
    with pytest.raises(regressions.CallError, match="there is no commit nosuch here"):
        regressions.base_of(root, "nosuch")
    with pytest.raises(regressions.NothingToCompareError, match="the base aaaaaaaaa is not in this clone"):
        regressions.base_of(root, "a" * 40)
    git(tmp_path, "clone", "-q", "--depth", "1", "--branch", "main", f"file://{root}", "shallow")
    with pytest.raises(regressions.NothingToCompareError, match="shallow"):
        regressions.base_of(tmp_path / "shallow", None)
    (tmp_path / "plain").mkdir()
    with pytest.raises(regressions.NothingToCompareError, match="no git checkout"):
        regressions.base_of(tmp_path / "plain", None)


def test_nothing_to_compare_with_is_no_failure_and_a_wrong_call_is(checkout):
    root = checkout(0.01)
    assert gate(root) == (
        0,
        "timing: skipped, there is no commit before this one here: it is the first, or the clone is shallow\n",
        "",
    )
    code, out, err = gate(root, "--base", "nosuch")
    assert (code, out) == (2, "") and "there is no commit nosuch here" in err
    assert gate(root, "--base", "HEAD", "--rounds", "2")[0] == 2
