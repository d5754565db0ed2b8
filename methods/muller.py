"""MULLER: bilinear resizing that adds two amplified bands of detail; four scalars are all there is to train."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from srbench.errors import UsageError
from srbench.imaging.resample import gaussian_filter, resize
from srbench.method import MethodInfo
from srbench.training.recipe import Augment, Recipe
from srbench.training.trainable import Trainable

_STARTS = {  # gain and bias of each band
    "published": ((1.892, -0.014), (-11.295, 0.003)),  # for a ResNet-50 whose large input is shrunk
    "bilinear": ((0.0, 0.0), (0.0, 0.0)),
}
_RADIUS, _SIGMA = 2, 1.0  # the Gaussian, pixels

# The paper trains the four scalars together with the classifier; steps, batches and rates are ours. A step of Adam
# moves a scalar by about its rate. Where LR is enlarged the published gains are far too large, and a short run does not
# get away from them.
_FROZEN = Recipe(
    losses={"ce": 1.0},
    epochs=6,
    steps_per_epoch=100,
    batch_size=16,
    lr=1e-2,
    schedule="cosine",
    label_smoothing=0.1,
    augment=Augment(flip=True),
    unit_scale=False,
    parameters={"start": "bilinear"},
)
_ADAPTED = dataclasses.replace(_FROZEN, track="adapted", classifier_lr=1e-4, epochs=12)

_GPU = dataclasses.replace(_ADAPTED, epochs=30, steps_per_epoch=None, batch_size=64)


class Muller(Trainable):
    """Adds to the bilinear image what two Gaussian blurs take away, each band through a tanh of its own.

    For any factor, up or down. Untrained it has the values published for a ResNet-50 on ImageNet.
    """

    info = MethodInfo(
        role="network",
        family="resizer",
        version="1",
        factor="any",
        citation="Tu, Milanfar, Talebi 2023: MULLER, arXiv 2304.02859",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "cpu-small": _FROZEN,
        "cpu-small-adapted": _ADAPTED,
        "logits": dataclasses.replace(_FROZEN, losses={"logits": 1.0}, label_smoothing=0.0),
        "detection": dataclasses.replace(
            _FROZEN, losses={"boxes": 1.0}, label_smoothing=0.0, batch_size=8, select="box_f1"
        ),
        "gpu": _GPU,
        "published": dataclasses.replace(_GPU, parameters={}),
        "demo": dataclasses.replace(_FROZEN, steps_per_epoch=50),
        "demo-adapted": dataclasses.replace(_ADAPTED, epochs=10, steps_per_epoch=50),
    }
    tiny: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, *, start: str = "published") -> None:
        """Build it with the values that training starts from.

        Args:
            start: "published", or "bilinear": no band adds anything yet.

        Raises:
            UsageError: If there is no such start.
        """
        super().__init__()
        if start not in _STARTS:
            raise UsageError(f"muller takes start {' or '.join(_STARTS)}, got {start!r}")
        self.gains = nn.Parameter(torch.tensor([gain for gain, _ in _STARTS[start]]))
        self.biases = nn.Parameter(torch.tensor([bias for _, bias in _STARTS[start]]))

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize `(N, C, h, w)`, RGB, float, [0, 1], to `size`."""
        image, sr = lr, _resized(lr, size)
        for gain, bias in zip(self.gains, self.biases, strict=True):
            blurred = _blurred(image)
            sr = sr + torch.tanh(gain * _resized(blurred - image, size) + bias)
            image = blurred
        return sr


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    return resize(image, size, "bilinear", antialias=False)


def _blurred(image: Tensor) -> Tensor:
    """Blur `(N, C, H, W)` by five taps in each direction, zeros around the image."""
    return gaussian_filter(image, _RADIUS, _SIGMA, padding=_RADIUS)
