"""The control that is needed: the classifier trained on bilinear-restored images, and no method at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from srbench.imaging.resample import resize
from srbench.method import MethodInfo
from srbench.training.recipe import Augment, Recipe
from srbench.training.trainable import Trainable

# Image-steps are epochs x steps x batch. Each recipe has as many as the method's that it is compared to, both of its
# stages together; with other figures there, set `epochs` here so that the products are equal.
_DEFAULT = Recipe(
    losses={"ce": 1.0},
    epochs=10,
    batch_size=16,
    optimizer="sgd",
    lr=0.005,
    momentum=0.9,
    schedule="step",
    gamma=0.94,
    decay_every=2,
    label_smoothing=0.1,
    augment=Augment(flip=True),
    track="adapted",
    unit_scale=False,
    store_fp16=True,
)


class Retrained(Trainable):
    """Bilinear resizing, for which the classifier is trained.

    A learned method that does not beat it, at the same number of images seen, has gained by training and not by
    restoring.
    """

    info = MethodInfo(
        role="control",
        family="interpolation",
        version="1",
        citation="the control of SR4IR (CVPR 2024): classifier trained on restored images",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "default": _DEFAULT,
        "logits": dataclasses.replace(_DEFAULT, losses={"logits": 1.0}, optimizer="adam", lr=1e-4),
        "demo": dataclasses.replace(_DEFAULT, epochs=10, steps_per_epoch=50),
        "iqa": dataclasses.replace(
            _DEFAULT,
            losses={"emd": 1.0},
            label_smoothing=0.0,
            epochs=6,
            steps_per_epoch=50,
            batch_size=32,
            optimizer="adam",
            lr=3e-4,
            schedule="cosine",
            patch=64,
            select="emd",
        ),
        "detection": dataclasses.replace(
            _DEFAULT,
            losses={"boxes": 1.0},
            label_smoothing=0.0,
            batch_size=8,
            optimizer="adamw",
            lr=2e-4,
            schedule="cosine",
            clip_norm=5.0,
            select="box_f1",
        ),
    }

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize `(N, C, h, w)`, RGB, float, [0, 1], to `size`, exactly as the baseline `bilinear`."""
        return resize(lr, size, "bilinear")
