"""kill -9 and Ctrl-C at any moment: the same command goes on, and ends where an uninterrupted run ends."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from dummies import make_classifier, make_images

from srbench.records.cells import find_records, load_cell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KILLS = 10
PER_CLASS, SIDE = 190, 16  # 570 images: three shards a cell

# Imports once what a run needs, then forks a process for every command line that it reads: each is a process of its own
# that can be killed, without the seconds that importing torch takes.
NURSERY = """
    import json, os, signal, sys, traceback
    import scipy.stats, sklearn.metrics, timm, torch
    from srbench.evaluation import costs
    from srbench.cli import main
    from srbench.registry import Registry

    Registry().working()
    # Whoever starts the tests in the background lets them ignore Ctrl-C, and every process below them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    costs.BUDGET_S = 0.01  # the seconds of a run go into what is to be interrupted, not into the timing pass
    for line in sys.stdin:
        words, environment, log = json.loads(line)
        child = os.fork()
        if child == 0:
            os.environ |= environment
            with open(log, "w") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
            sys.argv = ["srbench", *words]
            try:
                main()
                code = 0
            except SystemExit as stop:
                code = stop.code or 0
            except BaseException:
                traceback.print_exc()
                code = 99
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """Starts runs of the command line, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log.txt"
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(NURSERY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )

    def run(
        self,
        words: list[str],
        *,
        cache: Path,
        wait: Callable[[Callable[[], bool]], None] | None = None,
        stop: signal.Signals = signal.SIGKILL,
    ) -> int:
        """Run to the end, or stop it by a signal once `wait(alive)` returns.

        Returns:
            The exit code, negative if it was killed.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([words, {"SRBENCH_CACHE": str(cache)}, str(self._log)]) + "\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        assert child > 1  # 0 would signal the whole process group, the tests themselves included
        try:
            if wait is not None:
                wait(partial(self._alive, child))
        except BaseException:
            stop = signal.SIGKILL
            raise
        finally:  # whatever went wrong, the next run must not read this one's exit code as its process id
            if wait is not None:
                with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                    os.kill(child, stop)
            code = int(self._process.stdout.readline())
        return code

    @staticmethod
    def _alive(child: int) -> bool:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def said(self) -> str:
        return self._log.read_text()

    def close(self) -> None:
        self._process.kill()  # it holds nothing, and taking torch down in order takes long on a busy machine
        self._process.communicate()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Images, a card and a protocol."""
    folder = tmp_path_factory.mktemp("kill")
    make_images(folder / "photos", PER_CLASS, side=SIDE)
    make_classifier(folder / "card", side=SIDE)
    (folder / "half.toml").write_text("[lr]\nscale = 0.5\n")
    return folder


@pytest.fixture(scope="module")
def nursery(world) -> Iterator[Nursery]:
    nursery = Nursery(world)
    yield nursery
    nursery.close()


def words(world: Path, out: Path) -> list[str]:
    data = ["--data", f"folder:{world / 'photos'}", "--classifier", str(world / "card" / "dummy.toml")]
    return ["eval", "nearest", "bicubic", *data, "--protocol", str(world / "half.toml"), "--out", str(out)]


def samples(out: Path) -> dict[str, pd.DataFrame]:
    cells, problems = find_records([out])
    assert problems == []
    return {cell.record.cell.method: cell.samples() for cell in cells if cell.record.status == "ok"}


def found_files(folder: Path, suffix: str) -> list[Path]:
    """List the files below a folder that a run is still writing to and deleting from.

    `Path.rglob` raises where a folder vanishes while it looks; `os.walk` goes on.
    """
    walk = os.walk(folder)
    return [Path(here, name) for here, _, names in walk for name in names if name.endswith(suffix)]


def check_files(out: Path) -> None:
    """Nothing under its final name is half-written."""
    for path in out.rglob("*.json"):
        json.loads(path.read_text())
    for path in out.rglob("*.parquet"):
        if not path.name.startswith("."):
            assert pq.read_table(path).num_rows > 0
    for path in out.rglob("record.json"):
        load_cell(path.parent)


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.name.endswith(".tmp") or path.name == ".partial"]


@pytest.fixture(scope="module")
def whole(world, nursery):
    """The samples of an uninterrupted run."""
    assert nursery.run(words(world, world / "whole"), cache=world / "cache") == 0, nursery.said
    found = samples(world / "whole")
    assert {name: len(frame) for name, frame in found.items()} == dict.fromkeys(
        ("original", "none", "bilinear", "nearest", "bicubic"), 3 * PER_CLASS
    )
    return found


def shards(out: Path) -> list[Path]:
    return [path for path in found_files(out, ".parquet") if path.name.startswith("rows-")]


def progress(out: Path, cache: Path) -> int:
    """Count what a run has stored for good; a finished cell counts as its three shards and two more."""
    return (
        len(shards(out))
        + 5 * len(found_files(out, "record.json"))
        + len(found_files(cache, ".hr"))
        + len(found_files(cache, ".npz"))
    )


def same(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame]) -> None:
    assert found.keys() == expected.keys()
    for method, frame in expected.items():
        pd.testing.assert_frame_equal(found[method], frame, check_exact=True)


def test_run_killed_at_ten_random_moments_ends_as_if_nothing_had_happened(world, nursery, whole):
    draw = random.Random(0)
    kills, finished, moments = 0, 0, set()
    while kills < KILLS:
        out, cache = world / f"killed-{finished}", world / f"cache-{finished}"
        steps, seconds = draw.randint(0, 9), draw.uniform(0.0, 0.3)

        def moment(alive: Callable[[], bool], out=out, cache=cache, steps=steps, seconds=seconds) -> None:
            target = progress(out, cache) + steps
            while alive() and progress(out, cache) < target:
                time.sleep(0.002)
            time.sleep(seconds)

        code = nursery.run(words(world, out), cache=cache, wait=moment)
        if code == -signal.SIGKILL:
            kills += 1
            moments.add((finished, progress(out, cache)))
            check_files(out)
        else:  # it was quicker than the signal, or nothing was left to do
            assert code == 0, nursery.said
            same(samples(out), whole)
            finished += 1
            assert finished < 10
    assert nursery.run(words(world, out), cache=cache) == 0, nursery.said
    check_files(out)
    same(samples(out), whole)
    for each in world.glob("killed-*"):
        assert leftovers(each) == []
    assert len(moments) >= 4  # they did hit different places


def test_ctrl_c_exits_130_and_the_same_command_goes_on(world, nursery, whole):
    out, cache = world / "stopped", world / "cache-stopped"

    def first_shards(alive: Callable[[], bool]) -> None:
        while alive() and len(shards(out)) < 5:
            time.sleep(0.002)

    code = nursery.run(words(world, out), cache=cache, wait=first_shards, stop=signal.SIGINT)
    assert code == 130
    assert "srbench: stopped; the same command goes on where it was" in nursery.said
    assert "Traceback" not in nursery.said
    check_files(out)
    assert not list(out.rglob("*.tmp")) and not list(out.rglob("record.json"))
    assert nursery.run(words(world, out), cache=cache) == 0
    assert "decoded 0 images" in nursery.said  # what was decoded stays
    restored = int(nursery.said.split("restored ")[1].split(";")[0])
    assert restored < 4 * 3 * PER_CLASS
    same(samples(out), whole)
    assert leftovers(out) == []
