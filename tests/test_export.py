"""`srbench export`: the file computes what the table was made of, in a runtime that needs no torch."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from srbench.cli import app
from srbench.errors import UsageError
from srbench.evaluation import exporting
from srbench.evaluation.exporting import export
from srbench.export.graph import ExportError
from srbench.export.session import Session
from srbench.export.sizes import parse_lr_size
from srbench.imaging import resample
from srbench.imaging.resample import Matrices, as_matrices, resize, resize_matrix

LR, SIDE = 20, 64
COMMON = {"lr_size": str(LR), "protocol": "demo", "limit": 4}
WITH_NETWORK = COMMON | {"classifier": "demo-resnet", "input_size": SIDE}


@pytest.fixture(scope="module")
def bilinear(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "bilinear.onnx"
    return path, export("bilinear", out=path, **WITH_NETWORK)


@pytest.mark.parametrize("border", ["clamp", "symmetric"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("kernel", ["nearest", "area", "bilinear", "bicubic", "lanczos"])
def test_two_matrices_resize_as_resize_does(kernel, antialias, border):
    image = torch.rand(2, 3, 13, 18, generator=torch.Generator().manual_seed(1))
    for size in ((41, 57), (7, 5), (13, 36)):
        wanted = resize(image, size, kernel, antialias=antialias, border=border)
        with as_matrices(Matrices()):
            got = resize(image, size, kernel, antialias=antialias, border=border)
        assert (got - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_antialiased_enlargement_rounds_as_resize_does(kernel):
    image = torch.randint(0, 256, (4, 3, 81, 81), generator=torch.Generator().manual_seed(2)).float() / 255
    wanted = resample.to_uint8(resize(image, (256, 256), kernel))
    with as_matrices(Matrices()):
        assert torch.equal(resample.to_uint8(resize(image, (256, 256), kernel)), wanted)


def test_the_matrix_of_an_enlargement_has_the_kernels_known_weights():
    matrix = resize_matrix(2, 4, "bilinear", antialias=False)
    assert matrix.tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]


@pytest.mark.parametrize(
    ("method", "weights"),
    [
        ("darionet", "demo-x4"),
        ("learned_resizer", "demo-frozen"),
        ("muller", None),
        ("retrained", "demo-resnet"),  # the network behind is the one that was trained along
    ],
)
def test_a_file_decides_as_torch_does(method, weights, tmp_path, muller_weights, bilinear):
    result = export(method, out=tmp_path / "m.onnx", weights=weights or str(muller_weights), **WITH_NETWORK)
    parity = result.parity
    assert (parity.n, parity.equal) == (4, 4)
    assert parity.largest_logit < 0.01
    assert parity.largest_step <= 1.01
    assert result.metadata["weights"] == (weights or muller_weights.stem)
    lr = np.random.default_rng(0).integers(0, 256, (1, LR, LR, 3), dtype=np.uint8)
    difference = np.abs(Session(result.path)(lr)[0] - Session(bilinear[0])(lr)[0]).max()
    assert difference > 0.01


@pytest.fixture(scope="module")
def muller_weights(tmp_path_factory):
    from safetensors.torch import save_file

    from srbench.registry import Registry

    path = tmp_path_factory.mktemp("weights") / "published.safetensors"
    save_file(Registry().get("muller")().state_dict(), path)
    return path


def test_logits_alone_leave_the_graph_and_the_batch_is_free(bilinear):
    session = Session(bilinear[0])
    assert session.outputs == ["logits"]
    lr = np.random.default_rng(0).integers(0, 256, (5, LR, LR, 3), dtype=np.uint8)
    many = session(lr)[0]
    assert np.abs(many - np.concatenate([session(one[None])[0] for one in lr])).max() < 1e-4


def test_a_file_says_what_it_is(bilinear):
    metadata = Session(bilinear[0]).metadata
    assert (metadata["method"], metadata["network"], metadata["input_size"]) == ("bilinear", "demo-resnet", SIDE)
    assert metadata["lr_size"] == [[LR, LR], [LR, LR]]
    assert len(metadata["fingerprint"]) == len(metadata["network_sha256"]) == 64
    assert metadata == bilinear[1].metadata


def test_a_file_runs_without_torch(bilinear):
    code = (
        "import sys, numpy, onnxruntime\n"
        f"s = onnxruntime.InferenceSession({str(bilinear[0])!r}, providers=['CPUExecutionProvider'])\n"
        f"print(s.run(None, {{'lr': numpy.zeros((1, {LR}, {LR}, 3), 'uint8')}})[0].shape)\n"
        "from srbench.export.session import Session\n"
        f"Session(__import__('pathlib').Path({str(bilinear[0])!r}))\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(1, ")


def test_sr_leaves_as_8_bits_and_a_range_takes_every_size_between(tmp_path):
    path = tmp_path / "sr.onnx"
    result = export("esrgan", out=path, weights="demo-x4", lr_size="18-30", protocol="demo", limit=4)
    assert result.parity.largest_step <= 1.01
    session = Session(path)
    lr = np.random.default_rng(0).integers(0, 256, (2, 19, 27, 3), dtype=np.uint8)
    (sr,) = session(lr)
    assert (sr.dtype, sr.shape) == (np.uint8, (2, 76, 108, 3))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("bilinear", {"lr_size": "18-30"}, "say which with --input-size"),
        ("esrgan", {"lr_size": "18-30", "weights": "demo-x4", "input_size": 64}, "matrices of one LR size"),
        ("esrgan", {"lr_size": "18-30", "weights": "demo-x4", "classifier": "demo-resnet"}, "one input size"),
        ("none", {"lr_size": "20"}, "nothing to export"),
        ("bilinear", {"lr_size": "0"}, "--lr-size"),
        ("bilinear", {"lr_size": "20", "input_size": 0}, "--input-size"),
    ],
)
def test_what_no_graph_can_be_is_refused_at_once(method, options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        export(method, out=tmp_path / "m.onnx", protocol="demo", **options)
    assert not list(tmp_path.iterdir())


def test_pillow_itself_cannot_stand_in_a_graph(tmp_path):
    path = tmp_path / "m.onnx"
    arguments = ["export", "bicubic_pillow", "--lr-size", "20", "--input-size", "64", "--out", str(path)]
    done = CliRunner().invoke(app, [*arguments, "--protocol", "demo"])
    assert done.exit_code == 1
    assert "on 8 bits" in done.output and "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


def test_a_graph_that_is_not_faithful_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    def shifted(source, target, kernel, *, antialias, border="clamp"):
        return resize_matrix(source, target, kernel, antialias=antialias, border=border).roll(1, dims=0)

    monkeypatch.setattr(resample, "resize_matrix", shifted)
    with pytest.raises(ExportError, match="not faithful"):
        export("bilinear", out=tmp_path / "m.onnx", input_size=SIDE, **COMMON)
    assert not list(tmp_path.iterdir())


def test_a_method_that_torch_cannot_trace_is_named(tmp_path):
    plugin = tmp_path / "branching.py"
    plugin.write_text(
        "from srbench.method import Method, MethodInfo\n"
        "from srbench.imaging.resample import resize\n"
        "class Branching(Method):\n"
        "    info = MethodInfo(role='baseline', family='interpolation', version='1')\n"
        "    def forward(self, lr, size):\n"
        "        return resize(lr, size, 'bilinear' if lr.mean().item() > 0.5 else 'nearest')\n"
    )
    with pytest.raises(ExportError, match="branching cannot be exported: torch cannot trace it"):
        export("branching", out=tmp_path / "m.onnx", input_size=SIDE, plugins=[plugin], **COMMON)
    assert not (tmp_path / "m.onnx").exists()


def test_torch_reads_its_own_format(tmp_path):
    path = tmp_path / "m.pt2"
    result = export("bilinear", out=path, **WITH_NETWORK)
    extra = {"srbench.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["srbench.json"]) == result.metadata
    logits, sr = program(torch.zeros(3, LR, LR, 3, dtype=torch.uint8))
    assert (logits.shape[0], tuple(sr.shape), sr.dtype) == (3, (3, SIDE, SIDE, 3), torch.uint8)


def test_the_command_prints_the_parity_table(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    path = tmp_path / "m.onnx"
    options = ["--lr-size", "20x24", "--input-size", "60", "--protocol", "demo", "--limit", "2", "--out", str(path)]
    done = CliRunner().invoke(app, ["export", "bilinear", *options])
    assert done.exit_code == 0, done.output
    assert "8-bit steps" in done.output and "x as fast" in done.output
    assert Session(path).metadata["sr_size"] == [60, 72]


@pytest.mark.parametrize(("text", "fixed"), [("81", True), ("56x84", True), ("64-128", False)])
def test_lr_sizes_are_read_as_they_are_written(text, fixed):
    size = parse_lr_size(text)
    assert (str(size), size.fixed) == (text, fixed)


@pytest.mark.parametrize("suffix", ["", ".pth", ".onnx.gz"])
def test_other_formats_are_refused(suffix, tmp_path):
    with pytest.raises(UsageError, match=r"\.onnx or \.pt2"):
        export("bilinear", out=tmp_path / f"m{suffix}", **COMMON)


def test_without_the_extra_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"srbench-resizing\[export\]"):
        exporting.export("bilinear", out=tmp_path / "m.onnx", **WITH_NETWORK)


def test_the_service_of_the_documentation_answers(bilinear, tmp_path):
    """Run it as it stands, in a process without torch, and ask it about a picture."""
    import io
    import re
    from pathlib import Path

    from PIL import Image

    page = (Path(__file__).resolve().parent.parent / "docs" / "production.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import io\n.*?)```", page, flags=re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    (tmp_path / "model.onnx").write_bytes(bilinear[0].read_bytes())
    (tmp_path / "service.py").write_text(code)
    ask = (
        "import io, sys, threading, urllib.request, http.server\n"
        "import service\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), service.Service)\n"
        "service.Service.log_message = lambda *words: None\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
        "address = f'http://127.0.0.1:{server.server_port}'\n"
        "opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))\n"
        "print(opener.open(address, sys.stdin.buffer.read()).read().decode())\n"
        "assert 'torch' not in sys.modules and 'srbench' not in sys.modules\n"
    )
    pixels = np.random.default_rng(3).integers(0, 256, (LR, LR, 3), dtype=np.uint8)
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, "PNG")
    done = subprocess.run(
        [sys.executable, "-c", ask], input=picture.getvalue(), capture_output=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr.decode()
    answer = json.loads(done.stdout)
    session = Session(bilinear[0])
    best = int(session(pixels[None])[0].argmax())
    assert answer == {"index": best, "class": session.metadata["classes"][best]}
