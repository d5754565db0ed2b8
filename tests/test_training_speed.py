"""How fast a training run says that it was, and how long it says that it waited for data."""

from __future__ import annotations

import pandas as pd
import pytest
import training_world as world

from srbench.training import loop
from srbench.training.api import train
from srbench.training.result import TrainingResult


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with world.own_place(tmp_path_factory) as root:
        yield root


def trained(place, out, epochs=2) -> TrainingResult:
    return train(
        "tiny_method",
        data=[f"folder:{place / 'photos'}"],
        classifier="tiny",
        protocol=str(place / "half.toml"),
        plugins=[place / "tiny_method.py"],
        epochs=epochs,
        out=out,
        device="cpu",
        progress=False,
    )


class Clock:
    """Seconds that pass only where the test lets them."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_waiting_is_what_the_loop_spends_before_a_batch_is_there(place, tmp_path, monkeypatch):
    clock = Clock()
    read, step_helpers = loop.Loop._read, loop.Loop._step_helpers

    def slow_read(self, *args):
        for batch in read(self, *args):
            clock.now += 3.0
            yield batch

    def slow_step(self, *args, **options):
        clock.now += 1.0
        step_helpers(self, *args, **options)

    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(loop.Loop, "_read", slow_read)
    monkeypatch.setattr(loop.Loop, "_step_helpers", slow_step)
    result = trained(place, tmp_path / "slow")
    assert result.history["wait_share"].tolist()[1:] == pytest.approx([0.75, 0.75])
    assert result.history["images_per_s"].tolist()[1:] == pytest.approx(
        [result.images / 2 / (4 * result.steps / 2)] * 2
    )
    assert "75% of it waiting for data" in result.summary()


def test_curves_and_history_have_rate_and_share_of_every_epoch(place, tmp_path):
    result = trained(place, tmp_path / "run")
    rows = result.history.iloc[1:]
    assert ((rows["wait_share"] >= 0) & (rows["wait_share"] <= 1)).all() and (rows["images_per_s"] > 0).all()
    curves = pd.read_csv(tmp_path / "run" / "curves.csv")
    assert curves["wait_share"].iloc[1:].tolist() == pytest.approx(rows["wait_share"].tolist())
    assert (rows["images_per_s"] * rows["seconds"]).sum() == pytest.approx(result.images, rel=1e-6)
    assert result.images_per_s == pytest.approx(result.images / rows["seconds"].sum())


def result_of(history: pd.DataFrame, images: int) -> TrainingResult:
    fields = dict.fromkeys(("weights", "epoch", "metrics", "criterion", "out", "steps", "seconds", "network"))
    return TrainingResult(history=history, images=images, **fields)


def test_epochs_count_by_how_long_they_took():
    history = pd.DataFrame(
        [{"epoch": 0}, {"epoch": 1, "seconds": 3.0, "wait_share": 0.5}, {"epoch": 2, "seconds": 1.0, "wait_share": 0.1}]
    )
    result = result_of(history, 400)
    assert result.images_per_s == pytest.approx(100.0) and result.wait_share == pytest.approx(1.6 / 4)


def test_a_run_without_training_has_no_rate():
    result = result_of(pd.DataFrame([{"epoch": 0}]), 0)
    assert result.images_per_s == result.wait_share == 0.0
