"""The learned resizer of Talebi and Milanfar: a small CNN beside a bilinear skip, for any factor up or down."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from srbench.errors import UsageError
from srbench.imaging.resample import resize
from srbench.method import MethodInfo
from srbench.training.recipe import Augment, Recipe
from srbench.training.trainable import Trainable

_SLOPE = 0.2  # every LeakyReLU has it (paper)

_PAPER = Recipe(  # the number of epochs and the batch are ours
    losses={"ce": 1.0},
    epochs=30,
    batch_size=32,
    optimizer="sgd",
    lr=0.005,
    momentum=0.9,
    schedule="step",
    gamma=0.94,
    decay_every=2,
    label_smoothing=0.1,
    unit_scale=False,
    track="adapted",
    norm_steps=50,
)
# Every pixel sums 49 taps of every filter, so that a small step of the last layer is a large one of the image, and
# gradients through a classifier are large where it is sure of itself: from a learning rate of 2e-3 on, a run of some
# hundred steps is spent on recovering from its first ones.
_SHORT_ADAPTED = dataclasses.replace(
    _PAPER,
    epochs=12,
    steps_per_epoch=100,
    batch_size=16,
    lr=5e-4,
    classifier_lr=5e-3,
    schedule="cosine",
    warmup_steps=25,
    clip_norm=0.5,
    augment=Augment(flip=True),
    norm_steps=20,
)
_FROZEN = Recipe(
    losses={"ce": 1.0},
    epochs=12,
    steps_per_epoch=100,
    batch_size=16,
    lr=3e-4,
    schedule="cosine",
    warmup_steps=25,
    label_smoothing=0.1,
    augment=Augment(flip=True),
    unit_scale=False,
    track="frozen",
    norm_steps=20,
)

_IQA = dataclasses.replace(  # the earth mover's distance is a tenth of a cross-entropy, and its gradients are
    _SHORT_ADAPTED,
    losses={"emd": 1.0},
    label_smoothing=0.0,
    epochs=6,
    steps_per_epoch=50,
    batch_size=32,
    optimizer="adam",
    lr=3e-4,
    classifier_lr=3e-4,
    patch=64,
    clip_norm=None,
    select="emd",
    norm_steps=10,
)


class LearnedResizer(Trainable):
    """Features computed at LR size, resized bilinearly, refined by residual blocks, added to the bilinear image.

    The last layer starts at zero, so that training starts from bilinear resizing.
    """

    info = MethodInfo(
        role="network",
        family="resizer",
        version="1",
        factor="any",
        citation="Talebi and Milanfar 2021, arXiv 2103.09950",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "paper": _PAPER,
        "transfer": dataclasses.replace(_PAPER, epochs=4),
        "cpu-small": _FROZEN,
        "cpu-small-adapted": _SHORT_ADAPTED,
        "logits": dataclasses.replace(_FROZEN, losses={"logits": 1.0}, label_smoothing=0.0),
        "iqa": _IQA,
        "detection": dataclasses.replace(
            _FROZEN, losses={"boxes": 1.0}, label_smoothing=0.0, batch_size=8, clip_norm=0.5, select="box_f1"
        ),
        "tiny-imagenet": dataclasses.replace(_PAPER, epochs=10, batch_size=128, augment=Augment(flip=True)),
        "tiny-imagenet-frozen": dataclasses.replace(_FROZEN, epochs=5, steps_per_epoch=None, batch_size=128),
        "demo-frozen": dataclasses.replace(_FROZEN, epochs=10, steps_per_epoch=50),
        "demo-adapted": dataclasses.replace(_SHORT_ADAPTED, epochs=10, steps_per_epoch=50),
    }
    tiny: ClassVar[Mapping[str, Any]] = {"filters": 4, "blocks": 1}

    def __init__(self, filters: int = 16, blocks: int = 1, *, antialias: bool = False) -> None:
        """Build an untrained resizer.

        Args:
            filters: Channels of the features, n in the paper.
            blocks: Number of residual blocks, r in the paper.
            antialias: Widen the bilinear kernel when shrinking; the paper's own resize does not.

        Raises:
            UsageError: If a number is below 1.
        """
        super().__init__()
        if filters < 1 or blocks < 1:
            raise UsageError(
                f"learned_resizer takes filters >= 1 and blocks >= 1, got filters={filters}, blocks={blocks};"
                " the paper's default is filters=16, blocks=1"
            )
        self.antialias = antialias
        self.head = nn.Sequential(
            nn.Conv2d(3, filters, 7, padding=3),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(filters, filters, 1),
            nn.LeakyReLU(_SLOPE),
            nn.BatchNorm2d(filters),
        )
        self.blocks = nn.Sequential(*(_ResidualBlock(filters) for _ in range(blocks)))
        self.body = nn.Sequential(nn.Conv2d(filters, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters))
        self.tail = nn.Conv2d(filters, 3, 7, padding=3)
        nn.init.zeros_(self.tail.weight)
        assert self.tail.bias is not None
        nn.init.zeros_(self.tail.bias)

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize `(N, 3, h, w)`, RGB, float, [0, 1], to `size`."""
        skip = resize(lr, size, "bilinear", antialias=self.antialias)
        features = resize(self.head(lr), size, "bilinear", antialias=self.antialias)
        features = features + self.body(self.blocks(features))
        return skip + self.tail(features)


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and the identity around them; `(N, n, H, W)` stays that."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(filters, filters, 3, padding=1, bias=False),
            nn.BatchNorm2d(filters),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(filters, filters, 3, padding=1, bias=False),
            nn.BatchNorm2d(filters),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Refine features `(N, n, H, W)`."""
        return features + self.layers(features)
