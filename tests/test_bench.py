"""`srbench bench`: what is measured, what the figures are derived from, and what is refused."""

from __future__ import annotations

import dataclasses
import io
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from dummies import make_classifier, plugin
from rich.console import Console
from typer.testing import CliRunner

from srbench import bench as speed
from srbench import weights
from srbench.bench.table import render
from srbench.cli import app
from srbench.compute import timing
from srbench.compute.numerics import Numerics
from srbench.compute.timing import MatrixProduct, Timing
from srbench.errors import UnknownNameError, UsageError, WeightsError
from srbench.evaluation.loaded_methods import choose_for_timing
from srbench.protocol import load_protocol
from srbench.records.schema import CodeState, Environment, Spread
from srbench.registry import Registry

NETWORK = '''"""One convolution at LR size, then nearest."""

import torch

from srbench.method import Method, MethodInfo
from srbench.imaging.resample import resize


class Conv(Method):
    info = MethodInfo(role="network", family="test", version="1")

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, lr, size):
        return resize(self.conv(lr), size, "nearest")
'''


@pytest.fixture(autouse=True)
def quick(own_folders, monkeypatch, tmp_path):
    """Measurements that are quick instead of exact, and a working directory of their own."""
    monkeypatch.setattr(speed, "BUDGET_S", 1e-4)
    monkeypatch.setattr(speed, "measure_matrix_product", partial(timing.measure_matrix_product, side=32))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return make_classifier(tmp_path_factory.mktemp("card"), side=24)


