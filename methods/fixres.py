"""The control of input size: bilinear to the best size, at which the last layer and the batch norms are fine-tuned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from srbench.errors import UsageError
from srbench.imaging.resample import resize
from srbench.imaging.sizes import at_side
from srbench.method import MethodInfo
from srbench.training.network_behind import last_layer
from srbench.training.norms import batch_norms
from srbench.training.recipe import Augment, Recipe
from srbench.training.trainable import Trainable

# As many image-steps as `retrained`; Touvron et al. fine-tune by SGD as well.
_DEFAULT = Recipe(
    losses={"ce": 1.0},
    epochs=10,
    batch_size=16,
    optimizer="sgd",
    lr=0.005,
    momentum=0.9,
    schedule="cosine",
    label_smoothing=0.1,
    augment=Augment(flip=True),
    track="adapted",
    unit_scale=False,
    store_fp16=True,
)


class FixRes(Trainable):
    """Bilinear resizing to the input size that is best for the network behind, whose last layers are tuned to it.

    A method that does not beat it has gained no more than a smaller image would have, for less arithmetic.

    Attributes:
        input_size: Shortest side that the network behind sees, pixels; 0 is the size that is asked for.
    """

    info = MethodInfo(
        role="control",
        family="interpolation",
        version="1",
        output="own",
        citation="Touvron et al. 2019, arXiv 1906.06423 (FixRes)",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "default": _DEFAULT,
        "logits": dataclasses.replace(_DEFAULT, losses={"logits": 1.0}, optimizer="adam", lr=1e-3),
        "cpu-small": dataclasses.replace(_DEFAULT, epochs=4, steps_per_epoch=25, optimizer="adam", lr=1e-3),
        "demo": dataclasses.replace(_DEFAULT, steps_per_epoch=50),
    }

    def __init__(self, input_size: int = 0) -> None:
        """Build the method.

        Args:
            input_size: Shortest side that the network behind sees, pixels. 0 chooses it before training, on the
                validation images, among the multiples of 32 between LR and HR.

        Raises:
            UsageError: If it is negative.
        """
        super().__init__()
        if input_size < 0:
            raise UsageError(f"fixres takes an input_size of at least 1 pixel, or 0 to choose it, got {input_size}")
        self.input_size = input_size

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize `(N, C, h, w)`, RGB, float, [0, 1], to the proportions of `size`, the shortest side `input_size`."""
        if not self.input_size:
            return resize(lr, size, "bilinear")
        return resize(lr, at_side(size, self.input_size), "bilinear")

    def choose_parameters(self, input_sizes: Sequence[int], score: Callable[[], float]) -> Mapping[str, Any]:
        """Choose the input size at which the network behind, as it is, scores best; the smaller one of equals."""
        if self.input_size:
            return {}
        scores: dict[int, float] = {}
        for self.input_size in input_sizes:
            scores[self.input_size] = score()
        self.input_size = min(scores, key=scores.__getitem__)
        return {"input_size": self.input_size}

    def adapt(self, classifier: nn.Module) -> None:
        """Freeze everything but the last layer and the batch norms.

        Raises:
            UsageError: If the network behind insists on a size, or has no last layer.
        """
        info = getattr(classifier, "info", None)
        if info is not None and info.input_size is not None:
            raise UsageError(
                f"classifier {info.id} takes only {info.input_size} x {info.input_size} images, so fixres has no size"
                " to choose; take a classifier of any size"
            )
        classifier.requires_grad_(False)
        for layer in (last_layer(classifier), *batch_norms(classifier)):
            layer.requires_grad_(True)
