"""Disks that are full, without inodes or read-only, a cache that vanishes, and several runs at once.

Each ends in a sentence at most, loses nothing, and goes on afterwards to the results of an undisturbed run.
`SRBENCH_DISKS=50 pytest -n 0 -rP tests/test_disk.py` is the long form: so many disks of random size for eval and train.
`SRBENCH_SEED` draws others. docs/reliability.md has its figures.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_world import COMMANDS, EVAL, TRAIN, Command, Place, known_bytes, leftovers, make_world
from nursery import Run, files_below

DISKS = int(os.environ.get("SRBENCH_DISKS", "2"))
SEED = int(os.environ.get("SRBENCH_SEED", "0"))
PLENTY = "size=64m,nr_inodes=0"
BY_NAME = {command.name: command for command in COMMANDS}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(max(900, 60 * DISKS))]


def mount(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *words], capture_output=True, text=True, check=False)


@contextlib.contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """Mount a disk in memory on a folder."""
    folder.mkdir(exist_ok=True)
    done = mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def change(folder: Path, options: str) -> bool:
    return mount("-o", f"remount,{options}", str(folder)).returncode == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("disks of a chosen size can be mounted by root on Linux alone")
    return make_world(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def wholes(world, nursery):
    """What undisturbed runs leave, by command, each with the bytes and files that it takes."""
    known: dict[str, tuple[object, int, int]] = {}

    def whole(command: Command) -> tuple[object, int, int]:
        if command.name not in known:
            if command not in (EVAL, TRAIN):
                whole(EVAL)
            place = Place(world, world / f"whole {command.name}")
            place.root.mkdir()
            command.prepare(place)
            before = len(files_below(place.root))
            result = command.finish(nursery, place)
            files = files_below(place.root)
            taken = sum(-(-path.stat().st_size // 4096) * 4096 for path in files)
            known[command.name] = result, taken, len(files) - before
            if command is EVAL:
                shutil.copytree(place.out, world / "results")
        return known[command.name]

    return whole


def check_refused(run: Run) -> str:
    """Return what a run said last, which is a sentence where it did not succeed."""
    code = run.wait()
    assert code in (0, 1, 2), run.said
    assert "Traceback" not in run.said, run.said
    if code == 0:
        return ""
    last = run.said.strip().splitlines()[-1]
    assert last.startswith("srbench: "), run.said
    return last


@pytest.mark.parametrize("name", ["eval", "train"])
@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_a_disk_that_is_too_small_is_a_sentence_and_the_run_goes_on(name, what, world, nursery, wholes):
    draw, command = random.Random(f"{SEED} {name} {what}"), BY_NAME[name]
    whole, taken, files = wholes(command)
    said: dict[str, int] = {}
    for number in range(DISKS):
        room = f"size={draw.randrange(1, taken // 4096 + 1) * 4096}" if what == "bytes" else ""
        room = room or f"size=64m,nr_inodes={draw.randrange(4, 2 * files)}"
        with disk(world / f"{name} {what} {number}", room) as root:
            place = Place(world, root)
            (run,) = command.start(nursery, place)
            last = check_refused(run)
            kind = (
                "none" if not last else next((sign for sign in ("No space left", "free there") if sign in last), last)
            )
            said[kind] = said.get(kind, 0) + 1
            assert change(root, PLENTY if what == "bytes" else "nr_inodes=100000")
            command.check(place)
            assert command.finish(nursery, place, again=True) == whole
            assert [path for path in leftovers(place) if "cache" not in path.parts] == []
    print(f"{name}, {DISKS} disks short of {what}: {said}")
    assert set(said) <= {"none", "No space left", "free there"}


@pytest.mark.parametrize("name", [command.name for command in COMMANDS if command.ranks == 1])
def test_a_read_only_disk_is_a_sentence(name, world, nursery, wholes):
    command = BY_NAME[name]
    whole, _, _ = wholes(command)
    with disk(world / f"read-only {name}", PLENTY) as root:
        place = Place(world, root)
        command.prepare(place)
        environment = place.environment
        assert change(root, "ro")
        (run,) = nursery.start_ranks(command.words(place), environment | {"TMPDIR": str(world)}, 1)
        assert "Read-only" in check_refused(run) or "no permission" in run.said, run.said
        assert change(root, "rw")
        assert known_bytes(command, whole).finish(nursery, place) == whole


def test_a_disk_that_becomes_read_only_is_a_sentence(world, nursery, wholes):
    draw = random.Random(f"{SEED} becomes")
    whole, _, _ = wholes(EVAL)
    for number in range(DISKS):
        with disk(world / f"becomes {number}", PLENTY) as root:
            place = Place(world, root)
            (run,) = EVAL.start(nursery, place)
            time.sleep(draw.uniform(0, 1))
            while run.poll() is None and not change(root, "ro"):
                time.sleep(0.001)  # while a file is open for writing, it cannot
            check_refused(run)
            assert change(root, "rw")
            EVAL.check(place)
            assert EVAL.finish(nursery, place) == whole


def test_a_cache_that_is_deleted_while_it_is_used_changes_nothing(world, nursery, wholes):
    draw = random.Random(f"{SEED} cache")
    said = []
    for number, command in enumerate([EVAL, TRAIN] * DISKS):
        whole, _, _ = wholes(command)
        place = Place(world, world / f"cache {number}")
        place.root.mkdir()
        (run,) = command.start(nursery, place)
        time.sleep(draw.uniform(0, 1))
        shutil.rmtree(place.root / "cache", ignore_errors=True)
        said.append(check_refused(run))
        command.check(place)
        assert command.finish(nursery, place, again=True) == whole
    print(f"{len(said)} caches deleted: {len(said) - said.count('')} runs ended with a sentence")


@pytest.mark.parametrize("count", [2, 4])
def test_runs_at_once_all_end_with_the_same_results(count, world, nursery, wholes):
    whole, _, _ = wholes(EVAL)
    for number in range(max(1, DISKS // 10)):
        place = Place(world, world / f"{count} at once {number}")
        place.root.mkdir()
        runs = [EVAL.start(nursery, place)[0] for _ in range(count)]
        assert [run.wait() for run in runs] == [0] * count, "\n".join(run.said for run in runs)
        assert EVAL.result(place) == whole
        assert leftovers(place) == []


def test_of_two_trainings_at_once_one_says_that_the_other_is_at_work(world, nursery, wholes):
    whole, _, _ = wholes(TRAIN)
    place = Place(world, world / "two trainings")
    place.root.mkdir()
    runs = [TRAIN.start(nursery, place)[0] for _ in range(2)]
    said = [check_refused(run) for run in runs]
    assert "" in said
    assert all(not last or "another run" in last or "--resume" in last for last in said), said
    assert TRAIN.result(place) == whole