@pytest.fixture
def conv(tmp_path):
    path = tmp_path / "conv.py"
    path.write_text(NETWORK)
    return path


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["bench", *(str(word) for word in words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


# --- what is measured ----------------------------------------------------------------------------------------------


def test_every_stage_at_every_size_and_batch_with_figures_that_follow_from_each_other(conv, card):
    result = speed.bench(
        ["conv", "none"],
        sizes=[(8, 8), (6, 10)],
        factor=2,
        batch_sizes=[2, 3, 2],
        device="cpu",
        classifier=str(card),
        plugins=[conv],
    )
    assert not result.failed
    cases = [(row.case.stage, row.case.method, row.case.lr_size, row.case.batch) for row in result.rows]
    wanted = [
        (stage, method, size, batch)
        for size in [(8, 8), (6, 10)]
        for method in (None, "conv", "none")
        for batch in (1, 2, 3)
        for stage in (["classify"] if method is None else ["restore", "end_to_end"])
    ]
    assert cases == wanted
    rows = {(row.case.stage, row.case.method, row.case.lr_size): row for row in result.rows}
    restore, classify = rows["restore", "conv", (6, 10)], rows["classify", None, (6, 10)]
    assert restore.case.sr_size == (12, 20) and restore.case.classifier is None
    assert restore.parameters == 3 * 3 * 9 + 3 and restore.macs == 3 * 3 * 9 * 60 and restore.flops == 2 * restore.macs
    assert classify.case.classifier == "dummy" and classify.macs > 0
    whole = rows["end_to_end", "conv", (6, 10)]
    assert (whole.macs, whole.parameters) == (restore.macs + classify.macs, restore.parameters + classify.parameters)
    assert rows["restore", "none", (8, 8)].macs == 0 and rows["restore", "none", (8, 8)].share is None
    # LR straight to the classifier is less work than SR
    assert 0 < rows["end_to_end", "none", (8, 8)].macs < rows["classify", None, (8, 8)].macs
    for row in result.rows:
        assert row.repeats >= 1 and row.peak_memory_mb is None and row.compile_s is None
        assert 0 < row.latency_ms.p10 <= row.latency_ms.median <= row.latency_ms.p90
        assert row.images_per_s.median == pytest.approx(1e3 / row.latency_ms.median)
        if row.macs:
            assert row.flops_per_s == pytest.approx(row.flops * row.images_per_s.median)
            assert row.share == pytest.approx(row.flops_per_s / result.matrix_product.flops_per_s)
    assert result.matrix_product.side == 32 and result.matrix_product.arithmetic == "float32"
    assert result.environment.threads == torch.get_num_threads()
    assert list(result.frame["latency_ms_median"]) == [row.latency_ms.median for row in result.rows]


def test_end_to_end_decodes_files_and_classifies_or_rounds(conv, card, monkeypatch):
    decoded, real = [], speed.decode

    def decode(path):
        decoded.append(path)
        return real(path)

    monkeypatch.setattr(speed, "decode", decode)
    classified, real_classified = [], speed._Bench._classified
    monkeypatch.setattr(speed._Bench, "_classified", lambda self, x: classified.append(x) or real_classified(self, x))
    result = speed.bench(["conv"], sizes=[(8, 8)], factor=2, batch_sizes=[3], classifier=str(card), plugins=[conv])
    from_files = [row for row in result.rows if row.case.stage == "end_to_end"]
    # one more for the tensor that the other stages take, and a first call and a warm-up or two before the repeats
    at_least = sum((row.repeats + 2) * row.case.batch for row in from_files)
    assert len(decoded) >= at_least + 1 and len(classified) > sum(row.repeats for row in result.rows) / 2
    last = classified[-1]
    assert tuple(last.shape) == (3, 3, 16, 16)
    assert torch.equal(last, last.mul(255).round().div(255)), "the classifier sees what an evaluation would show it"
    classified.clear()
    result = speed.bench(["conv"], sizes=[(8, 8)], factor=2, batch_sizes=[3], plugins=[conv])
    assert [row.case.stage for row in result.rows] == ["restore", "end_to_end"] * 2 and not classified


def test_what_fails_is_a_row_and_the_others_go_on(tmp_path):
    small = plugin(tmp_path, "small", 'resize(lr, (2, 2), "area")')
    fails = plugin(tmp_path, "fails", "1 / 0")
    code, out, _ = run(
        "small", "fails", "nearest", "--plugin", small, "--plugin", fails, "--size", 8, "--out", "b.json"
    )
    assert code == 1
    content = json.loads(Path("b.json").read_text(), parse_constant=pytest.fail)
    by_method = {row["method"]: row for row in content["rows"] if row["stage"] == "restore"}
    assert by_method["small"]["reason"] == "expected sr of shape (8, 3, 32, 32) from 'small', got (8, 3, 2, 2)"
    assert "ZeroDivisionError" in by_method["fails"]["reason"] and by_method["fails"]["latency_ms"] is None
    assert by_method["nearest"]["status"] == "ok" and by_method["nearest"]["lr_size"] == [8, 8]
    assert "failed: fails, restore" in out


def test_the_file_holds_what_the_table_shows(conv):
    code, out, err = run("conv", "--plugin", conv, "--size", "8x12", "--factor", "1.5", "--out", "new/b.json")
    assert (code, err) == (0, "")
    content = json.loads(Path("new/b.json").read_text(), parse_constant=pytest.fail)
    assert content["schema_version"] == 1 and content["precision"] == "fp32" and content["compiled"] is False
    assert set(content["matrix_product"]) == {"side", "arithmetic", "flops_per_s"}
    assert content["environment"]["torch"] == torch.__version__ and set(content["code"]) >= {"version", "commit"}
    assert [(row["stage"], row["batch"]) for row in content["rows"]] == [
        (stage, batch) for batch in (1, 8) for stage in ("restore", "end_to_end")
    ]
    assert content["rows"][0]["sr_size"] == [12, 18] and content["rows"][0]["flops"] == 2 * 81 * 96
    assert "LR 8x12, SR 12x18" in out and "32 x 32 matrices in float32" in out


def test_bf16_runs_under_autocast_beside_a_matrix_product_of_its_own(conv):
    result = speed.bench(["conv"], sizes=[(8, 8)], precision="bf16", device="cpu", plugins=[conv])
    assert not result.failed and result.matrix_product.arithmetic == "bfloat16" and result.precision == "bf16"


def test_networks_are_compiled_where_asked_each_shape_anew(conv, card, monkeypatch):
    compiled, resets = [], []
    monkeypatch.setattr(torch, "compile", lambda network, **options: compiled.append((network, options)) or network)
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(1))
    result = speed.bench(["conv"], sizes=[(8, 8)], batch_sizes=[2], compiled=True, classifier=str(card), plugins=[conv])
    assert [type(network).__name__ for network, _ in compiled] == ["Classifier", "Conv"]
    assert all(options == {"dynamic": False} for _, options in compiled)
    assert len(resets) == 4, "two batches of the classifier, two of the method"
    assert all((row.compile_s is None) == (row.case.stage == "end_to_end") for row in result.rows)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a compiler of C++ at work
def test_really_compiles(conv):
    result = speed.bench(["conv"], sizes=[(8, 8)], batch_sizes=[1], compiled=True, plugins=[conv], device="cpu")
    assert not result.failed, result.failed
    restore = next(row for row in result.rows if row.case.stage == "restore")
    assert restore.compile_s > 10 * restore.latency_ms.median / 1e3


# --- which networks ------------------------------------------------------------------------------------------------


def chosen(names, given=None):
    registry, protocol = Registry(), load_protocol("clean")
    return choose_for_timing(names, registry, given=given or {}, protocol=protocol)


def test_weights_that_are_here_or_an_untrained_network():
    labels = {each.name: each.label for each in chosen(["bicubic", "learned_resizer", "darionet"])}
    assert labels["bicubic"] is None and labels["darionet"] in weights.names("darionet")
    built = chosen(["esrgan"], {"esrgan": ["untrained?blocks=1&features=8", "demo-x4"]})
    assert [each.label for each in built] == ["demo-x4", "untrained+blocks-1-features-8"]
    untrained = built[1].method
    assert untrained is not None and not untrained.training
    assert not any(parameter.requires_grad for parameter in untrained.parameters())
    assert sum("RDB1.conv1.0.weight" in key for key in untrained.state_dict()) == 1


def test_without_weights_anywhere_a_network_is_measured_as_it_is_built(monkeypatch):
    monkeypatch.setattr(weights, "local", lambda *_: [])
    (resizer,) = chosen(["learned_resizer"])
    assert resizer.label == "untrained" and resizer.method is not None


def test_weights_that_do_not_exist_or_do_not_apply():
    with pytest.raises(UnknownNameError, match="no weights of 'esrgan' named 'nosuch'"):
        chosen(["esrgan"], {"esrgan": ["nosuch"]})
    with pytest.raises(UsageError, match="'bicubic' takes no weights"):
        chosen(["bicubic"], {"bicubic": ["untrained"]})
    with pytest.raises(UsageError, match="is not run; add it to the methods"):
        chosen(["bicubic"], {"esrgan": ["untrained"]})
    with pytest.raises(WeightsError, match="no argument 'depth'"):
        chosen(["esrgan"], {"esrgan": ["untrained?depth=3"]})


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["bicubik"], "no method named 'bicubik'; did you mean bicubic"),
        (
            ["bicubic", "--size", "big"],
            "--size takes the size of LR in pixels, H or HxW such as 81 or 56x84, got 'big'",
        ),
        (["bicubic", "--size", "0x8"], "--size takes"),
        (["bicubic", "--size", "8", "--factor", "0"], "--factor takes SR side / LR side"),
        (["bicubic", "--size", "8", "--factor", "nan"], "--factor takes SR side / LR side"),
        (["bicubic", "--size", "2", "--factor", "0.1"], "need a pixel or more"),
        (["bicubic", "--batch-size", "0"], "--batch-size takes a whole number of at least 1, got 0"),
        (["bicubic", "--device", "tpu"], "--device takes auto, cpu or cuda, got 'tpu'"),
        (["bicubic", "--precision", "fp16"], "--precision takes auto, fp32, tf32 or bf16, got 'fp16'"),
        (["bicubic", "--classifier", "nosuch"], "no classifier named 'nosuch'"),
        (["bicubic", "--weights", "bicubic"], "--weights takes METHOD=NAME or METHOD=FILE"),
        (["bicubic", "--weights", "bicubic=x"], "takes no weights"),
        (["bicubic", "--plugin", "nosuch.py"], "--plugin takes a Python file"),
        (["bicubic", "--out", "b.txt"], "--out takes a file that ends in .json, got b.txt"),
        (["bicubic", "--out", "file/b.json"], "--out file is"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_nothing_is_measured(words, sentence, monkeypatch):
    monkeypatch.setattr(speed, "measure_matrix_product", lambda *_, **__: pytest.fail("something was measured"))
    Path("file").write_text("")
    code, out, err = run(*words)
    lines = [line for line in err.splitlines() if line]
    assert code == 2 and out == "" and len(lines) == 1
    assert lines[0].startswith("srbench: ") and sentence in lines[0]


def test_sizes():
    assert speed.parse_size("81") == (81, 81) and speed.parse_size(" 56x84 ") == (56, 84)
    for wrong in ("", "x", "8x", "8x8x8", "-8", "8.5", "999999"):
        with pytest.raises(UsageError, match="--size takes"):
            speed.parse_size(wrong)


# --- the yardstick and the table -----------------------------------------------------------------------------------


def test_the_matrix_product_counts_two_operations_a_multiply_accumulate(monkeypatch):
    calls = []

    def measure(call, *, device, batch_size, budget_s):
        calls.append((call(), str(device), budget_s))
        return Timing(median_s=0.5, p10_s=0.4, p90_s=0.6, repeats=3, batch_size=batch_size)

    monkeypatch.setattr(timing, "measure", measure)
    product = timing.measure_matrix_product("cpu", Numerics("cpu", "bf16"), side=48, budget_s=0.25)
    assert product == MatrixProduct(48, "bfloat16", 2 * 48**3 / 0.5)
    ((out, device, budget),) = calls
    assert tuple(out.shape) == (48, 48) and out.dtype == torch.bfloat16 and (device, budget) == ("cpu", 0.25)


def test_the_better_of_two_matrix_products_is_the_yardstick(conv, monkeypatch):
    found = iter([MatrixProduct(32, "float32", 1e9), MatrixProduct(32, "float32", 4e9)])
    monkeypatch.setattr(speed, "measure_matrix_product", lambda *_, **__: next(found))
    result = speed.bench(["conv"], sizes=[(8, 8)], device="cpu", plugins=[conv])
    assert result.matrix_product.flops_per_s == 4e9
    assert all(row.share == pytest.approx(row.flops_per_s / 4e9) for row in result.rows)


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "arithmetic"), [("fp32", "float32"), ("tf32", "tf32"), ("bf16", "bfloat16")])
def test_matrices_on_a_gpu_are_multiplied_in_the_arithmetic_of_the_run(precision, arithmetic):
    before = torch.backends.cuda.matmul.allow_tf32
    product = timing.measure_matrix_product("cuda", Numerics.of("cuda", precision), side=1024, budget_s=0.1)
    assert product.arithmetic == arithmetic
    assert torch.backends.cuda.matmul.allow_tf32 == before


