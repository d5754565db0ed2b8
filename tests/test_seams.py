"""A metric and a task type are one file each: what a new one needs, and where it then appears by itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from record_factory import commit, make_record
from torch import Tensor

import srbench
from srbench import leaderboard, task_types
from srbench.errors import UnknownNameError, UsageError
from srbench.leaderboard import tables
from srbench.leaderboard.compare import compare, parse_rule
from srbench.metrics import catalogue
from srbench.metrics.info import MetricInfo, SampleColumn
from srbench.metrics.stats import LEVEL
from srbench.protocol import parse_protocol
from srbench.records.cells import find_records
from srbench.records.samples import samples_frame
from srbench.report import write_report
from srbench.task_types import BatchResult, CellSamples, Comparison, OutputMap, PairedCells, TaskType, put_interval

MAE = MetricInfo(
    "mae",
    header="MAE",
    word="mean absolute error",
    higher_is_better=False,
    group="image",
    columns=(SampleColumn("mae", of_pair=lambda pair: (pair.sr - pair.hr).abs().mean(dim=(1, 2, 3))),),
    interval="mean",
    test="paired",
    headline=True,
    absence="always",
)


@pytest.fixture(autouse=True)
def _own_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_catalogue", dict(catalogue._catalogue))
    monkeypatch.setattr(catalogue, "_further_columns", dict(catalogue._further_columns))


def test_an_image_metric_is_one_row(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    pictures = random.integers(0, 256, (4, 24, 24, 3), dtype=np.uint8)
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    catalogue.register([MAE])
    result = srbench.evaluate(
        ["nearest", "bilinear"],
        data=f"images:{tmp_path / 'photos'}",
        protocol=parse_protocol("[hr]\nresize = 24\ncrop = 24\n[lr]\nscale = 0.5\n", name="s", origin="test"),
        out=tmp_path / "out",
        measure=False,
        progress=False,
    )
    cells = {cell.record.cell.method: cell for cell in find_records([tmp_path / "out"])[0]}
    rows = {row.method: row for row in result.board.rows if row.status == "ok"}
    stored = cells["bilinear"].samples(["mae", "mse"])
    assert (stored["mae"] > 0).all() and (stored["mae"] ** 2 <= stored["mse"] + 1e-7).all()
    assert rows["bilinear"]["mae"] == pytest.approx(stored["mae"].mean(), rel=1e-6)
    assert cells["bilinear"].record.metrics["mae"].value == rows["bilinear"]["mae"]
    assert rows["original"]["mae"] == 0
    low, high = rows["bilinear"].ci["mae"]
    assert low < rows["bilinear"]["mae"] < high
    entry = json.loads((tmp_path / "out" / "leaderboard.json").read_text())["rows"][0]
    assert entry["mae"] == 0 and entry["ci"]["mae"] == [0, 0]
    assert {"mae", "mae_low", "mae_high"} <= set(pd.read_csv(tmp_path / "out" / "leaderboard.csv"))
    assert " MAE |" in tables.markdown(result.board)
    assert "mae" in compare(result.board, result.board).metrics
    worse = parse_rule("mae +0.001")
    assert compare(result.board, result.board, [worse]).fired == ()
    page = write_report([tmp_path / "out"])[0].read_text(encoding="utf-8")
    assert "MAE" in page


def test_samples_of_before_a_metric_lack_its_value_and_are_read(tmp_path: Path) -> None:
    frame = samples_frame({"position": [0, 1], "sample_id": ["a", "b"], "mse": [0.1, 0.2], "psnr": [10.0, 7.0]})
    commit(tmp_path, make_record("bilinear", classifier=None, n=2), frame)
    catalogue.register([MAE])
    (row,) = leaderboard.build(find_records([tmp_path])[0], draws=10).rows
    assert row["mae"] is None and row["psnr"] == pytest.approx(8.5)
    assert row.notes["mae"] == "the record is older than this metric"


def test_names_are_taken_once_and_unknown_ones_are_told() -> None:
    catalogue.register([MAE])
    catalogue.register([MAE])
    with pytest.raises(UsageError, match="two metrics are called 'psnr'"):
        catalogue.register([MetricInfo("psnr", "x", "x", True, "image")])
    with pytest.raises(UnknownNameError, match="did you mean accuracy"):
        catalogue.metric("acuracy")


def brightness_type() -> type[TaskType]:
    """Return what a module of `srbench/task_types` would hold: how bright is the image, from 0 to 1?"""

    class Brightness(TaskType):
        name = "brightness"
        question = "how bright is it?"
        loss_term = "brightness"
        criterion = "brightness_error"
        metrics: ClassVar[tuple[MetricInfo, ...]] = (
            MetricInfo(
                "brightness_error",
                header="brightness\nerror",
                word="error of the brightness",
                higher_is_better=False,
                group="network",
                task_types=("brightness",),
                columns=(SampleColumn("brightness"), SampleColumn("brightness_error")),
                priority=1,
                interval="mean",
                interval_shown="beside",
                test="paired",
                headline=True,
                absence="elsewhere",
            ),
            MetricInfo(
                "brightness_gain",
                header="error under\nbilinear's",
                word="gain in brightness",
                higher_is_better=True,
                group="network",
                task_types=("brightness",),
                columns=(SampleColumn("brightness_error"),),
                compared=True,
                style="signed",
                interval="difference",
                interval_shown="within",
            ),
        )
        compared = ("brightness",)
        ranks = ("brightness_gain",)
        shown = ("rank", "method", "brightness_error", "brightness_gain")

        def classes_of(self, sources: Any) -> tuple[str, ...]:
            return ("brightness",)

        def map_outputs(self, info: Any, source: Any, *, present: bool = False) -> OutputMap:
            return OutputMap(1)

        def targets(self, samples: Any, answers: OutputMap) -> NDArray[Any]:
            return np.array([sample.ratings[0] for sample in samples], dtype=np.float32)

        def loss(self, scores: Tensor, target: Tensor, *, smoothing: float = 0.0) -> Tensor:
            return (scores[:, 0] - target).square().mean()

        def figures(self, scores: Tensor, target: Tensor, answers: OutputMap) -> dict[str, Tensor]:
            return {"brightness_error": (scores[:, 0] - target).abs()}

        def columns(self, scores: Tensor, hr_scores: Tensor, target: Tensor | None, answers: OutputMap) -> BatchResult:
            assert target is not None
            return BatchResult({"brightness": target, "brightness_error": (scores[:, 0] - target).abs()})

        def truth(self, cell: CellSamples) -> NDArray[Any]:
            return cell.floats["brightness"]

        def compare(self, paired: PairedCells) -> Comparison:
            comparison = Comparison.blank(len(paired.cells))
            base = paired.baseline_index
            for index, values in enumerate(paired.values):
                if base is not None and "brightness_error" in values:
                    gain = paired.values[base]["brightness_error"] - values["brightness_error"]
                    comparison.values[index]["brightness_gain"] = gain
                    drawn = [paired.resampled[each, "brightness_error"] for each in (base, index)]
                    put_interval(comparison.ci[index], "brightness_gain", drawn[0] - drawn[1], LEVEL)
            return comparison

    return Brightness


def put_brightness(root: Path, method: str, errors: NDArray[np.float64], known: NDArray[np.float64]) -> None:
    """Store a cell of the toy task type, as the pass that scores does."""
    import torch

    kind = task_types.task_type("brightness")
    outputs = torch.from_numpy((known + errors)[:, None]).float()
    columns: Mapping[str, Any] = kind.columns(outputs, outputs, torch.from_numpy(known).float(), OutputMap(1)).columns
    frame = samples_frame(
        {
            "position": np.arange(len(known)),
            "sample_id": [f"s{number}" for number in range(len(known))],
            **{name: values.numpy() for name, values in columns.items()},
        }
    )
    record = make_record(method, n=len(known), per_class=None)
    dataset = dataclasses.replace(record.dataset, task_type="brightness", classes=None)
    commit(root, dataclasses.replace(record, dataset=dataset), frame)


def test_a_task_type_is_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = brightness_type()
    monkeypatch.setitem(task_types._TYPES, kind.name, kind())
    random = np.random.default_rng(0)
    known = random.random(50)
    for method, size in (("bilinear", 0.2), ("bicubic", 0.1), ("original", 0.05)):
        put_brightness(tmp_path, method, random.normal(0, size, 50), known)
    board = leaderboard.build(find_records([tmp_path])[0], draws=100)
    rows = {row.method: row for row in board.rows}
    cell = next(cell for cell in find_records([tmp_path])[0] if cell.record.cell.method == "bicubic")
    stored = cell.samples(["brightness_error"])["brightness_error"]
    assert rows["bicubic"]["brightness_error"] == pytest.approx(stored.mean(), rel=1e-6)
    assert rows["bicubic"]["accuracy"] is None and "accuracy" not in rows["bicubic"].notes
    assert (rows["bicubic"].rank, rows["bilinear"].rank) == (1, 2)
    low, high = rows["bicubic"].ci["brightness_gain"]
    assert 0 < low < rows["bicubic"]["brightness_gain"] < high
    header = next(line for line in tables.markdown(board).splitlines() if line.startswith("|"))
    own = ["brightness error", "error under bilinear's", "brightness 95 %"]
    assert [cell.strip() for cell in header.split("|")][3:6] == own
    assert "brightness_gain_low" in board.frame and board.to_json()["rows"][0]["brightness_error"] is not None
    changed = compare(board, board, [parse_rule("brightness_error +0.01")])
    assert changed.metrics[0] == "brightness_error" and not changed.fired
    tables.write(board, tmp_path)
    assert write_report([tmp_path])[0].stat().st_size > 1000
