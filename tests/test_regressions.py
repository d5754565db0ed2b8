"""The timing gate: its statistics on made-up times, its choice of a base, the whole script on small repositories."""

from __future__ import annotations

import importlib.util
import math
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


# --- statistics ----------------------------------------------------------------------------------------------------


class Machine:
    """Processes on a machine whose speed drifts, whose times scatter, and which is now and then disturbed."""

    def __init__(
        self,
        seed: int,
        *,
        deviation: float = 0.04,
        outliers: float = 0.05,
        drift: float = 0.02,
        slower: dict[str, float] | None = None,
        base: Sequence[str] = NAMES,
        head: Sequence[str] = NAMES,
        failing: Sequence[str] = (),
    ) -> None:
        self._draws = np.random.default_rng(seed)
        self._deviation, self._outliers, self._drift = deviation, outliers, drift
        self._slower, self._names, self._failing = slower or {}, {"base": base, "head": head}, failing
        self._speed = 1.0
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, names: Sequence[str]) -> regressions.Trio:
        self.calls.append(tuple(names))
        return regressions.Trio(*(self._process(side, names) for side in ("base", "head", "base")))

    def _process(self, side: str, names: Sequence[str]) -> regressions.Process:
        self._speed *= math.exp(self._drift * self._draws.standard_normal())
        seconds = {}
        for name in names or self._names[side]:
            if name in self._failing and side == "head":
                continue
            factor = self._slower.get(name, 1.0) if side == "head" else 1.0
            scatter = math.exp(self._deviation * abs(self._draws.standard_normal()))
            disturbed = self._draws.uniform(1.2, 2.5) if self._draws.random() < self._outliers else 1.0
            seconds[name] = [0.01 * factor * self._speed * scatter * disturbed]
        failed = tuple(name for name in self._failing if side == "head")
        return regressions.Process(seconds, failed)


WEATHERS = {
    "calm": {"deviation": 0.01, "outliers": 0.0, "drift": 0.0},
    "usual": {"deviation": 0.04},
    "busy": {"deviation": 0.08, "outliers": 0.1, "drift": 0.1},
    "stormy": {"deviation": 0.2, "outliers": 0.2},
}


@pytest.mark.parametrize("rounds", [3, regressions.ROUNDS])  # those of .ci/run, and those of the script by itself
@pytest.mark.parametrize("weather", WEATHERS.values(), ids=WEATHERS)
def test_base_against_base_is_not_slower(weather, rounds):
    for seed in range(100):
        lines = regressions.compare(Machine(seed, **weather), rounds=rounds)
        assert [line.name for line in lines if line.verdict == "slower"] == [], f"seed {seed}"


@pytest.mark.parametrize(("weather", "at_least"), [("calm", 60), ("usual", 56)])
def test_a_slowdown_of_a_half_is_found_and_nothing_else(weather, at_least):
    found = [
        [line.name for line in regressions.broken(regressions.compare(machine))]
        for machine in (Machine(seed, slower={NAMES[7]: 1.5}, **WEATHERS[weather]) for seed in range(60))
    ]
    assert found.count([NAMES[7]]) >= at_least and found.count([]) + found.count([NAMES[7]]) == 60


def test_a_slowdown_by_far_is_found_on_a_busy_machine_too():
    for seed in range(20):
        lines = regressions.compare(Machine(seed, slower={NAMES[7]: 8.0}, **WEATHERS["busy"]))
        assert [line.name for line in regressions.broken(lines)] == [NAMES[7]], f"seed {seed}"


def test_the_bound_follows_the_noise_of_base_against_base():
    calm, busy = (
        {line.name: line for line in regressions.compare(Machine(0, deviation=deviation, outliers=0.0, drift=0.0))}
        for deviation in (0.005, 0.3)
    )
    assert all(line.bound == regressions.LEAST_BOUND for line in calm.values())
    assert all(line.bound > 1.2 for line in busy.values())
    assert regressions.bound_of(0.1, 20) < regressions.bound_of(0.1, 5)
    # five ratios of a head between two bases, each with a deviation of 0.04
    error = 0.04 * math.sqrt(1.5) * math.sqrt(math.pi / 2) / math.sqrt(5)
    assert regressions.bound_of(0.04, 5) == pytest.approx(math.exp(regressions.ERRORS * error))


def test_the_deviation_is_that_of_one_time():
    draws = np.random.default_rng(0)
    times = np.exp(0.05 * draws.standard_normal((4000, 2)))
    rounds = [regressions.Round([before], [1.0], [after]) for before, after in times]
    assert regressions.spread(rounds) == pytest.approx(0.05, rel=0.05)


def test_a_round_is_the_median_over_slices_of_head_over_its_two_neighbours():
    found = regressions.Round(before=[2.0, 2.0, 1.0], head=[6.0, 30.0, 1.0], after=[4.5, 2.0, 1.0])
    assert math.exp(found.ratio) == pytest.approx(6.0 / 3.0) and math.exp(found.noise) == pytest.approx(1.0)
    # a machine that halves its speed between two slices leaves the ratio as it is
    assert regressions.Round([1.0, 2.0], [1.5, 3.0], [1.0, 2.0]).ratio == pytest.approx(math.log(1.5))


