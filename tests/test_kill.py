"""kill -9 and Ctrl-C at any moment: the same command goes on, and ends where an uninterrupted run ends.

`SRBENCH_KILLS=200 pytest -n 0 -rP tests/test_kill.py` is the long form: 100 kills of eval on one process and 100 on
two, 100 of train, 20 of each other command. `SRBENCH_SEED` draws other moments. docs/reliability.md has its figures.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from kill_world import COMMANDS, EVAL, PER_CLASS, Command, Place, known_bytes, leftovers, make_world
from nursery import Nursery, Run, files_below

KILLS = int(os.environ.get("SRBENCH_KILLS", "0"))
SEED = int(os.environ.get("SRBENCH_SEED", "0"))
SHARE = {"eval": 0.5, "eval on 2 ranks": 0.5, "train": 0.5}  # of KILLS; each other command has a tenth
SHORT = {"eval": 5, "eval on 2 ranks": 2, "train": 3}  # without KILLS; each other command has one

pytestmark = [pytest.mark.slow, pytest.mark.timeout(max(900, 30 * KILLS))]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("kill"))


@pytest.fixture(scope="module")
def evaluated(world, nursery):
    """The results of an uninterrupted evaluation; what others report on, and pack."""
    place = Place(world, world / "whole")
    found = EVAL.finish(nursery, place)
    shutil.copytree(place.out, world / "results")
    return found


class Moments:
    """Moments to be killed at: half of them anywhere in the run, half just after it has written, moved or removed."""

    def __init__(self, draw: random.Random, seconds: float, changes: int) -> None:
        """Take how long a run takes, and how often its files change."""
        self._draw, self._seconds, self._changes = draw, seconds, changes

    def wait(self, runs: Sequence[Run], root: Path) -> None:
        if self._draw.random() < 0.5:
            end = time.monotonic() + self._draw.uniform(0, self._seconds)
            while time.monotonic() < end and any(run.poll() is None for run in runs):
                time.sleep(0.002)
            return
        wanted, pause = self._draw.randint(1, max(1, self._changes)), self._draw.choice([0.0, 0.0005, 0.002, 0.01])
        watch_changes(runs, root, enough=wanted)
        time.sleep(pause)


def watch_changes(runs: Sequence[Run], root: Path, *, enough: float = float("inf")) -> int:
    """Return how often the files below a folder have changed when the runs have ended, or as soon as it is enough."""
    seen, changes = set(files_below(root)), 0
    while changes < enough and any(run.poll() is None for run in runs):
        time.sleep(0.0005)  # looking without a pause would take the time of the run that it looks at
        now = set(files_below(root))
        changes += now != seen
        seen = now
    return changes


def kill(runs: Sequence[Run], draw: random.Random) -> list[int]:
    """Kill all processes of a run, or one of them, which the others have to notice; return the exit codes."""
    alone = draw.randrange(len(runs)) if len(runs) > 1 and draw.random() < 0.5 else None
    codes = {number: run.stop() for number, run in enumerate(runs) if alone in (None, number)}
    for number, run in enumerate(runs):
        if number not in codes:
            codes[number] = run.wait()
            assert codes[number] in (0, 1), run.said
            assert "Traceback" not in run.said, run.said
    return [codes[number] for number in range(len(runs))]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_killed_at_random_moments_it_ends_as_if_nothing_had_happened(command, world, nursery, evaluated):
    draw = random.Random(f"{SEED} {command.name}")
    kills = round(KILLS * SHARE.get(command.name, 0.1)) if KILLS else SHORT.get(command.name, 1)
    moments, whole = uninterrupted(command, world, nursery, draw)
    if command is EVAL:  # batches of other ranks hold other images, which changes last bits
        assert whole == evaluated
    command = known_bytes(command, whole)
    killed = attempts = places = 0
    while killed < kills:
        place = new_place(command, world, places)
        places, again, done = places + 1, False, False
        while not done:
            attempts += 1
            assert attempts < 20 * kills + 20
            runs = command.start(nursery, place, again=again)
            if killed < kills:
                moments.wait(runs, place.root)
                codes = kill(runs, draw)
            else:
                codes = [run.wait() for run in runs]
            command.check(place)
            again = True
            if done := set(codes) == {0}:
                assert command.result(place) == whole
                assert [path for path in leftovers(place) if "cache" not in path.parts] == []
                sweep_the_cache(command, nursery, place)
            else:
                assert -signal.SIGKILL in codes, "\n".join(run.said for run in runs)
                killed += 1
        shutil.rmtree(place.root)
    print(f"{command.name}: {killed} kills in {attempts} starts, {places} results, all equal to the last bit")


def uninterrupted(command: Command, world: Path, nursery: Nursery, draw: random.Random) -> tuple[Moments, object]:
    """Run to the end, and return when it can be killed, and its result."""
    place = new_place(command, world, -1)
    begin = time.monotonic()
    runs = command.start(nursery, place)
    changes = watch_changes(runs, place.root)
    seconds = time.monotonic() - begin
    assert {run.wait() for run in runs} == {0}, "\n".join(run.said for run in runs)
    assert leftovers(place) == []
    return Moments(draw, seconds, changes), command.result(place)


def sweep_the_cache(command: Command, nursery: Nursery, place: Place) -> None:
    """A cache is shared with runs that may be at work, so what was killed there goes when it is old."""
    left = leftovers(place)
    if left:
        for path in left:
            os.utime(path, (1, 1))
        shutil.rmtree(place.out)
        command.finish(nursery, place)
        assert leftovers(place) == []


def new_place(command: Command, world: Path, number: int) -> Place:
    place = Place(world, world / f"{command.name}-{number}")
    place.root.mkdir()
    command.prepare(place)
    return place


def test_ctrl_c_exits_130_and_the_same_command_goes_on(world, nursery, evaluated):
    place = Place(world, world / "stopped")

    def shards() -> list[Path]:
        return [path for path in files_below(place.out) if path.name.startswith("rows-") and path.suffix == ".parquet"]

    (run,) = EVAL.start(nursery, place)
    while run.poll() is None and len(shards()) < 5:
        time.sleep(0.002)
    assert run.stop(signal.SIGINT) == 130
    assert "srbench: stopped; the same command goes on where it was" in run.said
    assert "Traceback" not in run.said
    EVAL.check(place)
    assert not [path for path in files_below(place.out) if path.suffix == ".tmp" or path.name == "record.json"]
    (run,) = EVAL.start(nursery, place)
    assert run.wait() == 0
    assert "decoded 0 images" in run.said  # what was decoded stays
    restored = int(run.said.split("restored ")[1].split(";")[0])
    assert restored < 4 * 3 * PER_CLASS
    assert EVAL.result(place) == evaluated
    assert leftovers(place) == []
