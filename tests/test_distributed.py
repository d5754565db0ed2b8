"""Several processes: the order in which one joins the others, what a left-over environment gets, and two of them."""

from __future__ import annotations

import datetime
import errno
import json
import os
import socket
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import torch.distributed as dist
from dummies import make_classifier, make_images

from srbench import evaluate
from srbench.data import hr_cache
from srbench.data.catalogue import open_source
from srbench.errors import SrbenchError, UsageError
from srbench.evaluation import distributed, options
from srbench.evaluation.counters import Counters
from srbench.evaluation.distributed import Ranks, joined
from srbench.protocol import Geometry
from srbench.records.cells import find_records

MEETING = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
SIDE, PER_CLASS = 16, 15  # 45 images


def environment(monkeypatch, **variables: object) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", *MEETING):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


class Group:
    """What new_group returns; it remembers how long its processes wait for each other."""

    waits: datetime.timedelta | None = None

    def _get_backend(self, device: torch.device) -> Group:
        assert device == torch.device("cpu")
        return self

    def _set_default_timeout(self, time: datetime.timedelta) -> None:
        self.waits = time


GLOO = Group()


@pytest.fixture
def calls(monkeypatch):
    """Record what is asked of CUDA and of torch.distributed, of which nothing is there."""
    calls: list[tuple] = []
    store = SimpleNamespace(add=lambda key, count: calls.append(("add", key)) or 1)

    def recorded(name, result=None):
        def call(*args, **kwargs):
            calls.append((name, *args, kwargs))
            return result(*args, **kwargs) if callable(result) else result

        return call

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", recorded("set_device"))
    monkeypatch.setattr(dist, "rendezvous", recorded("rendezvous", lambda *_, **__: iter([(store, 0, 0)])))
    monkeypatch.setattr(dist, "PrefixStore", lambda prefix, store: (prefix, store))
    monkeypatch.setattr(dist, "init_process_group", recorded("init"))
    monkeypatch.setattr(dist, "new_group", recorded("new_group", GLOO))
    monkeypatch.setattr(dist, "barrier", recorded("barrier"))
    monkeypatch.setattr(dist, "all_gather_object", recorded("gather"))
    monkeypatch.setattr(dist, "destroy_process_group", recorded("destroy"))
    distributed._store.cache_clear()
    yield calls
    distributed._store.cache_clear()


def test_the_device_comes_first_and_the_group_is_destroyed_last(calls, monkeypatch):
    environment(monkeypatch, RANK=6, WORLD_SIZE=8, LOCAL_RANK=2, **MEETING)
    with joined("cuda") as (device, ranks):
        assert device == torch.device("cuda", 2)
        assert (ranks.rank, ranks.world, ranks.is_first) == (6, 8, False)
        ranks.wait()
        ranks.gather("mine")
        calls.append(("body",))
    names = [call[0] for call in calls]
    assert names == ["set_device", "rendezvous", "add", "init", "new_group", "barrier", "gather", "body", "destroy"]
    by_name = dict(zip(names, calls, strict=True))
    assert by_name["set_device"][1] == 2
    backend, options = by_name["init"][1:]
    assert backend == "nccl" and options["device_id"] == torch.device("cuda", 2)
    assert (options["rank"], options["world_size"]) == (6, 8)
    assert options["timeout"] <= datetime.timedelta(minutes=10)
    assert by_name["new_group"][1]["backend"] == "gloo"
    assert by_name["new_group"][1]["timeout"] <= datetime.timedelta(minutes=10)  # to join; then they wait for long
    assert GLOO.waits is not None and GLOO.waits > datetime.timedelta(days=1)
    assert by_name["barrier"][1] == {"group": GLOO}  # never through the device
    assert by_name["gather"][-1] == {"group": GLOO}
    assert by_name["destroy"][1] is None  # the whole group


def test_the_group_is_destroyed_where_the_evaluation_fails(calls, monkeypatch):
    environment(monkeypatch, RANK=0, WORLD_SIZE=2, LOCAL_RANK=0, **MEETING)
    with pytest.raises(ZeroDivisionError), joined("cpu"):
        raise ZeroDivisionError
    assert calls[-1][0] == "destroy"
    (init,) = [call for call in calls if call[0] == "init"]
    assert init[1] == "gloo" and init[-1]["device_id"] is None
    assert "set_device" not in [call[0] for call in calls]


def test_a_group_of_the_caller_is_used_and_stays(calls, monkeypatch):
    environment(monkeypatch)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 5)
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    with joined("auto") as (device, ranks):
        assert (device.index, ranks.rank, ranks.world) == (1, 5, 8)  # the fifth of four devices a machine
    assert [call[0] for call in calls] == ["set_device", "new_group", "destroy"]
    assert calls[-1][1] is GLOO


