"""`--runtime`: rows of exported files, on the same samples as torch's."""

import dataclasses
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from srbench import bench, leaderboard
from srbench.cli import app
from srbench.errors import SrbenchError, UsageError
from srbench.evaluation import evaluate
from srbench.evaluation.exporting import export
from srbench.evaluation.quantising import Int8Options
from srbench.leaderboard.choose import export_command
from srbench.leaderboard.rows import Row
from srbench.leaderboard.texts import row_name
from srbench.records.cells import cell_folder, find_records
from srbench.records.schema import CellKey

N = 10
INT8 = Int8Options("demo", split="train", images=8, gate=100)
COMMON = {"classifiers": "demo-resnet", "limit": N, "progress": False}

STRANGE = """
from srbench.imaging.resample import resize
from srbench.method import Method, MethodInfo

class Strange(Method):
    info = MethodInfo(role="baseline", family="interpolation", version="1")

    def forward(self, lr, size):
        if lr.mean().item() > 2:
            raise ValueError
        return resize(lr, size, "nearest")
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("runtimes")


@pytest.fixture(scope="module")
def result(out):
    return evaluate("bilinear", **COMMON, out=out, runtimes=["onnx", "onnx-int8"], int8=INT8)


def cells_of(result, method="bilinear"):
    return {cell.record.cell.name: cell for cell in result.cells if cell.record.cell.method == method}


def test_the_rows_are_named_after_their_runtime_and_only_methods_that_were_asked_for_have_them(result):
    names = {cell.record.cell.name for cell in result.cells}
    assert {"bilinear", "bilinear[onnx]", "bilinear[onnx-int8]", "none"} <= names
    assert not {"none[onnx]", "original[onnx]"} & names
    assert all(cell.record.status == "ok" for cell in cells_of(result).values())
    assert set(result.leaderboard["method"]) == names


def test_a_file_decides_as_torch_does_on_the_same_samples(result):
    cells = cells_of(result)
    torch_, file = (cells[name].samples() for name in ("bilinear", "bilinear[onnx]"))
    assert list(torch_["sample_id"]) == list(file["sample_id"])
    assert np.array_equal(torch_["pred"], file["pred"])
    assert np.abs(torch_["psnr"] - file["psnr"]).max() < 0.01
    assert np.abs(torch_["cross_entropy"] - file["cross_entropy"]).max() < 0.01  # a pixel may be rounded either way
    other = next(cell for cell in result.cells if cell.record.cell.name == "none").samples()
    assert np.abs(other["cross_entropy"] - file["cross_entropy"]).max() > 0.05


def test_int8_is_another_file_than_float32(result):
    cells = cells_of(result)
    exact, coarse = (cells[f"bilinear[{name}]"] for name in ("onnx", "onnx-int8"))
    assert not np.allclose(exact.samples()["cross_entropy"], coarse.samples()["cross_entropy"], atol=1e-3)
    assert (exact.record.runtime.precision, coarse.record.runtime.precision) == ("fp32", "int8")
    assert coarse.record.runtime.file_mb < exact.record.runtime.file_mb
    assert coarse.record.runtime.calibration == {"spec": "demo", "split": "train", "images": 8}
    assert coarse.record.timing.dtype == "int8"


def test_what_was_scored_is_what_export_writes(result, tmp_path):
    path, record = tmp_path / "m.onnx", cells_of(result)["bilinear[onnx]"].record
    side = record.dataset.sr_side
    options = {"classifier": "demo-resnet", "protocol": "demo", "input_size": side, "limit": 1}
    export("bilinear", out=path, lr_size=str(int(0.32 * side)), **options)
    assert path.stat().st_size == round(1e6 * record.runtime.file_mb)


def test_a_row_of_torch_says_nothing_of_a_runtime_and_keeps_its_folder(result, out):
    cell = cells_of(result)["bilinear"]
    stored = json.loads((cell.folder / "record.json").read_text())
    assert "runtime" not in stored and "runtime" not in stored["cell"]
    key = cell.record.cell
    assert cell.folder == cell_folder(out, key.task, key.classifier, "bilinear", key.weights)
    assert cells_of(result)["bilinear[onnx]"].folder.name == f"{cell.folder.name}@onnx"
    assert CellKey("t", "m", None, "c").row == ("t", "m", None, "c", "frozen")


def test_a_second_call_computes_nothing_and_other_calibration_images_are_another_row(result, out):
    again = evaluate("bilinear", **COMMON, out=out, runtimes=["onnx", "onnx-int8"], int8=INT8)
    assert not again.counters.restored
    other = dataclasses.replace(INT8, images=9)
    restored = evaluate("bilinear", **COMMON, out=out, runtimes="onnx-int8", int8=other).counters.restored
    assert {name.partition("@")[0] for name in restored} == {"bilinear[onnx-int8]"}


def test_board_and_choose_read_it(result, out):
    cells, _ = find_records([out])
    board = leaderboard.build(cells)
    rows = {row.method: row for row in board.rows}
    row = rows["bilinear[onnx-int8]"]
    assert (row.runtime, row.label) == ("onnx-int8", "bilinear[onnx-int8]")
    assert 0 < row.restoring_mb < 1
    assert Row.from_json(row.to_json(), origin="row") == row
    assert "runtime" not in rows["bilinear"].to_json()
    assert row_name(row, 26).endswith("[onnx-int8] [partial]")
    command = export_command(row, board)
    assert command.startswith("srbench export bilinear --classifier demo-resnet") and "--precision int8" in command
    assert "--precision" not in export_command(rows["bilinear[onnx]"], board)


def test_a_method_that_no_graph_holds_is_a_skipped_row_with_one_sentence(tmp_path):
    plugin = tmp_path / "strange.py"
    plugin.write_text(STRANGE)
    found = evaluate("strange", **COMMON, out=tmp_path / "out", runtimes="onnx", plugins=plugin, measure=False)
    record = cells_of(found, "strange")["strange[onnx]"].record
    assert record.status == "skipped" and not found.failed
    assert record.reason.startswith("strange cannot be exported: torch cannot trace it")
    assert record.reason.isprintable() and "tensor operations alone" in record.reason
    again = evaluate("strange", **COMMON, out=tmp_path / "out", runtimes="onnx", plugins=plugin, measure=False)
    assert not again.counters.restored


def test_lr_of_many_sizes_fits_no_file(tmp_path):
    from PIL import Image

    (tmp_path / "data").mkdir()
    for side in (40, 48):
        pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / f"{side}.png")
    found = evaluate(
        "bilinear", data=f"images:{tmp_path / 'data'}", protocol="native", out=tmp_path / "out", runtimes="onnx",
        progress=False,
    )  # fmt: skip
    record = cells_of(found, "bilinear")["bilinear[onnx]"].record
    assert (record.status, "these images have 2" in record.reason) == ("skipped", True)


def test_without_a_network_the_file_ends_with_sr(tmp_path):
    from PIL import Image

    (tmp_path / "data").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((96, 96)).save(tmp_path / "data" / "a.png")
    found = evaluate(
        "bilinear", data=f"images:{tmp_path / 'data'}", protocol="native", out=tmp_path / "out", runtimes="onnx",
        progress=False,
    )  # fmt: skip
    cells = cells_of(found, "bilinear")
    assert cells["bilinear"].record.metrics["psnr"].value == pytest.approx(
        cells["bilinear[onnx]"].record.metrics["psnr"].value, abs=0.01
    )
    assert cells["bilinear[onnx]"].record.runtime.file_mb == cells["bilinear[onnx]"].record.runtime.restoring_mb


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"runtimes": "tflite"}, "runtime"),
        ({"runtimes": "onnx-int8"}, "--calibrate"),
        ({"int8": INT8}, "--calibrate"),
        ({"runtimes": "onnx", "precision": "bf16"}, "leave --precision out"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(options, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        evaluate("bilinear", **COMMON, **options, out=tmp_path / "out")
    assert not (tmp_path / "out" / "records").exists()


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    done = CliRunner().invoke(
        app, ["eval", "bilinear", "--limit", "2", "--runtime", "onnx", "--out", str(tmp_path / "o")]
    )
    assert done.exit_code == 2
    assert "srbench-resizing[export]" in " ".join(done.output.split()) and "Traceback" not in done.output


def test_calibration_images_are_never_those_of_the_test(tmp_path):
    found = evaluate(
        "bilinear", **COMMON, split="train", out=tmp_path, runtimes="onnx-int8", int8=INT8, measure=False
    )  # fmt: skip
    record = cells_of(found, "bilinear")["bilinear[onnx-int8]"].record
    assert record.status == "error" and "calibrate on training images" in record.reason


def test_bench_times_files_beside_torch():
    rows = bench.bench(
        ["bilinear"], sizes=[(16, 12)], classifier="demo-resnet", batch_sizes=[2], runtimes=["onnx"], progress=False
    ).rows
    assert all(row.status == "ok" for row in rows), [row.reason for row in rows]
    timed = {(row.case.method, row.case.stage, row.case.batch) for row in rows if row.case.runtime == "onnx"}
    assert timed == {
        (method, stage, batch)
        for method, stage in ((None, "classify"), ("bilinear[onnx]", "restore"), ("bilinear[onnx]", "end_to_end"))
        for batch in (1, 2)
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"runtimes": ["tflite"]}, "runtime"),
        ({"runtimes": ["onnx-int8"]}, "falls back"),
        ({"runtimes": ["onnx"], "compiled": True}, "--compile"),
    ],
)
def test_bench_refuses_what_it_cannot_time(options, said):
    with pytest.raises(SrbenchError, match=said):
        bench.bench(["bilinear"], progress=False, **options)
