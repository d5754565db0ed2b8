"""The rival that needs no restoration: the network behind takes LR at native size, taught by its own logits of HR."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from srbench.method import MethodInfo
from srbench.training.network_behind import check_factor, shrink_input
from srbench.training.recipe import Augment, Recipe
from srbench.training.trainable import Trainable

# As many image-steps as `retrained`.
_DEFAULT = Recipe(
    losses={"logits": 1.0},
    epochs=10,
    batch_size=16,
    lr=5e-4,
    schedule="cosine",
    warmup_steps=25,
    augment=Augment(flip=True),
    track="adapted",
    unit_scale=False,
    store_fp16=True,
)


class LrStudent(Trainable):
    """LR as it is, for a copy of the network behind that takes it: its early strides removed, or its patches smaller.

    A method that does not beat it, at the total arithmetic that both need, had better not restore at all.

    Attributes:
        factor: How many times smaller the side of an image is that the network behind takes.
    """

    info = MethodInfo(
        role="control",
        family="identity",
        version="1",
        output="lr",
        citation="distillation of Hinton et al. 2015, arXiv 1503.02531; patches resampled as in FlexiViT (CVPR 2023)",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "default": _DEFAULT,
        "cpu-small": dataclasses.replace(_DEFAULT, epochs=4, steps_per_epoch=25),
        "demo": dataclasses.replace(_DEFAULT, steps_per_epoch=50),
    }
    tiny: ClassVar[Mapping[str, Any]] = {"factor": 2}

    def __init__(self, factor: int = 4) -> None:
        """Build the method.

        Args:
            factor: How many times smaller the side of an image is that the network behind takes, a power of two. With
                that of the degradation its feature maps are as large as those of HR; a smaller one costs less.

        Raises:
            UsageError: If it is no power of two.
        """
        super().__init__()
        check_factor(factor)
        self.factor = factor

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return `(N, C, h, w)`, RGB, float, [0, 1], unchanged."""
        return lr

    def adapt(self, classifier: nn.Module) -> None:
        """Let the network behind take images that are `factor` times smaller.

        Raises:
            UsageError: If its structure cannot be changed so.
        """
        shrink_input(classifier, self.factor)
