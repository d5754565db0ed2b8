"""What every test shares: folders of its own, one thread a worker, and the reasons for which tests are skipped."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

REAL = Path(os.environ.get("SRBENCH_REAL") or Path(__file__).resolve().parents[2] / "shared" / "real")
FOLDERS = {"SRBENCH_CACHE": "cache", "SRBENCH_DATA": "data", "SRBENCH_WEIGHTS": "weights"}
VARIABLES_OF_RUNS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "COLUMNS")

# The tensors of the tests are small: more threads only wait for each other, most of all under xdist.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    reasons = {}
    if not REAL.is_dir():
        reasons["real"] = "there is no folder ../shared/real beside the checkout, nor one named by $SRBENCH_REAL"
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            reasons["gpu"] = "torch sees no CUDA device here"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def user_folders(tmp_path_factory):
    """Keep every test away from the caches, data and weights of whoever runs them."""
    root = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        for variable, folder in FOLDERS.items():
            patch.setenv(variable, str(root / folder))
        for variable in VARIABLES_OF_RUNS:
            patch.delenv(variable, raising=False)
        yield root


@pytest.fixture
def own_folders(tmp_path, monkeypatch):
    """Give one test a cache, data and weights that no other test has written to."""
    for variable, folder in FOLDERS.items():
        monkeypatch.setenv(variable, str(tmp_path / "user" / folder))
    return tmp_path / "user"


@pytest.fixture(scope="module")
def nursery(world):
    """A process that has imported everything and forks runs; the module of the test makes the world they run in."""
    from nursery import Nursery

    nursery = Nursery(world)
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def images(request, tmp_path_factory) -> Path:
    """`PER_CLASS` images of `SIDE` pixels of each class of `dummies`; the module of the test says how many."""
    from dummies import make_images

    folder = tmp_path_factory.mktemp("data") / "photos"
    return make_images(folder, request.module.PER_CLASS, side=request.module.SIDE)


@pytest.fixture(scope="module")
def card(request, tmp_path_factory) -> Path:
    """The card of a classifier that knows `images`."""
    from dummies import make_classifier

    return make_classifier(tmp_path_factory.mktemp("card"), side=request.module.SIDE)


@pytest.fixture
def few_draws(own_folders, monkeypatch):
    """Few bootstrap draws: the statistics have tests of their own."""
    from srbench import leaderboard

    monkeypatch.setattr(leaderboard, "build", partial(leaderboard.build, draws=20))


@pytest.fixture
def short_shards(monkeypatch):
    """Several shards a cell."""
    monkeypatch.setattr("srbench.evaluation.options.CHUNK", 32)


@pytest.fixture
def workplace(few_draws, monkeypatch, tmp_path) -> Path:
    """A working directory with a protocol `half.toml`, and measurements that are quick instead of exact."""
    monkeypatch.setattr("srbench.evaluation.costs.BUDGET_S", 0.001)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.toml").write_text("[lr]\nscale = 0.5\n")
    return tmp_path


@pytest.fixture(scope="session")
def real():
    """The folder of real photographs and weights; for tests marked `real`."""
    return REAL
