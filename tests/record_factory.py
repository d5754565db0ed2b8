"""Synthetic records whose statistics are known, and the command that made the committed fixture.

    python tests/record_factory.py tests/fixtures/records-v2

writes the records of schema version 2 and the golden leaderboard beside them. The records of a schema version are kept
for good; only the golden leaderboard may be made again, when its columns change.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from srbench import leaderboard
from srbench.compute.numerics import Numerics
from srbench.files.atomic import write_json, write_text
from srbench.leaderboard import tables
from srbench.records.cells import StoredCell, cell_folder, commit_cell, find_records
from srbench.records.samples import samples_frame
from srbench.records.schema import (
    SCHEMA_VERSION,
    CellKey,
    ClassifierPart,
    ClassPart,
    CodeState,
    DatasetPart,
    Environment,
    MethodPart,
    Metric,
    ProtocolPart,
    Record,
    Spread,
    TimingPart,
    WeightsPart,
    hash_inputs,
)

FIELDS: Mapping[str, Mapping[str, Any]] = {
    "lr": {"scale": 0.32, "kernel": "bicubic"},
    "score": {"psnr_reduction": "image", "psnr_batch": 60},
}


def make_record(
    method: str,
    *,
    task: str = "photos-0.32",
    classifier: str | None = "net",
    role: str = "baseline",
    weights: str | None = None,
    track: str = "frozen",
    n: int = 60,
    fields: Mapping[str, Mapping[str, Any]] = FIELDS,
    metrics: Mapping[str, Metric] | None = None,
    names: Sequence[str] = ("ant", "bee", "cat", "dog"),
    **changes: Any,
) -> Record:
    """Return the record of a cell; `changes` replace whole parts."""
    record = Record(
        schema_version=SCHEMA_VERSION,
        cell=CellKey(task, method, weights, classifier, track),  # type: ignore[arg-type]
        status="ok",
        reason=None,
        partial=False,
        input_hash=f"{method}-{weights}".encode().hex().ljust(64, "0")[:64],
        protocol=ProtocolPart("clean", hash_inputs(fields), {part: dict(values) for part, values in fields.items()}),
        code=CodeState("0.1.0", "0" * 40, False),
        environment=Environment("3.12.0", "2.6.0", "0.21.0", "1.0.15", "cpu (synthetic)", None, 2, "Linux"),
        numerics=Numerics("cpu"),
        method=MethodPart(
            method,
            role,  # type: ignore[arg-type]
            "synthetic",
            "1",
            "any",
            {},
            None if weights is None else WeightsPart(weights, f"{weights}.safetensors", "a" * 64, {"licence": "MIT"}),
            None if weights is None else 5_906_627,
            None if weights is None else 1.5e9,
            "",
        ),
        classifier=None
        if classifier is None
        else ClassifierPart(
            classifier,
            "timm",
            classifier,
            "e" * 64,
            None,
            (0.5, 0.5, 0.5),
            (0.5, 0.5, 0.5),
            len(names),
            track,  # type: ignore[arg-type]
        ),
        dataset=DatasetPart("photos", "folder:photos", "all", "image", "", "5" * 64, n, 0, (), 0, tuple(names)),
        metrics=dict(metrics or {}),
        per_class=None
        if classifier is None
        else tuple(ClassPart(i, name, n // len(names), 0.0, 0.0, 0.0) for i, name in enumerate(names)),
        score_histograms=None,
        timing=TimingPart(1.0, 1.25, latency_ms=Spread(4.0, 3.5, 5.0), throughput=Spread(300.0, 280.0, 310.0)),
        training=None,
        created="2026-01-02T03:04:05Z",
    )
    return dataclasses.replace(record, **changes)


def make_samples(
    labels: np.ndarray | None,
    preds: np.ndarray | None,
    *,
    hr_preds: np.ndarray | None = None,
    mse: np.ndarray | None = None,
    seed: int = 0,
    ids: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return samples with the given predictions; the other values are random but fixed by `seed`."""
    given = next(each for each in (labels, mse) if each is not None)
    n = len(given)
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {"position": np.arange(n), "sample_id": list(ids or (f"s{i:05d}" for i in range(n)))}
    if mse is not None:
        with np.errstate(divide="ignore"):
            columns |= {"mse": mse, "psnr": -10 * np.log10(mse), "ssim": 1 - 8 * mse}
    if labels is not None and preds is not None:
        right = preds == labels
        columns |= {
            "label": labels,
            "pred": preds,
            "hr_pred": preds if hr_preds is None else hr_preds,
            "confidence": random.uniform(0.4, 1.0, n),
            "top5_hit": right | (random.random(n) < 0.5),
            "cross_entropy": np.where(right, 0.3, 2.0) + random.uniform(0, 0.2, n),
            "logit_mse_to_hr": random.uniform(0, 1, n),
            "kl_to_hr": random.uniform(0, 0.5, n),
        }
    return samples_frame(columns)


