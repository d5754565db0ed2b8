"""What the trainable methods share: the recipe's terms on what a method restores, and a discriminator where asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from srbench.imaging.degrade import for_classifier, restore_size
from srbench.method import Batch, Method
from srbench.protocol import Protocol, Restoration
from srbench.restore import call, restore
from srbench.training import losses
from srbench.training.features import FeatureExtractor
from srbench.training.networks import Discriminator, frozen
from srbench.training.recipe import Recipe


class Trainable(Method):
    """A method trained by any sum of the named losses on its SR, at HR size.

    A subclass sets what every method sets (`info`, `recipes`, `forward`), and overrides what is its own: where
    features come from, or which game is played with the discriminator.

    Attributes:
        discriminator_features: Filters of the discriminator's first layer; only training with the term "adversarial"
            has one.
        feature_layer: Layer of the classifier that the terms "features" and "perceptual" compare; see
            `FeatureExtractor`.
    """

    discriminator_features: int = 64
    feature_layer: ClassVar[str] = "auto"

    def __init__(self) -> None:
        """Start with no recipe's terms and torch's antialiased bicubic return to size."""
        super().__init__()
        self.recipe = Recipe()
        self._restoration = Restoration()
        self._protocol: Protocol | None = None
        # Plain containers, so that what only training needs is no part of the state dict
        self._helpers: dict[str, nn.Module] = {}
        self._extractors: dict[nn.Module, FeatureExtractor] = {}

    def prepare(self, protocol: Protocol) -> None:
        """Take the kernel of the return to HR size, which training needs too, and how the classifier is shown SR."""
        self._restoration, self._protocol = protocol.sr, protocol

    def training_step(
        self, batch: Batch, teacher: nn.Module | None, classifier: nn.Module | None
    ) -> Mapping[str, Tensor]:
        """Return the terms of the recipe, on the classifier that is trained along or else on the frozen one."""
        wanted = self.recipe.losses
        sr, shown = self._restored(batch)
        sr = self.as_shown(sr)
        values = losses.terms(
            wanted,
            sr,
            batch,
            shown=shown,
            network=classifier if classifier is not None else teacher,
            extractor=self._extractor(self.features_of(teacher, classifier)),
            smoothing=self.recipe.label_smoothing,
        )
        if "adversarial" in wanted:
            with frozen(self.helpers()["discriminator"]) as discriminator:
                values["adversarial"] = self.adversarial(discriminator, batch.hr, sr)
        return values

    def as_shown(self, sr: Tensor) -> Tensor:
        """Return SR `(N, C, H, W)`, RGB, float, as the classifier is shown it in training, with gradient."""
        if self._protocol is not None and next(self.parameters(), None) is None:
            # Rounding has no gradient, so training leaves it out; where the method needs none, the classifier learns on
            # what it will be scored on. It would learn to read values between two levels of 8 bits else.
            return for_classifier(sr, self._protocol)
        return sr

    def _restored(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return SR at `batch.sr_size`, and at `batch.shown_size` where that is another size."""
        if batch.shown_size is None:
            return restore(self, batch.lr, batch.sr_size, restoration=self._restoration, numerics=None), None
        native = call(self, batch.lr, batch.sr_size, numerics=None).float()
        sizes = (batch.sr_size, batch.shown_size)
        sr, shown = (restore_size(native, size, self._restoration) for size in sizes)
        return sr, shown

    def helpers(self) -> Mapping[str, nn.Module]:
        """Return the discriminator, where the recipe has an adversarial term."""
        if "adversarial" in self.recipe.losses and not self._helpers:
            self._helpers["discriminator"] = Discriminator(
                channels=self.info.channels, features=self.discriminator_features
            )
        return self._helpers

    def helper_step(self, name: str, batch: Batch, sr: Tensor) -> Tensor:
        """Return the discriminator's loss."""
        return self.discriminating(self.helpers()[name], batch.hr, sr)

    def features_of(self, teacher: nn.Module | None, classifier: nn.Module | None) -> nn.Module | None:
        """Return the classifier whose features are compared: the frozen teacher."""
        return teacher

    def adversarial(self, discriminator: nn.Module, hr: Tensor, sr: Tensor) -> Tensor:
        """Return the method's part of the game, a scalar: the relativistic average loss of ESRGAN."""
        return losses.adversarial(discriminator(hr).detach(), discriminator(sr))

    def discriminating(self, discriminator: nn.Module, hr: Tensor, sr: Tensor) -> Tensor:
        """Return the discriminator's part of the game, a scalar: the relativistic average loss of ESRGAN."""
        return losses.discriminator(discriminator(hr), discriminator(sr))

    def _extractor(self, source: nn.Module | None) -> FeatureExtractor | None:
        if source is None or not losses.FEATURE_TERMS & set(self.recipe.losses):
            return None
        if source not in self._extractors:  # teachers come in turn, and choosing layers takes a pass
            self._extractors[source] = FeatureExtractor(
                source, self.feature_layer, stages="stages" in self.recipe.losses
            )
        return self._extractors[source]
