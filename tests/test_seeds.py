"""Weights that differ in the seed alone are one row, whose intervals resample seeds and images."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_factory import commit, make_record, make_samples, predictions

from srbench import leaderboard, report
from srbench.leaderboard import Leaderboard, Row, read_leaderboard, tables
from srbench.records.cells import find_records
from srbench.records.schema import WeightsPart
from srbench.weights import Card, lineage

N = 200
LABELS = np.arange(N) % 4


def card(seed: int, **changes: Any) -> dict[str, Any]:
    made = Card(
        "darionet",
        f"ten-s{seed}",
        teacher={"id": "net", "sha256": "e" * 64},
        recipe={"epochs": 3, "lr": 0.001},
        data={"train": [{"spec": "demo:train", "samples_sha256": "7" * 64}]},
        command=f"srbench train darionet --seed {seed} --name ten-s{seed}",
        date=f"2026-01-0{seed + 1}",
        metrics={"accuracy": 0.1 * seed},
        extra={"seed": seed, "protocol": {"name": "clean", "fingerprint": "9" * 64}, "init": None},
    )
    return dataclasses.replace(made, **changes).to_json()


def put(
    root: Path,
    method: str,
    accuracy: float,
    *,
    seed: int = 0,
    weights: str | None = None,
    card: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    record = make_record(method, weights=weights, n=N, **options)
    if card is not None:
        part = WeightsPart(weights or "", f"{weights}.safetensors", "a" * 64, card)
        record = dataclasses.replace(record, method=dataclasses.replace(record.method, weights=part))
    mse = 0.004 * np.random.default_rng(seed).uniform(0.5, 1.5, N)
    commit(root, record, make_samples(LABELS, predictions(LABELS, accuracy, seed=seed), mse=mse, seed=seed))


def three_seeds(root: Path, accuracies: tuple[float, ...] = (0.6, 0.7, 0.8), **options: Any) -> None:
    for seed, accuracy in enumerate(accuracies):
        put(root, "darionet", accuracy, seed=seed, weights=f"ten-s{seed}", card=card(seed), role="network", **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path, "original", 0.9, role="control")
    put(tmp_path, "bilinear", 0.5, seed=5)
    three_seeds(tmp_path)
    return tmp_path


def built(root: Path, **options: Any) -> Leaderboard:
    return leaderboard.build(find_records([root])[0], **{"draws": 800, **options})


def only(board: Leaderboard, method: str) -> Row:
    (row,) = (row for row in board.rows if row.method == method)
    return row


def test_three_seeds_are_one_row_that_keeps_each(folder):
    board = built(folder)
    row = only(board, "darionet")
    assert row.label == "darionet (ten x 3)" and row.rank == 1 and row.representative == "ten-s1"
    assert row["accuracy"] == pytest.approx(0.7) and row["accuracy_delta"] == pytest.approx(0.2)
    assert row["recovered_gap"] == pytest.approx(0.5) and row["seed_sd"] == pytest.approx(0.1)
    assert row["fixed"] is not None and row["broken"] is not None
    assert row["fixed"] - row["broken"] == pytest.approx(N * 0.2) and row["parameters"] == 5_906_627
    assert [(seed.weights, seed.seed, seed.values["accuracy"]) for seed in row.seeds] == [
        ("ten-s0", 0, 0.6), ("ten-s1", 1, 0.7), ("ten-s2", 2, 0.8)]  # fmt: skip
    tables.write(board, folder)
    entry = next(e for e in json.loads((folder / "leaderboard.json").read_text())["rows"] if e["method"] == "darionet")
    assert [seed["values"]["accuracy"] for seed in entry["seeds"]] == [0.6, 0.7, 0.8]
    assert only(read_leaderboard(folder / "leaderboard.json"), "darionet").seeds == row.seeds
    text = tables.markdown(board)
    assert "darionet (ten x 3)" in text and "0.6000 (ten-s0, seed 0), 0.7000 (ten-s1, seed 1)" in text
    # the records and the tables of classes keep every training
    assert len(list(folder.rglob("record.json"))) == 5
    assert set(board.per_class["weights"].dropna()) == {"ten-s0", "ten-s1", "ten-s2"}


def test_the_interval_holds_the_spread_of_the_seeds(folder, tmp_path_factory):
    wide = only(built(folder), "darionet")
    equal = tmp_path_factory.mktemp("equal")
    put(equal, "bilinear", 0.5, seed=5)
    three_seeds(equal, (0.7, 0.7, 0.7))
    narrow = only(built(equal), "darionet")
    # over images alone a mean of 200 has a standard deviation near 0.03; three seeds 0.1 apart add 0.1 / sqrt(3)
    spread = [(row.ci["accuracy"][1] - row.ci["accuracy"][0]) / 3.92 for row in (narrow, wide)]
    assert 0.02 < spread[0] < 0.04
    assert spread[1] == pytest.approx(np.hypot(0.03, 0.1 / np.sqrt(3)), rel=0.2)
    assert wide.ci["accuracy"][0] < 0.7 < wide.ci["accuracy"][1] and "recovered_gap" in wide.ci
    assert 0 < (wide["p_holm"] or 0) < 0.02 and (narrow["p_holm"] or 0) < 0.01


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {"epochs": 4, "lr": 0.001}},
        {"teacher": {"id": "net", "sha256": "f" * 64}},
        {"data": {"train": []}},
        {"extra": {"seed": 2, "protocol": {"name": "clean", "fingerprint": "9" * 64}, "init": "1" * 64}},
    ],
)
def test_what_differs_in_more_than_the_seed_stays_alone(tmp_path, changes):
    put(tmp_path, "bilinear", 0.5)
    three_seeds(tmp_path, (0.6, 0.7))
    put(tmp_path, "darionet", 0.8, weights="other", card=card(2, **changes), role="network")
    labels = {row.label for row in built(tmp_path).rows}
    assert labels == {"bilinear", "darionet (ten x 2)", "darionet (other)"}


def test_two_weights_of_one_seed_leave_every_row_alone(tmp_path):
    put(tmp_path, "bilinear", 0.5)
    three_seeds(tmp_path, (0.6, 0.7))
    put(tmp_path, "darionet", 0.8, weights="again", card=card(1), role="network")
    assert [row.seeds for row in built(tmp_path).rows] == [()] * 4


def test_controls_and_older_cards_are_joined_too(tmp_path):
    put(tmp_path, "bilinear", 0.5)
    for seed in range(2):
        extra = {"seed": seed, "protocol": {"name": "clean", "fingerprint": "9" * 64}}
        older = card(seed, extra=extra, command=f"srbench train retrained --init-from start --seed {seed}")
        put(tmp_path, "retrained", 0.6, seed=seed, weights=f"s{seed}", card=older, role="control", track="adapted")
    row = only(built(tmp_path), "retrained")
    assert len(row.seeds) == 2 and row.rank is None and row["p_holm"] is None and row["seed_sd"] == 0.0


def test_a_start_that_differs_in_its_seed_alone_is_the_same_start():
    first, second = (card(seed) for seed in (0, 1))
    assert lineage(first) == lineage(second)
    onward = [card(seed, extra={"seed": seed, "init": lineage(one)}) for seed, one in enumerate((first, second))]
    assert lineage(onward[0]) == lineage(onward[1]) != lineage(first)
    by_command = [
        card(0, extra={"seed": 0}, command=f"srbench train x --init-from{text}") for text in (" a", "=a", " b")
    ]
    hashes = [lineage(each) for each in by_command]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_report_shows_the_row_and_the_samples_of_its_median_seed(folder):
    put(folder, "bicubic", 0.69, seed=1)
    paths = report.write_report([folder], progress=False)
    text = paths[0].read_text(encoding="utf-8")
    assert "ten x 3" in text and "darionet" in text
    cost = json.loads(
        next(path for path in paths if path.name.startswith("cost-latency") and path.suffix == ".json").read_text()
    )
    point = next(each for each in cost["points"] if each["method"] == "darionet")
    assert point["weights"] == "ten x 3" and point["y"] == pytest.approx(0.7)
    assert "are tied in accuracy" in text
