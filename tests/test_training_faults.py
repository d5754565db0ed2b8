"""What stops a run, and what is said then: Ctrl-C, SIGTERM, a gradient that is not finite, an unwritable folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types

import pytest
import torch
import training_world as world
from dummies import save_gain
from PIL import Image
from typer.testing import CliRunner

from srbench import weights
from srbench.cli import app
from srbench.errors import ContractError, TrainingError, TrainingStopped, UsageError, WeightsError
from srbench.files.turns import LOCK_FILE
from srbench.training import checkpoint
from srbench.training.api import train, train_network
from srbench.training.curves import Curves
from srbench.training.options import TrainOptions
from srbench.training.recipe import Recipe
from srbench.weights.recognition import recognise

torch.set_num_threads(1)

# A loss of 0 whose gradient is not finite
BROKEN = 'return {"logits": (self.tail.weight * 0).sum().sqrt()}'


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    with world.own_place(tmp_path_factory, count=40) as root:
        yield root


@pytest.fixture
def run(place, tmp_path):
    """Call `train` with what most tests share."""

    def call(*overrides, method="tiny_method", plugin=None, **options):
        shared = {
            "data": [f"folder:{place / 'photos'}"],
            "classifier": "tiny",
            "protocol": str(place / "half.toml"),
            "out": tmp_path / "run",
            "plugins": [plugin or place / "tiny_method.py"],
            "device": "cpu",
            "epochs": 1,
            "progress": False,
        }
        return train(method, overrides=list(overrides), **(shared | options))

    return call


def words(place, out, *more):
    """Return the command line of a run that lasts until it is stopped."""
    return [
        *("train", "tiny_method", "--data", f"folder:{place / 'photos'}", "--classifier", "tiny"),
        *("--protocol", str(place / "half.toml"), "--plugin", str(place / "tiny_method.py"), "--device", "cpu"),
        *("--out", str(out), *more),
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_command_names_resume_and_exits_130(place, tmp_path, number):
    out = tmp_path / "run"
    ready = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        " signal.signal(signal.SIGHUP, signal.SIG_DFL); from srbench.cli import main; main()"
    )
    command = [sys.executable, "-c", ready, *words(place, out, "--epochs", "100000")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not (out / checkpoint.NAME).exists():
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert f"the same command with --resume goes on from {out / checkpoint.NAME} (epoch " in said
    assert "Traceback" not in said and [path.name for path in out.glob(".*")] == [LOCK_FILE]
    state = checkpoint.read(out / checkpoint.NAME)
    assert f"(epoch {state['epoch']}, step {state['steps']})" in said


def test_what_is_said_before_anything_was_saved(place, tmp_path, monkeypatch):
    def stop(*unused):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write", stop)
    done = CliRunner().invoke(app, words(place, tmp_path / "run"))
    assert done.exit_code == 130
    assert done.stderr.strip().splitlines()[-1] == (
        "srbench: training stopped; nothing had been saved yet, so the same command starts over"
    )


def test_a_checkpoint_that_was_whole_when_the_signal_came_is_named(place, run, monkeypatch):
    real = checkpoint.write

    def write(path, content):
        real(path, content)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write", write)
    with pytest.raises(TrainingStopped, match=r"--resume goes on from .*checkpoint\.pt \(epoch 0, step 0\)"):
        run()


def test_python_callers_get_a_keyboard_interrupt_with_the_sentence(run, tmp_path):
    plugin = world.make_method(tmp_path / "plugins", body="raise KeyboardInterrupt")
    with pytest.raises(TrainingStopped, match=r"--resume goes on from .*checkpoint\.pt \(epoch 0, step 0\)") as raised:
        run(plugin=plugin)
    assert isinstance(raised.value, KeyboardInterrupt)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["clip_norm=1"],
            r"gradient of tiny_method .* epoch 1, step 1 .*\(epoch 0, step 0\); lower lr, and start over",
        ),
        (["steps_per_epoch=1"], r"gradient of tiny_method .* epoch 1, step 1 .*lower lr or set clip_norm"),
        (["checkpoint_every=1"], r"gradient of tiny_method .* epoch 1, step 1 "),
        ([], r"loss of tiny_method is no longer finite at epoch 1, step 2 "),
    ],
)
def test_a_gradient_that_is_not_finite_is_a_sentence_and_never_saved(run, tmp_path, overrides, sentence):
    plugin = world.make_method(tmp_path / "plugins", body=BROKEN)
    with pytest.raises(TrainingError, match=sentence):
        run(*overrides, plugin=plugin)
    content = checkpoint.read(tmp_path / "run" / checkpoint.NAME)
    assert content["epoch"] == 0 and all(torch.isfinite(value).all() for value in content["student"].values())


def test_a_helpers_clipped_gradient_is_a_sentence_too(run, tmp_path):
    plugin = tmp_path / "tiny_gan.py"
    zero = "(self._helpers[name](sr) * 0).sum().sqrt()"
    plugin.write_text(world.GAN.replace("return losses.discriminator(", f"return {zero} + losses.discriminator("))
    with pytest.raises(TrainingError, match=r"gradient of tiny_gan is no longer finite at epoch 1, step 1 "):
        run("clip_norm=1", method="tiny_gan", plugin=plugin, classifier=None)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(run, tmp_path, monkeypatch):
    monkeypatch.setattr("srbench.training.prepare.open_splits", lambda *unused: pytest.fail("the data were opened"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *unused: False)
        with pytest.raises(UsageError, match=r"--out .*run: no permission to write in"):
            run()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="which is not a folder"):
        run(out=tmp_path / "file" / "run")


@pytest.mark.skipif(not os.statvfs("/sys").f_flag & os.ST_RDONLY, reason="no read-only file system here")
def test_a_read_only_file_system_is_refused_before_any_work(run, monkeypatch):
    monkeypatch.setattr("srbench.training.prepare.open_splits", lambda *unused: pytest.fail("the data were opened"))
    with pytest.raises(UsageError, match="no permission to write in /sys"):
        run(out="/sys/run")


def test_curves_on_a_full_disk_are_a_sentence(tmp_path, monkeypatch):
    curves = Curves(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        TrainingError, match=r"curves\.csv cannot be written: .*No space left on device; free some space"
    ):
        curves.write([{"epoch": 0}])
    assert not (tmp_path / "curves.csv").exists()


def test_an_image_too_small_for_batch_norm_is_a_sentence(place, tmp_path):
    world.make_images(tmp_path / "photos", 40)
    for number in range(20):  # some fall into the part that trains
        Image.new("RGB", (8, 8 + 2 * number)).save(tmp_path / "photos" / "across" / f"odd{number}.png")
    small = ["args.channels=[8,8,8,8]", "args.stem_width=8", "augment.shift=0", "warmup_steps=0"]
    options = TrainOptions(
        data=[f"folder:{tmp_path / 'photos'}"],
        protocol=str(place / "half.toml"),
        overrides=small,
        epochs=1,
        out=tmp_path / "run",
        device="cpu",
        progress=False,
    )
    with pytest.raises(UsageError, match=r"batch norm of classifier .* from 1 image of \d+ x 8 pixels.*--set patch"):
        train_network("resnet10t", options)


# bfloat16: a method of a fixed factor brings its output to size, which no kernel of a CPU does in 16 bits


@pytest.mark.parametrize(
    ("method", "losses"),
    [
        ("rdn", {"l1": 1.0, "features": 0.5, "adversarial": 0.1}),
        ("srgan", {"l2": 1.0, "features": 0.5, "adversarial": 0.1}),
        ("esrgan", {"l1": 1.0, "perceptual": 0.5, "adversarial": 0.1}),
        ("darionet", {"logits": 1.0, "psnr": 0.1}),
    ],
)
def test_methods_of_a_fixed_factor_train_in_bf16_on_a_cpu(run, method, losses):
    from srbench.registry import Registry

    tiny = Registry(()).get(method).tiny
    recipe = Recipe(losses=losses, steps_per_epoch=2, batch_size=4, parameters=tiny, select="psnr", norm_steps=1)
    found = {
        precision: run(method=method, recipe=recipe, precision=precision, force=True) for precision in ("bf16", "fp32")
    }
    state = weights.read_state(found["bf16"].weights.path)
    values = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in values)
    assert found["bf16"].steps == 2 and found["bf16"].weights.card.extra["precision"] == "bf16"
    for name in losses:
        first, second = (found[precision].history[f"loss_{name}"].iloc[-1] for precision in ("bf16", "fp32"))
        assert first == pytest.approx(second, rel=0.05, abs=0.02), name


@pytest.mark.parametrize("hook", ["training_step", "helper_step"])
def test_a_method_that_does_not_say_how_it_is_trained_is_one_sentence(run, tmp_path, hook):
    plugin = tmp_path / "tiny_gan.py"
    plugin.write_text(world.GAN.replace(f"def {hook}(", f"def another_{hook}("))
    with pytest.raises(ContractError, match=rf"^Gan has .* but no {hook}; define one, or"):
        run(method="tiny_gan", plugin=plugin, classifier=None)


def test_a_broken_tensorboard_is_left_out(tmp_path, monkeypatch, caplog):
    broken = types.ModuleType("torch.utils.tensorboard")

    def fail(name):
        raise TypeError("Descriptors cannot be created directly")

    broken.__getattr__ = fail
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", broken)
    curves = Curves(tmp_path)
    curves.write([{"epoch": 0, "step": 1, "loss": 0.5}])
    curves.close()
    assert "TensorBoard is left out" in caplog.text and (tmp_path / "curves.csv").is_file()


@pytest.mark.parametrize("error", [ZeroDivisionError("integer division or modulo by zero"), AttributeError("x")])
def test_a_network_whose_parameters_lead_spandrel_astray_is_one_sentence(tmp_path, monkeypatch, error):
    def fail(self, state):
        raise error

    monkeypatch.setattr("spandrel.ModelLoader.load_from_state_dict", fail)
    ref = save_gain(tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="looks like a known network, but parameters are missing or misshapen"):
        recognise(weights.load(ref))
