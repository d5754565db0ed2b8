"""The control that learns nothing: bilinear images, and batch norms behind that know the statistics of such images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from srbench.errors import UsageError
from srbench.imaging.resample import resize
from srbench.method import Batch, MethodInfo
from srbench.training.network_behind import name_of
from srbench.training.norms import batch_norms, folded_norms
from srbench.training.recipe import Augment, Recipe
from srbench.training.trainable import Trainable

# Image-steps are norm_steps x batch here; an epoch must have as many batches.
_DEFAULT = Recipe(
    epochs=1,
    steps_per_epoch=500,
    norm_steps=500,
    batch_size=16,
    augment=Augment(flip=True),
    track="adapted",
    select="none",
    store_fp16=True,
)


class AdaBN(Trainable):
    """Bilinear resizing, for which the batch norms behind get new statistics: no labels, no gradients.

    A method that does not beat it has done no more than move the mean and the variance of features back.
    """

    info = MethodInfo(
        role="control", family="interpolation", version="1", citation="Li et al. 2016, arXiv 1603.04779 (AdaBN)"
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "default": _DEFAULT,
        "cpu-small": dataclasses.replace(_DEFAULT, steps_per_epoch=100, norm_steps=100),
        "demo": _DEFAULT,
    }

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize `(N, C, h, w)`, RGB, float, [0, 1], to `size`, exactly as the baseline `bilinear`."""
        return resize(lr, size, "bilinear")

    def adapt(self, classifier: nn.Module) -> None:
        """Look whether there is something to estimate.

        Raises:
            UsageError: If the network behind has no batch norms, or they have been folded into its convolutions.
        """
        norms = batch_norms(classifier)
        who = name_of(classifier)
        if not norms:
            raise UsageError(f"adabn estimates batch norms, and {who} has none; choose another classifier")
        if len(folded_norms(classifier)) == len(norms):
            raise UsageError(
                f"the batch norms of {who} have been folded into its convolutions (mean 0 and variance 1"
                " throughout), so adabn has no statistics to replace; choose a classifier whose weights still hold them"
            )

    def training_step(
        self, batch: Batch, teacher: nn.Module | None, classifier: nn.Module | None
    ) -> Mapping[str, Tensor]:
        """Show the classifier what it will be scored on; its batch norms are in train mode, all else is as it is."""
        assert classifier is not None  # training refuses a method without parameters in any other track
        norms = {id(norm) for norm in batch_norms(classifier)}
        for module in classifier.modules():  # dropout would move the statistics of what comes after it
            module.training = module.training and id(module) in norms
        classifier(self.as_shown(self(batch.lr, batch.sr_size)))
        return {}
