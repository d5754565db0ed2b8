"""Small images, a small classifier that knows them, and small methods: what drives the whole pipe in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from srbench import weights
from srbench.weights import Card

ARCH = "test_resnet"
WNIDS = ("n01440764", "n01443537", "n01484850")
CLASSES = ("bar", "dot", "net")


class MeanCritic(nn.Module):
    """Stands in for a discriminator: scores an image by its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, image: Tensor) -> Tensor:
        """Return scores `(N, 1)`."""
        return self.gain * image.mean(dim=(1, 2, 3))[:, None]


def n_parameters(network: nn.Module) -> int:
    """Return how many numbers a network learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def pixels(label: int, number: int, side: int) -> np.ndarray:
    """Return an image whose fine texture tells its class, `(side, side, 3)` uint8."""
    random = np.random.default_rng(1000 * label + number)
    rows, columns = np.mgrid[:side, :side]
    period, phase = 3 + label, int(random.integers(0, 5))
    texture = ((rows + phase) % period < 1) if label % 2 else ((rows * 2 + columns + phase) % period < 1)
    base = random.uniform(60, 160, 3)
    noisy = base + 70 * texture[..., None] + random.normal(0, 12, (side, side, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def make_images(
    folder: Path, per_class: int = 8, *, side: int = 24, classes: Sequence[str] = CLASSES, suffix: str = ".png"
) -> Path:
    """Write `per_class` images of every class as one folder per class; return the folder."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            Image.fromarray(pixels(label, number, side)).save(folder / name / f"{number:04d}{suffix}")
    return folder


def evaluator(data: Path, card: Path, protocol: Path | str, out: Path, **settings: Any) -> Callable[..., Any]:
    """Return a function that evaluates methods, bilinear if none is named; its options go before these `settings`."""
    from srbench import evaluate

    usual = {"data": f"folder:{data}", "classifiers": [str(card)], "protocol": str(protocol), "out": out}
    usual |= {"measure": False, "progress": False}

    def run(*methods: str, **options: Any) -> Any:
        return evaluate(list(methods) or ["bilinear"], **(usual | settings | options))

    return run


def make_classifier(
    folder: Path,
    stem: str = "dummy",
    *,
    classes: Sequence[str] = CLASSES,
    side: int = 24,
    seed: int = 0,
    **card: Any,
) -> Path:
    """Write a TOML card with weights and class names; the last layer is fitted so that it knows `pixels`."""
    import timm

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = timm.create_model(ARCH, num_classes=len(classes)).eval()
    with torch.inference_mode():
        images = np.array([pixels(label, number, side) for label in range(len(classes)) for number in range(40)])
        batch = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
        features = network.forward_head(network.forward_features(batch), pre_logits=True)
        scale = 1 / features.std()
        targets = torch.eye(len(classes), dtype=torch.float64).repeat_interleave(40, 0) * 8
        known = torch.cat([features * scale, torch.ones(len(features), 1)], 1).double()
        # A ridge keeps the weights small, so that rounding errors of the features stay small in the logits.
        solved = torch.linalg.solve(
            known.T @ known + 10 * torch.eye(known.shape[1]).double(), known.T @ targets
        ).float()
        network.get_classifier().weight.copy_(solved[:-1].T * scale)
        network.get_classifier().bias.copy_(solved[-1])
    save_file(network.state_dict(), folder / f"{stem}.safetensors")
    (folder / f"{stem}.txt").write_text("\n".join(classes) + "\n")
    fields = {
        "library": "timm",
        "name": ARCH,
        "args": {"num_classes": len(classes)},
        "weights": f"{stem}.safetensors",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "classes": f"{stem}.txt",
    } | card
    path = folder / f"{stem}.toml"
    write_card(path, fields)
    return path


def write_card(path: Path, fields: dict[str, Any]) -> Path:
    """Write a TOML file of plain values and one level of tables."""
    path.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in fields.items() if value is not None))
    return path


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)


PLUGIN = '''"""A method of a third party."""

from srbench.method import Method, MethodInfo
from srbench.imaging.resample import resize


class Mine(Method):
    info = MethodInfo(role="baseline", family="test", version="1")

    def forward(self, lr, size):
        return {body}
'''

TRAINABLE = '''"""A method with one parameter: bilinear times a gain."""

import torch

from srbench.method import Method, MethodInfo
from srbench.imaging.resample import resize
from srbench.training.recipe import Recipe


class Gain(Method):
    info = MethodInfo(role="network", family="test", version="1")
    recipes = {"plain": Recipe()}

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.offset = offset
        self.gain = torch.nn.Parameter(torch.ones(1))

    def forward(self, lr, size):
        return resize(lr, size, "bilinear") * self.gain + self.offset
'''


def plugin(folder: Path, stem: str, body: str = 'resize(lr, size, "area")', *, version: str = "1") -> Path:
    """Write a method whose forward returns the expression `body`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.py"
    path.write_text(PLUGIN.format(body=body).replace('version="1"', f'version="{version}"'))
    return path


def trainable(folder: Path, stem: str = "gain") -> Path:
    """Write a method that runs only with weights."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.py"
    path.write_text(TRAINABLE)
    return path


def save_gain(path: Path, gain: float = 1.0, *, namespace: str = "gain", **card: Any) -> weights.WeightsRef:
    """Save weights of `trainable`."""
    return weights.save(path, {"gain": torch.tensor([float(gain)])}, Card(namespace=namespace, name=path.stem, **card))
