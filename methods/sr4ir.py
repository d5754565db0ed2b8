"""SR4IR: super-resolution and a classifier trained in turn, by the classifier's features and on mixes of SR and HR."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from srbench.errors import UsageError, WeightsError
from srbench.imaging.resample import resize
from srbench.method import MethodInfo
from srbench.training.recipe import Augment, Recipe
from srbench.training.trainable import Trainable
from srbench.weights import WeightsFile, fill_state

_FACTOR = 4
_RANGE = 255.0  # pixels inside the network go up to it
_MEAN = (0.4488, 0.4371, 0.4040)  # mean of DIV2K, which EDSR subtracts

_CLASSIFIER = {"ce_sr": 0.34, "ce_hr": 0.34, "ce_mix": 0.34}
_NO_MIX = {"ce_sr": 0.5, "ce_hr": 0.5}
_SMALL = {"blocks": 4, "features": 32}

# Batch, rates, optimisers and weights of the terms are those of the authors' options for Stanford Cars; their rates
# fall to 1e-6 (1e-4 for the classifier), ours to zero. Their one run of 200 epochs, whose first 20 have the pixel loss
# alone and end with a restart of the cosine, is two runs here.
_PAPER = Recipe(
    losses={"l1": 1.0, "perceptual": 1.0},
    epochs=180,
    batch_size=128,
    optimizer="adamw",
    lr=1e-4,
    weight_decay=1e-4,
    schedule="cosine",
    unit_scale=False,
    track="adapted",
    classifier_losses=_CLASSIFIER,
    classifier_optimizer="sgd",
    classifier_lr=3e-2,
    augment=Augment(flip=True),
    parameters={"residual": False},
    select="accuracy",
)
_CPU = dataclasses.replace(
    _PAPER,
    epochs=8,
    steps_per_epoch=100,
    batch_size=8,
    lr=4e-4,
    weight_decay=0.0,
    warmup_steps=25,
    unit_scale=None,
    clip_norm=10.0,
    classifier_lr=3e-3,
    parameters=_SMALL,
    store_fp16=True,
)
_DEMO = dataclasses.replace(_CPU, epochs=6, steps_per_epoch=50, batch_size=16, parameters={"blocks": 2, "features": 32})


def _warm_up(recipe: Recipe, epochs: int) -> Recipe:
    return dataclasses.replace(recipe, losses={"l1": 1.0}, epochs=epochs, select="psnr")


class SR4IR(Trainable):
    """An EDSR under the difference of a classifier's features of SR and HR; the two are trained in turn.

    Parameter names in files are EDSR's own, so that its published x4 checkpoints are starting points.
    """

    info = MethodInfo(
        role="network",
        family="super-resolution",
        version="1",
        factor=_FACTOR,
        citation="Kim, Oh, Lee 2024: SR4IR, CVPR 2024, arXiv 2404.01692",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "paper-warm-up": _warm_up(_PAPER, 20),
        "paper": _PAPER,
        "cpu-small-warm-up": _warm_up(_CPU, 4),
        "cpu-small": _CPU,
        "cpu-small-frozen": dataclasses.replace(
            _CPU, track="frozen", classifier_losses={}, classifier_optimizer=None, classifier_lr=None
        ),
        "cpu-small-no-mix": dataclasses.replace(_CPU, classifier_losses=_NO_MIX),
        "cpu-small-no-features": dataclasses.replace(_CPU, losses={"l1": 1.0}),
        "detection": dataclasses.replace(_CPU, classifier_optimizer="adamw", classifier_lr=2e-4, select="box_f1"),
        "demo-warm-up": _warm_up(_DEMO, 4),
        "demo": _DEMO,
    }
    tiny: ClassVar[Mapping[str, Any]] = {"blocks": 1, "features": 8}

    feature_layer: ClassVar[str] = "last"
    mean: Tensor

    def __init__(self, blocks: int = 16, features: int = 64, *, residual: bool = True) -> None:
        """Build an untrained network.

        Args:
            blocks: Number of residual blocks; the published baseline has 16.
            features: Channels; the published baseline has 64.
            residual: Add the network's output to bilinear enlargement, from which training then starts. EDSR has no
                such path; a published checkpoint is read without it.

        Raises:
            UsageError: If a number is below 1.
        """
        super().__init__()
        if blocks < 1 or features < 1:
            raise UsageError(
                f"sr4ir takes blocks >= 1 and features >= 1, got blocks={blocks}, features={features};"
                " EDSR's baseline has 16 and 64"
            )
        self._residual = residual
        self.register_buffer("residual", torch.tensor(float(residual)))  # a published file says no by lacking it
        self.head = nn.Sequential(_convolution(3, features))
        self.body = nn.Sequential(*(_ResidualBlock(features) for _ in range(blocks)), _convolution(features, features))
        doublings = [layer for _ in range(2) for layer in (_convolution(features, 4 * features), nn.PixelShuffle(2))]
        self.tail = nn.Sequential(nn.Sequential(*doublings), _convolution(features, 3))
        if residual:
            nn.init.zeros_(self.tail[1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.tail[1].bias)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1) * _RANGE, persistent=False)

    @classmethod
    def from_weights(cls, loaded: WeightsFile) -> SR4IR:
        """Build the network of a checkpoint, of this method's or of a published EDSR of factor 4.

        Raises:
            WeightsError: If the file holds no EDSR of factor 4 for RGB images.
        """
        name = loaded.ref.path.name
        if loaded.ref.arguments:
            raise WeightsError(f"sr4ir reads its whole architecture from {name}; leave out what follows the ?")
        # The shift by the mean is a 1x1 convolution there; it is fixed, and the same in all of them.
        state = {key: value for key, value in loaded.state.items() if not re.match(r"(sub|add)_mean\.", key)}
        blocks = len([key for key in state if re.fullmatch(r"body\.\d+\.body\.0\.weight", key)])
        doublings = [key for key in state if re.fullmatch(r"tail\.0\.\d+\.weight", key)]
        first = state.get("head.0.weight")
        if not blocks or first is None or first.ndim != 4 or len(doublings) != 2:
            raise WeightsError(
                f"{name} holds no EDSR of factor {_FACTOR}, which sr4ir's networks are; use its own weights, or those"
                " that EDSR-PyTorch publishes"
            )
        state.setdefault("residual", torch.zeros(()))
        method = cls(blocks=blocks, features=first.shape[0], residual=bool(state["residual"]))
        fill_state(method, state, origin=name, expected="sr4ir")
        return method

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Enlarge `(N, 3, h, w)`, RGB, float, [0, 1], by 4, whatever `size` is."""
        features = self.head(lr * _RANGE - self.mean)
        residual = self.tail(features + self.body(features))
        if not self._residual:
            return (residual + self.mean) / _RANGE
        height, width = lr.shape[-2:]
        return resize(lr, (height * _FACTOR, width * _FACTOR), "bilinear") + residual / _RANGE

    def features_of(self, teacher: nn.Module | None, classifier: nn.Module | None) -> nn.Module | None:
        """Return the classifier as it has become so far."""
        return classifier if classifier is not None else teacher


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions and the identity around them; `(N, features, h, w)` stays that."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(features, features), nn.ReLU(), _convolution(features, features))

    def forward(self, features: Tensor) -> Tensor:
        """Refine features `(N, features, h, w)`."""
        return features + self.body(features)


def _convolution(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, padding=1)
