"""Masks and boxes through two processes and through kill -9, in evaluation and in training."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import training_world as world

from srbench import evaluate
from srbench.evaluation import options
from srbench.records.cells import find_records
from srbench.training.api import train
from srbench.training.checkpoint import read
from srbench.training.result import TrainingResult
from srbench.weights.files import read_state

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

IMAGES, CHUNK = 24, 8  # so that a run has several shards, and each of two processes some of them
SCRIPT = """
    import functools, json, sys
    from srbench import evaluate, leaderboard
    from srbench.data import hr_cache
    from srbench.evaluation import options

    leaderboard.build = functools.partial(leaderboard.build, draws=20)  # the statistics have tests of their own
    hr_cache._CHUNK = options.CHUNK = 8
    evaluate(["bicubic", "area"], **json.loads(sys.argv[1]))
"""


@pytest.fixture(params=["demo-seg", "demo-det"])
def filled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an evaluation of some scenes is called with, behind the network that ships for them."""
    if request.param == "demo-seg":
        pytest.importorskip("segmentation_models_pytorch")
    monkeypatch.setattr(options, "CHUNK", CHUNK)
    return {
        "data": request.param,
        "classifiers": [request.param],
        "limit": IMAGES,
        "measure": False,
        "progress": False,
        "device": "cpu",
    }


def samples(out: Path) -> dict[str, pd.DataFrame]:
    cells, problems = find_records([out])
    assert problems == []
    return {cell.record.cell.method: cell.samples() for cell in cells if cell.record.status == "ok"}


def started(filled: dict[str, Any], out: Path, cache: Path, **variables: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", textwrap.dedent(SCRIPT), json.dumps(filled | {"out": str(out)})]
    return subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1", "SRBENCH_CACHE": str(cache)} | variables)


def same(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame], **how: Any) -> None:
    assert found.keys() == expected.keys() >= {"original", "none", "bilinear", "bicubic", "area"}
    for method, frame in expected.items():
        assert len(frame) == IMAGES
        for name in frame:
            ours, theirs = found[method][name], frame[name]
            if name.startswith("box_") or name == "confusion":
                assert [list(each) for each in ours] == [pytest.approx(list(each), rel=1e-4) for each in theirs], name
            else:
                pd.testing.assert_series_equal(ours, theirs, **how)


def test_a_run_that_is_killed_goes_on_to_the_same_samples(
    filled: dict[str, Any], tmp_path: Path, own_folders: Path, few_draws: None
) -> None:
    out = tmp_path / "killed"
    process = started(filled, out, own_folders / "cache")
    try:
        while process.poll() is None and not list(out.rglob("rows-*.parquet")):
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.kill()
        process.wait()
    assert len(list(out.rglob("record.json"))) < 5, "it had ended"
    evaluate(["bicubic", "area"], **filled, out=out)
    evaluate(["bicubic", "area"], **filled, out=tmp_path / "whole")
    same(samples(out), samples(tmp_path / "whole"), check_exact=True)
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp") or path.name == ".partial"]


def test_two_processes_find_what_one_finds(
    filled: dict[str, Any], tmp_path: Path, own_folders: Path, few_draws: None
) -> None:
    evaluate(["bicubic", "area"], **filled, out=tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        started(filled, tmp_path / "two", tmp_path / "cache of two", RANK=str(rank), **meeting) for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=400) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    same(samples(tmp_path / "two"), samples(tmp_path / "one"), rtol=1e-5, atol=1e-6)


# --- training

RECIPE = ["parameters.blocks=1", "parameters.features=8", "warmup_steps=0", "schedule=constant", "select=none"]
TRAIN = """
import json, sys
import torch
torch.set_num_threads(1)
from srbench.training.api import train
train("darionet", **json.loads(sys.argv[1]))
"""


@pytest.fixture(params=["demo-seg", "demo-det"])
def taught(request: pytest.FixtureRequest, own_folders: Path) -> dict[str, Any]:
    """What a training before the network of some scenes is called with: 8 steps of 2 of them."""
    if request.param == "demo-seg":
        pytest.importorskip("segmentation_models_pytorch")
    return {
        "data": [request.param],
        "classifier": [request.param],
        "recipe": "cpu-small",
        "epochs": 4,
        "limit": 4,
        "device": "cpu",
        "progress": False,
    }


def run(taught: dict[str, Any], out: Path, *overrides: str, **options: Any) -> TrainingResult:
    return train("darionet", **taught | options | {"overrides": [*RECIPE, *overrides], "out": str(out)})


def assert_equal(found: TrainingResult, expected: TrainingResult) -> None:
    ours, theirs = found.network.state_dict(), expected.network.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    clocks = ["seconds", "images_per_s", "wait_share"]
    pd.testing.assert_frame_equal(found.history.drop(columns=clocks), expected.history.drop(columns=clocks))


def test_a_training_that_is_killed_goes_on_to_the_same_weights(taught: dict[str, Any], tmp_path: Path) -> None:
    steps = ["batch_size=2", "steps_per_epoch=2", "checkpoint_every=1"]
    options = taught | {"overrides": [*RECIPE, *steps], "out": str(tmp_path / "killed")}
    process = subprocess.Popen([sys.executable, "-c", TRAIN, json.dumps(options)])
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    try:
        seen = set()
        while process.poll() is None and len(seen) < 3:  # the first is that of the start
            if checkpoint.exists():
                seen.add(checkpoint.stat().st_mtime_ns)
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.kill()
        process.wait()
    assert 0 < read(checkpoint)["steps"] < 8, "it was killed between its steps"
    assert_equal(run(taught, tmp_path / "killed", *steps, resume=True), run(taught, tmp_path / "whole", *steps))


def test_two_ranks_train_as_one_process_with_twice_the_batch(taught: dict[str, Any], tmp_path: Path) -> None:
    steps = ["steps_per_epoch=2", "optimizer=sgd", "lr=0.001", "clip_norm=1", "store_fp16=false", "augment.flip=false"]
    options = taught | {"overrides": [*RECIPE, *steps, "batch_size=1"], "out": str(tmp_path / "two")}
    world.run_two_ranks(tmp_path / "ranks.py", TRAIN, options, timeout=400)
    alone = run(taught, tmp_path / "one", *steps, "batch_size=2")
    together = read_state(next((tmp_path / "two" / "weights").glob("*.safetensors")))
    for name, value in alone.network.state_dict().items():
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=1e-5)