def test_one_process_needs_no_group(calls, monkeypatch):
    for variables in ({}, {"RANK": 0, "WORLD_SIZE": 1}, {"RANK": "", "WORLD_SIZE": ""}):
        environment(monkeypatch, **variables)
        with joined("cpu") as (device, ranks):
            assert device == torch.device("cpu") and ranks == Ranks()
            ranks.wait()
            assert ranks.gather(3) == [3] and ranks.share(5).tolist() == [0, 1, 2, 3, 4]
    assert calls == []


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"WORLD_SIZE": 2, "RANK": 1}, "has RANK=1 and WORLD_SIZE=2 but no MASTER_ADDR and no MASTER_PORT, where proc"),
        ({"WORLD_SIZE": 2, "RANK": 0, "MASTER_ADDR": "here"}, "has RANK=0 and WORLD_SIZE=2 but no MASTER_PORT, where"),
        ({"WORLD_SIZE": 4, **MEETING}, "the environment has WORLD_SIZE=4, which names no process of a run; start"),
        (
            {"RANK": 3},
            "the environment has RANK=3, which names no process of a run; start srbench by torchrun, or unset",
        ),
        ({"WORLD_SIZE": 2, "RANK": 2, **MEETING}, "has RANK=2 and WORLD_SIZE=2, which names no process of a run"),
        ({"WORLD_SIZE": "two"}, "the environment has WORLD_SIZE=two, expected a whole number as torchrun sets it"),
        ({"WORLD_SIZE": 8, "RANK": 7, "LOCAL_RANK": 7, **MEETING}, "LOCAL_RANK=7, but torch sees only 4 CUDA devices"),
    ],
)
def test_what_another_run_left_over_is_one_sentence(calls, monkeypatch, tmp_path, variables, sentence):
    environment(monkeypatch, **variables)
    with pytest.raises(UsageError, match=sentence) as caught:
        evaluate(["bilinear"], out=tmp_path / "out", device="auto")
    assert "\n" not in str(caught.value) and calls == [] and not (tmp_path / "out").exists()


def test_processes_that_do_not_come_are_one_sentence(monkeypatch):
    environment(monkeypatch, RANK=0, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port())
    monkeypatch.setattr(distributed, "MEETING_TIME", datetime.timedelta(seconds=1))
    with (
        pytest.raises(SrbenchError, match="process 0 of 2 did not meet the others at 127") as caught,
        joined("cpu"),
    ):
        raise AssertionError("it must not come this far")
    assert "\n" not in str(caught.value) and not dist.is_initialized()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_shares_are_disjoint_and_hold_everything():
    shares = [Ranks(rank, 3).share(10).tolist() for rank in range(3)]
    assert sorted(place for share in shares for place in share) == list(range(10))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_counters_of_several_processes_add_up():
    parts = [Counters(decoded=2, restored={"a": 1}), Counters(decoded=3, degraded=1, restored={"a": 2, "b": 4})]
    assert Counters.total(parts) == Counters(decoded=5, degraded=1, restored={"a": 3, "b": 4})


def test_processes_decode_disjoint_files_of_the_cache(tmp_path, own_folders, monkeypatch):
    monkeypatch.setattr(hr_cache, "_CHUNK", 4)
    source = open_source(f"images:{make_images(tmp_path / 'photos', 6, side=SIDE)}")  # 18 images: five files
    read: list[int] = []
    real = type(source).read_stored
    monkeypatch.setattr(type(source), "read_stored", lambda self, index: read.append(index) or real(self, index))
    counts = [hr_cache.fill_hr_cache(source, Geometry(), share=(rank, 2)) for rank in range(2)]
    assert counts == [10, 8] and sorted(read) == list(range(18))
    whole = hr_cache.build_hr_store(source, Geometry())
    assert whole.decoded == 0 and len(whole) == 18 and whole.decode_seconds > 0


