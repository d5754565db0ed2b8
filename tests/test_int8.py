"""`srbench export --precision int8`: what is written loses little, and what loses much is not written."""

import numpy as np
import pytest
from typer.testing import CliRunner

from srbench.cli import app
from srbench.errors import DataError, UsageError
from srbench.evaluation import quantising
from srbench.evaluation.exporting import export
from srbench.evaluation.lr_images import LrImages
from srbench.evaluation.quantising import Int8Options, losses
from srbench.export.graph import ExportError
from srbench.export.int8 import Quantiser, fall_back
from srbench.export.session import Session

COMMON = {"lr_size": "20", "protocol": "demo", "classifier": "demo-resnet", "input_size": 64, "limit": 24}
TRAIN = {"calibrate": "demo", "split": "train", "images": 24}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "m.onnx"
    return path, export("bilinear", out=path, int8=Int8Options(**TRAIN, gate=5.0), **COMMON)


def test_what_is_written_is_smaller_and_says_what_it_lost(written):
    path, result = written
    report = result.int8
    assert report.measure == "accuracy" and report.n == 24
    assert report.int8_mb < 0.5 * report.float_mb
    assert report.low <= report.loss <= report.high and report.loss <= 0.05
    about = Session(path).metadata
    assert (about["precision"], about["float32_parts"]) == ("int8", list(report.fallen))
    assert any("paired" in line for line in report.lines)


def test_weights_are_8_bit_integers_and_the_matrices_of_the_resize_are_not(written):
    import onnx

    model = onnx.load(written[0])
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    matrices = [kind for name, kind in types.items() if name.startswith("matrices.")]
    assert matrices and set(matrices) == {onnx.TensorProto.FLOAT}
    weights = [kind for name, kind in types.items() if name.endswith(".weight_quantized")]
    assert weights and set(weights) == {onnx.TensorProto.INT8}


def test_calibration_images_are_never_those_of_the_test(tmp_path):
    options = Int8Options(calibrate="demo", images=24)
    with pytest.raises(DataError, match="24 of the 24 calibration images"):
        export("bilinear", out=tmp_path / "m.onnx", int8=options, **COMMON)
    assert not list(tmp_path.iterdir())


class Coarse(Quantiser):
    """A quantiser whose ranges are far too wide: every value falls on a few levels."""

    def __init__(self, model, calibration, *, per_channel=True):
        super().__init__(model, calibration, per_channel=per_channel)
        for tensor in self._ranges.data.values():
            tensor.lowest, tensor.highest = np.float32(1e4) * tensor.lowest, np.float32(1e4) * tensor.highest


def test_below_the_gate_the_command_fails_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(quantising, "Quantiser", Coarse)
    path = tmp_path / "m.onnx"
    options = ["--lr-size", "20", "--protocol", "demo", "--classifier", "demo-resnet", "--input-size", "64"]
    options += ["--limit", "24", "--precision", "int8", "--calibrate", "demo", "--calibrate-split", "train"]
    options += ["--calibrate-images", "24", "--per-tensor", "--out", str(path)]
    done = CliRunner().invoke(app, ["export", "bilinear", *options])
    assert done.exit_code == 1, done.output
    assert "--gate allows 1" in done.output and "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


def test_a_graph_none_of_whose_parts_can_be_int8_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(quantising, "Quantiser", Coarse)
    with pytest.raises(ExportError, match="every part"):
        export("bilinear", out=tmp_path / "m.onnx", int8=Int8Options(**TRAIN), **COMMON)
    assert not list(tmp_path.iterdir())


class Planted:
    """Three parts, of which the second breaks every decision and the third moves logits a little."""

    parts = ("first", "second", "third")

    def without(self, left_out=()):
        return frozenset(self.parts) - set(left_out)


def test_the_part_that_does_the_damage_falls_back_first_and_alone():
    def run(model):
        def logits(image):
            exact = np.array([[0.0, 1.0, float(image.mean() > 100)]])
            broken = 5.0 * np.array([[1.0, 0.0, 0.0]]) if "second" in model else 0.0
            return exact + broken + (0.01 if "third" in model else 0.0)

        return logits

    images = [np.full((4, 4, 3), value, np.uint8) for value in (0, 200, 50)]

    def changed(mine, exact):
        return float(losses(mine.argmax(1), exact.argmax(1), None).mean())

    found = fall_back(Planted(), run, frozenset(), images, lost=changed, allowed=0.03)
    assert (found.fallen, found.lost) == (("second",), 0.0)
    assert found.model == {"first", "third"}