def result_of(*rows: speed.Row) -> speed.BenchResult:
    machine = Environment("3.12", "2.6.0", None, None, "cpu (synthetic)", None, 2, "Linux")
    return speed.BenchResult(
        rows, MatrixProduct(2048, "float32", 1.5e11), "fp32", False, machine, CodeState("0.1.0", None, None)
    )


def shown(result: speed.BenchResult, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for part in render(result, width=width):
        console.print(part)
    return console.export_text()


def test_a_narrow_terminal_drops_columns_and_wraps_no_number():
    case = speed.Case("restore", "darionet", "demo-x4", None, (81, 81), (324, 324), 16)
    row = speed.Row(
        case,
        "ok",
        latency_ms=Spread(12.3456, 11.0, 14.0),
        images_per_s=Spread(81.0, 71.4, 90.9),
        repeats=20,
        parameters=869_000,
        macs=7_000_000_000,
        flops_per_s=1.134e12,
        share=0.756,
    )
    none = dataclasses.replace(row, macs=0, flops_per_s=None, share=None)
    failed = speed.Row(dataclasses.replace(case, batch=1), "error", "out of memory")
    wide, narrow = (shown(result_of(row, none, failed), width) for width in (160, 72))
    for word in ("darionet (demo-x4)", "LR 81x81, SR 324x324", "12.3", "11 to 14", "81", "869 k", "14 G", "1.13 T"):
        assert word in wide
    assert "75.6%" in wide and "2 threads" in wide and "150 GFLOP/s" in wide and "peak" not in wide
    assert "failed: darionet (demo-x4), restore, LR 81x81, batch 1: out of memory" in " ".join(wide.split())
    assert "75.6%" in narrow and "869 k" not in narrow and "keeps every figure" in " ".join(narrow.split())
    assert max(map(len, narrow.splitlines())) <= 72
