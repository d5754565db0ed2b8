"""Make basicsr.json: what BasicSR 1.4.2 computes for networks and images that formulas define.

Run where the extra `basicsr` is installed: python tests/golden/make_basicsr.py
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

BLOCKS, FEATURES = 2, 8
HERE = Path(__file__).resolve().parent


def wave(shape: tuple[int, ...], phase: float) -> torch.Tensor:
    """Return a tensor of `shape`, float32, [-1, 1], that needs no random generator to be made again."""
    index = np.arange(int(np.prod(shape)), dtype=np.float64)
    return torch.from_numpy(np.sin(1.7 * index + phase + np.sin(0.31 * index * phase))).reshape(shape).float()


def fill(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Return parameters of the given shapes, large enough that every one of them moves the output."""
    state = {}
    for number, (name, shape) in enumerate(shapes.items()):
        fan_in = int(np.prod(shape[1:])) or 1
        state[name] = wave(shape, 0.1 * number + 1) * (1.2 / np.sqrt(fan_in) if len(shape) > 1 else 0.05)
    return state


def image(height: int, width: int) -> torch.Tensor:
    """Return `(1, 3, height, width)`, RGB, float32, [0, 1]."""
    return wave((1, 3, height, width), 0.5) / 2 + 0.5


def pair() -> tuple[np.ndarray, np.ndarray]:
    """Return HR and SR `(40, 36, 3)`, RGB, uint8."""
    rows, columns = np.mgrid[0:40, 0:36]
    hr = np.stack([127 + 90 * np.sin(rows / 5 + c) * np.cos(columns / (4 + c)) for c in range(3)], axis=-1)
    sr = hr + 12 * np.sin(rows * columns / 7)[..., None] + np.array([1, -3, 2])
    return hr.round().clip(0, 255).astype(np.uint8), sr.round().clip(0, 255).astype(np.uint8)


def import_basicsr(module: str) -> object:
    """Import a module of BasicSR, which wants a module of torchvision that is gone."""
    alias = importlib.import_module("torchvision.transforms.functional")
    sys.modules.setdefault("torchvision.transforms.functional_tensor", alias)
    return importlib.import_module(module)


def measure() -> dict[str, object]:
    """Return BasicSR's output and metrics."""
    network = import_basicsr("basicsr.archs.rrdbnet_arch").RRDBNet(3, 3, num_feat=FEATURES, num_block=BLOCKS)
    network.load_state_dict(fill({key: tuple(value.shape) for key, value in network.state_dict().items()}))
    with torch.inference_mode():
        sr = network.eval()(image(3, 4))
    metrics = import_basicsr("basicsr.metrics")
    hr_bgr, sr_bgr = (array[..., ::-1] for array in pair())
    return {
        "keys": list(network.state_dict()),
        "shapes": [list(value.shape) for value in network.state_dict().values()],
        "rrdb": [round(float(value), 6) for value in sr.flatten()],
        "psnr_y": metrics.calculate_psnr(sr_bgr, hr_bgr, crop_border=4, test_y_channel=True),
        "psnr_rgb": metrics.calculate_psnr(sr_bgr, hr_bgr, crop_border=4),
        "ssim_y": metrics.calculate_ssim(sr_bgr, hr_bgr, crop_border=4, test_y_channel=True),
    }


if __name__ == "__main__":
    (HERE / "basicsr.json").write_text(json.dumps(measure()) + "\n", encoding="utf-8")