def test_only_the_doubtful_is_measured_again():
    machine = Machine(3, slower={NAMES[2]: 2.0}, **WEATHERS["calm"])
    lines = {line.name: line for line in regressions.compare(machine, rounds=4)}
    assert machine.calls == [()] * 4 + [(NAMES[2],)] * 4
    assert lines[NAMES[2]].again and not lines[NAMES[3]].again


def trio(base: dict[str, float], head: dict[str, float], after: dict[str, float] | None = None) -> regressions.Trio:
    sides = (base, head, after or base)
    return regressions.Trio(*(regressions.Process({name: [value] for name, value in side.items()}) for side in sides))


def test_what_was_slow_by_chance_the_first_time_is_let_go():
    calls: list[int] = []

    def run(names):
        calls.append(1)
        times = dict.fromkeys(NAMES, 0.01)
        return trio(times, times | ({NAMES[0]: 0.016} if len(calls) <= regressions.ROUNDS else {}))

    lines = {line.name: line for line in regressions.compare(run)}
    assert lines[NAMES[0]].again and lines[NAMES[0]].verdict == "same" and lines[NAMES[0]].ratio == pytest.approx(1.0)


def test_one_benchmark_measured_again_keeps_the_noise_that_all_of_them_showed():
    calls: list[int] = []

    def run(names):
        calls.append(1)
        first = len(calls) <= regressions.ROUNDS
        times = dict.fromkeys(names or NAMES, 0.01)
        after = {name: value * 1.15 if first else value for name, value in times.items()}
        return trio(times, {name: 0.02 if name == NAMES[0] else value for name, value in times.items()}, after)

    line = next(each for each in regressions.compare(run) if each.name == NAMES[0])
    assert line.again and line.bound > regressions.LEAST_BOUND and line.verdict == "slower"


def test_benchmarks_of_one_side_are_listed_and_do_not_fail():
    old, new, both = NAMES[0], NAMES[1], NAMES[2:]
    lines = regressions.compare(Machine(0, base=(old, *both), head=(new, *both)))
    verdicts = {line.name: line.verdict for line in lines}
    assert verdicts[old] == "only at base" and verdicts[new] == "only at head" and len(verdicts) == 20
    assert regressions.broken(lines) == []


def test_a_benchmark_that_fails_at_the_head_fails_the_gate():
    lines = regressions.compare(Machine(0, failing=(NAMES[5],)))
    assert [(line.name, line.verdict) for line in regressions.broken(lines)] == [(NAMES[5], "fails at head")]


def test_noise_that_hides_a_slowdown_is_said():
    lines = regressions.compare(Machine(1, deviation=0.5))
    assert any(line.verdict == "too noisy" for line in lines)


def test_a_faster_head_is_said():
    lines = regressions.compare(Machine(0, slower={NAMES[4]: 0.5}, **WEATHERS["calm"]))
    assert {line.name for line in lines if line.verdict == "faster"} == {NAMES[4]}


def test_the_table():
    lines = regressions.compare(Machine(0, slower={NAMES[2]: 2.0}, head=NAMES[:-1]))
    text = regressions.markdown(lines, base="abc123456", head="the working tree", rounds=5)
    assert text.startswith("### Timing: the working tree against abc123456\n\n**1 slower or failing**.")
    rows = {cells[1].strip(): cells for line in text.splitlines() if len(cells := line.split("|")) > 7}
    assert rows["stage2"][-2].strip() == "slower, measured again" and float(rows["stage2"][4]) == pytest.approx(2, 0.2)
    assert rows["stage3"][-2].strip() == "same" and " to " in rows["stage3"][6]
    assert rows["stage19"][-2].strip() == "only at base" and rows["stage19"][4].strip() == ""


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
            "setup.py": 'HOMES = {"srbench.baselines": "baselines"}\n',
            "srbench/__init__.py": "",
            "srbench/clock.py": CLOCK,
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
    assert code == 1 and "| work        |  10 ms |  15 ms |         1.500 |" in out, out
    assert "slower, measured again" in out and "not_for_the_gate" not in out
    assert (tmp_path / "table.md").read_text() == out
    code, out, _ = gate(root, "--base", "HEAD", "--head", "HEAD")
    assert code == 0 and "Nothing is slower" in out and "|         1.000 |" in out
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


def test_another_installation_of_the_same_package_is_noticed(checkout, tmp_path):
    """With an editable install, what a tree lacks comes from elsewhere, and the tree would be compared with itself."""
    root = checkout(0.01)
    elsewhere = tmp_path / "elsewhere" / "srbench" / "baselines"
    elsewhere.mkdir(parents=True)
    (elsewhere / "__init__.py").write_text("COST = 1.0\n")
    (root / "setup.py").write_text("")
    (root / "srbench" / "__init__.py").write_text(f"__path__.append({str(elsewhere.parent)!r})\n")
    code, _, err = gate(root, "--base", "HEAD")
    assert code == 2 and "is not what Python imports there" in err
