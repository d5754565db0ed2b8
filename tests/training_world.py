"""A small world to train in: images of three classes, a tiny classifier, and methods in plugin files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from srbench import weights

CLASSES = ("across", "down", "spots")
SIDE = 24

METHOD = '''
import torch
from torch import nn
from srbench.method import Method, MethodInfo
from srbench.imaging.resample import resize
from srbench.training import losses
from srbench.training.recipe import Augment, Recipe


class Tiny(Method):
    """A bilinear resize and a small correction."""

    info = MethodInfo(role="network", family="test", version="1")
    recipes = {
        "default": Recipe(losses={"logits": 1.0}, epochs=2, batch_size=8, lr=3e-3),
        "pixels": Recipe(losses={"l1": 1.0}, epochs=2, batch_size=8, lr=3e-3, select="psnr"),
    }
    tiny = {"width": 4}

    def __init__(self, width: int = 4, norm: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width) if norm else nn.Identity(), nn.ReLU()
        )
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, lr, size):
        up = resize(lr, size, "bilinear")
        return up + self.tail(self.body(up))

    def training_step(self, batch, teacher, classifier):
        BODY
        sr = self(batch.lr, batch.sr_size)
        return losses.terms(self.recipe.losses, sr, batch, network=classifier or teacher)
'''

GAN = '''
import torch
from torch import nn
from srbench.method import Method, MethodInfo
from srbench.protocol import Restoration
from srbench.restore import restore
from srbench.training import losses
from srbench.training.networks import Discriminator, frozen
from srbench.training.recipe import Recipe


class Gan(Method):
    """Doubles by nearest and corrects; a discriminator watches."""

    info = MethodInfo(role="network", family="test", version="1", factor=2)
    recipes = {"default": Recipe(losses={"l1": 1.0, "adversarial": 0.1}, epochs=2, batch_size=8, select="none")}

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3, padding=1)
        self._helpers = {}

    def forward(self, lr, size):
        return self.body(lr.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))

    def helpers(self):
        if not self._helpers:
            self._helpers["discriminator"] = Discriminator(features=4, stages=2)
        return self._helpers

    def helper_step(self, name, batch, sr):
        assert not sr.requires_grad and sr.shape == batch.hr.shape
        return losses.discriminator(self._helpers[name](batch.hr), self._helpers[name](sr))

    def training_step(self, batch, teacher, classifier):
        sr = restore(self, batch.lr, batch.sr_size, restoration=Restoration(), numerics=None)
        discriminator = self._helpers["discriminator"]
        with frozen(discriminator):
            adversarial = losses.adversarial(discriminator(batch.hr).detach(), discriminator(sr))
        return losses.terms(self.recipe.losses, sr, batch) | {"adversarial": adversarial}
'''


@contextmanager
def own_place(tmp_path_factory: pytest.TempPathFactory, *, count: int = 60, side: int = SIDE) -> Iterator[Path]:
    """Yield a folder with images, a classifier, a protocol and a method; inside, caches and weights are its own.

    Args:
        tmp_path_factory: Makes the folder.
        count: Number of images.
        side: Their side, pixels.
    """
    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRBENCH_CACHE", str(root / "cache"))
        patch.setenv("SRBENCH_WEIGHTS", str(root / "weights"))
        make_images(root / "photos", count, side=side)
        make_classifier()
        make_protocol(root)
        make_method(root)
        yield root


def make_images(folder: Path, count: int = 60, *, labelled: bool = True, side: int = SIDE) -> Path:
    """Write `count` images, `labelled` in one folder per class."""
    generator = np.random.default_rng(0)
    ramp = np.linspace(0, 4 * np.pi, side)
    for number in range(count):
        kind = number % len(CLASSES)
        wave = 0.5 + 0.4 * np.sin(ramp + generator.uniform(0, 6))
        plane = {0: np.tile(wave, (side, 1)), 1: np.tile(wave[:, None], (1, side)), 2: np.outer(wave, wave)}[kind]
        pixels = plane[..., None] * generator.uniform(0.5, 1, 3) + generator.normal(0, 0.05, (side, side, 3))
        place = folder / CLASSES[kind] if labelled else folder
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))
        image.save(place / f"{number:04d}.png")
    return folder


def make_classifier(name: str = "tiny", classes: tuple[str, ...] = CLASSES, *, seed: int = 0) -> str:
    """Save an untrained classifier under a name in the user's folder."""
    torch.manual_seed(seed)
    args = {"num_classes": len(classes), "channels": (8, 8, 8, 8), "layers": (1, 1, 1, 1), "stem_width": 8}
    network = timm.create_model("resnet10t", **args)
    extra = {
        "library": "timm",
        "name": "resnet10t",
        "args": args,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "classes": list(classes),
    }
    card = weights.Card(namespace="classifiers", name=name, extra=extra)
    weights.save(weights.weights_dir() / "classifiers" / f"{name}.safetensors", network.state_dict(), card)
    return name


def make_method(folder: Path, name: str = "tiny_method", body: str = "") -> Path:
    """Write a method's plugin file; `body` are statements at the start of its training step."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    indented = textwrap.indent(textwrap.dedent(body).strip() or "pass", " " * 8).lstrip()
    path.write_text(METHOD.replace("BODY", indented))
    return path


def make_gan(folder: Path) -> Path:
    """Write the plugin file of a method with a discriminator."""
    path = folder / "tiny_gan.py"
    path.write_text(GAN)
    return path


def make_protocol(folder: Path) -> str:
    """Write a protocol without resizing at scale 0.5."""
    path = folder / "half.toml"
    path.write_text("[hr]\nmodulo = 2\n[lr]\nscale = 0.5\n")
    return str(path)


def run_two_ranks(script: Path, text: str, jobs: list[Any], *, timeout: int) -> None:
    """Run a script of this text under torchrun with two processes; `jobs` is its argument, as JSON."""
    script.write_text(textwrap.dedent(text))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(script), json.dumps(jobs)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