def test_with_labels_a_loss_is_a_right_decision_lost_and_without_a_changed_one():
    exact, coarse = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 1])
    assert losses(coarse, exact, np.array([1, 1, 1, 0])).tolist() == [0, 1, -1, 1]
    assert losses(coarse, exact, None).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(("labels", "falls"), [(True, False), (False, True)])
def test_decisions_that_change_without_loss_keep_no_part_in_float32_where_there_are_labels(labels, falls, monkeypatch):
    held_out = np.arange(2)  # of four calibration images, every second one

    class Swapping:
        """A quantiser of two parts, of which the second turns a right decision wrong and a wrong one right."""

        parts = ("first", "second")

        def __init__(self, model, calibration, *, per_channel):
            pass

        def without(self, left_out=()):
            return "float" if "second" in left_out else "swapped"

    class Decides:
        megabytes = 1.0

        def __init__(self, content, *, threads):
            self._swapped = content == "swapped"

        def __call__(self, lr):
            wrong = (int(lr.max()) in held_out) and ((int(lr.max()) == 0) != self._swapped)
            return [np.array([[0.0, 1.0]]) if wrong else np.array([[1.0, 0.0]])]

    monkeypatch.setattr(quantising, "Quantiser", Swapping)
    monkeypatch.setattr(quantising, "Session", Decides)
    monkeypatch.setattr(quantising.formats, "onnx_bytes", lambda model, metadata: model)
    images = [np.full((2, 2, 3), value, np.uint8) for value in (0, 9, 1, 9)]
    calibration = LrImages(images, ["a", "b", "c", "d"], np.zeros(4, np.int64) if labels else None)
    test = LrImages([images[1]], ["e"], np.zeros(1, np.int64))
    options = Int8Options(calibrate="unused", images=4, gate=1.0)
    report = quantising.quantise("float", {}, test, calibration, options, threads=1).report
    assert report.fallen == (("second",) if falls else ())


def test_what_a_layer_makes_is_rounded_behind_its_activation():
    import onnx
    import onnxruntime
    from onnx import helper

    weight = np.array([127, 76, 51], np.float32).reshape(1, 3, 1, 1) / 1270  # exact in 8 bits
    bias = np.array([-25.0], np.float32)
    nodes = [
        helper.make_node("Cast", ["lr"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["image"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["image", "net.weight", "net.bias"], ["wide"], name="conv"),
        helper.make_node("Clip", ["wide", "low", "high"], ["narrow"], name="clip"),
    ]
    constants = {"net.weight": weight, "net.bias": bias, "low": np.float32(0), "high": np.float32(6)}
    graph = helper.make_graph(
        nodes,
        "a layer from -25 to 26, of which ReLU6 keeps 6",
        [helper.make_tensor_value_info("lr", onnx.TensorProto.UINT8, ["n", 16, 16, 3])],
        [helper.make_tensor_value_info("narrow", onnx.TensorProto.FLOAT, ["n", 1, 16, 16])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image[0, :2] = [[0] * 3, [255] * 3]

    def run(model):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"lr": image[None]})[0]

    exact = run(model)
    assert (exact.min(), exact.max()) == (0, 6)
    assert np.abs(run(Quantiser(model, [image]).without()) - exact).max() < 0.6 * 6 / 255


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "int8"], "go together"),
        (["--calibrate", "demo"], "go together"),
        (["--precision", "int4", "--calibrate", "demo"], "fp32 or int8"),
        (["--precision", "int8", "--calibrate", "demo", "--gate", "-1"], "--gate"),
        (["--precision", "int8", "--calibrate", "demo", "--calibrate-images", "2"], "--calibrate-images"),
        (["--precision", "int8", "--calibrate", "demo"], "--classifier"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, tmp_path):
    path = tmp_path / "m.onnx"
    base = ["--lr-size", "20", "--input-size", "64", "--protocol", "demo", "--out", str(path)]
    done = CliRunner().invoke(app, ["export", "bilinear", *base, *options])
    assert done.exit_code == 2 and message in done.output


def test_int8_is_no_format_of_torch(tmp_path):
    with pytest.raises(UsageError, match=r"\.onnx"):
        export("bilinear", out=tmp_path / "m.pt2", int8=Int8Options(**TRAIN), **COMMON)