def test_only_the_first_process_tries_again_what_could_not_be_reached(tmp_path, own_folders, monkeypatch):
    source = open_source(f"images:{make_images(tmp_path / 'photos', 70, side=SIDE)}")
    real = type(source).read_stored

    def unreachable(self, index):
        if index == 3:
            raise OSError(errno.EIO, "no answer")
        return real(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(type(source), "read_stored", unreachable)
        hr_cache.fill_hr_cache(source, Geometry(), share=(0, 1))
    other = hr_cache.build_hr_store(source, Geometry(), retry=False)
    assert (other.decoded, len(other), len(other.unreadable)) == (0, 209, 1)
    first = hr_cache.build_hr_store(source, Geometry())
    assert (first.decoded, len(first), first.unreadable) == (210, 210, ())


# --- two processes -------------------------------------------------------------------------------------------------

SCRIPT = """
    import dataclasses, json, sys
    import torch.distributed as dist
    from srbench import evaluate
    from srbench.data import hr_cache
    from srbench.evaluation import options

    hr_cache._CHUNK = 8  # so that each process has files of its own to decode
    options.CHUNK = 8
    filled = json.loads(sys.argv[1])
    found = []
    for methods in (["bicubic"], ["bicubic", "area"]):  # the second evaluation must not read what the first left over
        result = evaluate(methods, **filled)
        assert not dist.is_initialized()
        found.append(dataclasses.asdict(result.counters) | {"rank": result.rank, "cells": len(result.cells)})
    print(json.dumps(found))
"""


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path, own_folders, monkeypatch):
    environment(monkeypatch)
    make_images(tmp_path / "photos", PER_CLASS, side=SIDE)
    card = make_classifier(tmp_path / "card", side=SIDE)
    (tmp_path / "half.toml").write_text("[lr]\nscale = 0.5\n")
    filled = {
        "data": f"folder:{tmp_path / 'photos'}",
        "classifiers": [str(card)],
        "protocol": str(tmp_path / "half.toml"),
        "measure": False,
        "progress": False,
        "device": "cpu",
        "input_sizes": [SIDE - 4],
    }
    monkeypatch.setattr(options, "CHUNK", 8)  # as in the script: a batch's size decides how its logits are rounded
    alone = evaluate(["bicubic", "area"], **filled, out=tmp_path / "alone")
    words = [sys.executable, "-c", textwrap.dedent(SCRIPT), json.dumps(filled | {"out": str(tmp_path / "two")})]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    shared["SRBENCH_CACHE"] = str(tmp_path / "cache of two")
    processes = [
        subprocess.Popen(words, env=os.environ | shared | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    n = 3 * PER_CLASS
    for rank, output in enumerate(outputs):
        first, second = json.loads(output)
        assert first["rank"] == second["rank"] == rank and (first["cells"], second["cells"]) == (12, 14)
        # both tell what both have done together: everything, once
        assert (first["decoded"], first["hr_read"], first["degraded"]) == (n, n, n)
        assert first["hr_classified"] == {"dummy": n}
        assert first["restored"] == {"bilinear": 2 * n, "none": n, "bicubic": 2 * n}
        assert second["restored"] == {"area": 2 * n} and (second["decoded"], second["hr_classified"]) == (0, {})
    cells, problems = find_records([tmp_path / "two"])
    assert problems == []
    of_two = {cell.record.cell: cell for cell in cells if cell.record.status == "ok"}
    of_one = {cell.record.cell: cell for cell in alone.cells if cell.record.status == "ok"}
    assert of_two.keys() == of_one.keys()
    for key, cell in of_one.items():
        pd.testing.assert_frame_equal(of_two[key].samples(), cell.samples(), rtol=1e-5, atol=1e-6)
        assert of_two[key].thumbnails().keys() == cell.thumbnails().keys()
    assert len({cell.record.dataset.decode_s for cell in of_two.values()}) == 1
    assert not list((tmp_path / "two").rglob("*.tmp")) and not list((tmp_path / "two").rglob(".partial"))


WAITERS = """
    import datetime, os, sys, time
    import torch.distributed as dist
    from srbench.errors import SrbenchError
    from srbench.evaluation import distributed

    rank, what = int(os.environ["RANK"]), sys.argv[1]
    distributed.MEETING_TIME = datetime.timedelta(seconds=2)
    if what == "dies" and rank == 1:
        dist.new_group = lambda **options: os._exit(9)  # it has met the others, and joins no group
    try:
        with distributed.joined("cpu") as (_, ranks):
            if rank == 0:
                time.sleep(3)  # it decodes, or times methods
            ranks.wait()
            print(ranks.gather(rank))
    except SrbenchError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "outputs"),
    [("works", ["[0, 1]", "[0, 1]"]), ("dies", ["process 0 of 2 goes no further, because another one was", ""])],
)
def test_processes_wait_for_one_at_work_and_not_for_one_that_is_gone(monkeypatch, what, outputs):
    """A process may work for longer than the time for meeting; whoever ends before it has joined is not waited for."""
    environment(monkeypatch)
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", textwrap.dedent(WAITERS), what]
    processes = [
        subprocess.Popen(words, env=os.environ | shared | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        for process, output in zip(processes, outputs, strict=True):
            assert process.communicate(timeout=120)[0].startswith(output)
    finally:
        for process in processes:
            process.kill()


def test_a_process_that_others_leave_says_so_in_a_sentence(monkeypatch):
    def closed(*given, **options):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:11186")

    monkeypatch.setattr(dist, "barrier", closed)
    monkeypatch.setattr(dist, "all_gather_object", closed)
    ranks = Ranks(1, 2)
    for call in (ranks.wait, lambda: ranks.gather(1)):
        with pytest.raises(SrbenchError, match="process 1 of 2 goes no further, because another one was stopped"):
            call()