def predictions(labels: np.ndarray, accuracy: float, *, seed: int, classes: int = 4) -> np.ndarray:
    """Return predictions of exactly this accuracy: the same samples are hard for every method of one seed."""
    random = np.random.default_rng(1000)
    hardness = random.random(len(labels)) + 0.3 * np.random.default_rng(seed).random(len(labels))
    wrong = np.argsort(hardness)[round(accuracy * len(labels)) :]
    preds = labels.copy()
    preds[wrong] = (labels[wrong] + 1 + np.random.default_rng(seed).integers(0, classes - 1, len(wrong))) % classes
    return preds


def commit(root: Path, record: Record, samples: pd.DataFrame | None) -> StoredCell:
    """Store a cell where an evaluation would."""
    key = record.cell
    folder = cell_folder(root, key.task, key.classifier, key.method, key.weights, key.input_size)
    return commit_cell(folder, record, samples)


def write_board(root: Path) -> None:
    """Write records of two tasks with every kind of row: oracle, control, network, adapted, skipped, error."""
    labels = np.arange(60) % 4
    hr = predictions(labels, 0.9, seed=0)
    small = "the output stays at LR size"
    levels: list[tuple[str, float, float, dict[str, Any]]] = [
        ("original", 0.9, 0.0, {"role": "control"}),
        ("none", 0.25, 0.02, {"role": "control", "metrics": {
            "psnr": Metric(None, 0, 0, small), "ssim": Metric(None, 0, 0, small)}}),
        ("bilinear", 0.45, 0.004, {}),
        ("bicubic", 0.5, 0.003, {}),
        ("esrgan", 0.75, 0.006, {"role": "network", "weights": "demo-x4"}),
        ("learned_resizer", 0.8, 0.01, {"role": "network", "weights": "demo-adapted", "track": "adapted"}),
        ("retrained", 0.7, 0.004, {"role": "control", "weights": "demo", "track": "adapted"}),
    ]  # fmt: skip
    for seed, (method, accuracy, mse, options) in enumerate(levels):
        errors = None if method == "none" else mse * np.random.default_rng(seed).uniform(0.5, 1.5, 60)
        preds = predictions(labels, accuracy, seed=seed)
        commit(root, make_record(method, **options), make_samples(labels, preds, hr_preds=hr, mse=errors, seed=seed))
    nothing: dict[str, Any] = {"timing": TimingPart(), "per_class": None}
    commit(root, make_record("lanczos", status="skipped", reason="it is not for this task", **nothing), None)
    commit(root, make_record("darionet", role="network", status="error", reason="out of memory", **nothing), None)
    for seed, (method, mse) in enumerate([("original", 0.0), ("bilinear", 0.004), ("bicubic", 0.002)]):
        dataset = DatasetPart("set5", "images:set5", "all", "image", "", "6" * 64, 5, 1, ("torn.png",), 0, None)
        record = make_record(method, task="set5-x4", classifier=None, n=5, dataset=dataset)
        errors = mse * np.random.default_rng(seed).uniform(0.5, 1.5, 5)
        commit(root, record, make_samples(None, None, mse=errors, seed=seed))


def main() -> None:
    """Write the fixture."""
    root = Path(sys.argv[1])
    if not (root / "records").exists():
        write_board(root)
    cells, _ = find_records([root])
    board = leaderboard.build(cells, draws=500, seed=0)
    write_json(root / "golden.json", board.to_json())
    write_text(root / "golden.md", tables.markdown(board))


if __name__ == "__main__":
    main()
