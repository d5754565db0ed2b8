"""One-channel data: exact through the harness, with methods and classifiers of one channel and of three."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import training_world as world
from PIL import Image

from srbench import weights
from srbench.data.catalogue import open_source
from srbench.errors import UsageError
from srbench.evaluation import evaluate
from srbench.imaging.colour import to_channels
from srbench.imaging.decode import header_of
from srbench.networks.classifiers import Classifier, ClassifierInfo
from srbench.training.api import train

GREY = '''
import dataclasses
import torch
from torch import nn
from srbench.method import Method, MethodInfo
from srbench.imaging.resample import resize
from srbench.training import losses
from srbench.training.recipe import Recipe


class Grey(Method):
    """A bilinear resize of one channel and a small correction."""

    info = MethodInfo(role="network", family="test", version="1", channels=1)
    recipes = {"default": Recipe(losses={"l1": 1.0}, epochs=2, batch_size=8, lr=1e-3, select="psnr")}

    def __init__(self) -> None:
        super().__init__()
        self.tail = nn.Conv2d(1, 1, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)

    def forward(self, lr, size):
        assert lr.shape[1] == 1
        up = resize(lr, size, "bilinear")
        return up + self.tail(up)

    def training_step(self, batch, teacher, classifier):
        assert batch.hr.shape[1] == batch.lr.shape[1] == 1
        return losses.terms(self.recipe.losses, self(batch.lr, batch.sr_size), batch)
'''

TINTED = '''
from srbench.method import Method, MethodInfo
from srbench.imaging.resample import resize
import torch


class Tinted(Method):
    """Bilinear with colours that cancel in the mean."""

    info = MethodInfo(role="baseline", family="test", version="1")

    def forward(self, lr, size):
        return resize(lr, size, "bilinear") + torch.tensor([0.125, -0.125, 0.0]).view(1, 3, 1, 1)
'''


def make_grey(folder, count=24, *, colour=0):
    """Write one-channel images in class folders; `colour` of them as RGB."""
    world.make_images(folder, count)
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        if number >= colour:
            with Image.open(path) as image:
                grey = image.convert("L")
            grey.save(path)
    return folder


def grey_classifier(name="grey"):
    torch.manual_seed(0)
    args = {"num_classes": 3, "in_chans": 1, "channels": (8, 8, 8, 8), "layers": (1, 1, 1, 1), "stem_width": 8}
    extra = {
        "library": "timm",
        "name": "resnet10t",
        "args": args,
        "mean": [0.4],
        "std": [0.2],
        "classes": list(world.CLASSES),
        "in_chans": 1,
    }
    network = timm.create_model("resnet10t", **args)
    card = weights.Card(namespace="classifiers", name=name, extra=extra)
    weights.save(weights.weights_dir() / "classifiers" / f"{name}.safetensors", network.state_dict(), card)
    return name


class TestToChannels:
    def test_grey_goes_through_three_channels_to_the_bit(self):
        grey = torch.rand(4, 1, 9, 7)
        assert torch.equal(to_channels(to_channels(grey, 3), 1), grey)

    def test_the_mean_of_colours(self):
        image = torch.rand(2, 3, 5, 5)
        assert torch.allclose(to_channels(image, 1), image.mean(dim=1, keepdim=True), atol=1e-6)

    def test_a_classifier_of_one_channel_sees_grey_as_it_is(self):
        seen = []

        class Spy(torch.nn.Module):
            def forward(self, image):
                seen.append(image)
                return image.flatten(1)[:, :2]

        info = ClassifierInfo("spy", "timm", "spy", {}, "", (0.25,), (0.5,), None, 1, None, 2)
        grey = torch.rand(3, 1, 6, 6)
        classifier = Classifier(info, Spy())
        classifier(grey)
        classifier(to_channels(grey, 3))
        assert torch.equal(seen[0], (grey - 0.25) / 0.5)
        assert torch.equal(seen[1], seen[0])


class TestSources:
    def test_channels_are_those_of_the_files(self, tmp_path):
        assert open_source(f"folder:{make_grey(tmp_path / 'grey')}").channels == 1
        assert open_source(f"folder:{make_grey(tmp_path / 'mixed', colour=1)}").channels == 3
        assert open_source("demo").channels == 3

    @pytest.mark.parametrize(
        ("shape", "expected"),
        [((8, 9), (8, 9, 1)), ((1, 8, 9), (8, 9, 1)), ((8, 9, 3), (8, 9, 3)), ((3, 8, 9), (8, 9, 3))],
    )
    def test_headers_of_arrays(self, tmp_path, shape, expected):
        np.save(tmp_path / "a.npy", np.zeros(shape, dtype=np.float32))
        header = header_of(tmp_path / "a.npy")
        assert (header.height, header.width, header.channels) == expected

    def test_what_is_no_image_has_no_header(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"no image")
        assert header_of(tmp_path / "a.png") is None


def save_untrained(name="mine"):
    """Save weights with which the grey method is bilinear resizing, to the bit."""
    state = {"tail.weight": torch.zeros(1, 1, 3, 3), "tail.bias": torch.zeros(1)}
    card = weights.Card(namespace="grey_method", name=name)
    weights.save(weights.weights_dir() / "grey_method" / f"{name}.safetensors", state, card)
    return {"grey_method": [name]}


@pytest.fixture
def plugins(tmp_path):
    files = []
    for name, text in (("grey_method", GREY), ("tinted", TINTED)):
        files.append(tmp_path / f"{name}.py")
        files[-1].write_text(text)
    return files


class TestEvaluation:
    def test_methods_of_one_and_three_channels_on_grey_data(self, own_folders, tmp_path, plugins):
        table = evaluate(
            ["bilinear", "grey_method", "tinted"],
            data=f"folder:{make_grey(tmp_path / 'photos')}",
            protocol=world.make_protocol(tmp_path),
            plugins=plugins,
            classifiers=[grey_classifier()],
            weights=save_untrained(),
            out=tmp_path / "out",
            progress=False,
        ).leaderboard.set_index("method")
        assert list(table.loc[["bilinear", "grey_method", "tinted", "original"], "status"]) == ["ok"] * 4
        for column in ("psnr", "ssim", "cross_entropy", "accuracy"):
            assert table.loc["grey_method", column] == table.loc["bilinear", column]
            # its colours cancel in the mean up to what float32 does to values half-way between two levels of 8 bits
            assert table.loc["tinted", column] == pytest.approx(table.loc["bilinear", column], abs=0.1)
        assert table.loc["grey_method", "macs"] == 9 * world.SIDE**2  # of one channel, not of three
        assert table.loc["grey_method", "latency_ms"] > 0

    def test_a_method_of_one_channel_is_skipped_on_colour(self, own_folders, tmp_path, plugins):
        row = evaluate(
            ["grey_method"],
            data=f"images:{make_grey(tmp_path / 'photos', 4, colour=1)}",
            protocol=world.make_protocol(tmp_path),
            plugins=plugins,
            weights=save_untrained(),
            out=tmp_path / "out",
            progress=False,
            measure=False,
        ).leaderboard.set_index("method").loc["grey_method"]  # fmt: skip
        assert row["status"] == "skipped"
        assert row["reason"] == "it takes 1-channel images, the data has 3"


class TestTraining:
    def test_a_method_of_one_channel(self, own_folders, tmp_path, plugins):
        shared = {"plugins": plugins, "progress": False, "protocol": world.make_protocol(tmp_path)}
        grey = f"folder:{make_grey(tmp_path / 'grey')}"
        result = train("grey_method", data=[grey], out=tmp_path / "train", **shared)
        assert result.history["val_psnr"].iloc[-1] > result.history["val_psnr"].iloc[0] > 15
        colour = f"images:{make_grey(tmp_path / 'photos', colour=24)}"
        with pytest.raises(UsageError, match=r"grey_method takes 1-channel images here, images:photos has 3"):
            train("grey_method", data=[colour], out=tmp_path / "other", **shared)
