"""Shows the class that a classifier predicts for a picture before and after enlarging."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from srbench.compute.numerics import full_precision
from srbench.errors import ContractError, UsageError, sentence
from srbench.imaging.codecs import Pixels
from srbench.imaging.resample import resize
from srbench.imaging.tiles import enlarged_side, tiled
from srbench.method import TaskInfo
from srbench.networks.classifiers import Classifier, imagenet_wnids
from srbench.upscaling.engine import Engine
from srbench.upscaling.results import Guess

TOP = 5
_KERNEL_MARGIN = 4  # LR pixels that a cubic kernel needs around a tile


@dataclass(frozen=True)
class Guesser:
    """Names the likeliest classes of pictures before and after.

    Attributes:
        classifier: What is asked about sources.
        after: What is asked about results: the same, or the one that adapted weights bring.
        engine: What enlarges the pictures.
    """

    classifier: Classifier
    after: nn.Module
    engine: Engine

    @classmethod
    def of(cls, engine: Engine, classifier: Classifier) -> Guesser:
        """Bring a classifier to the engine's device, with the network that adapted weights put in its place."""
        classifier.to(engine.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        adapted = engine.loaded.track == "adapted"
        return cls(classifier, engine.loaded.adapted_network(classifier) if adapted else classifier, engine)

    def both(self, lr: Pixels, sr: Pixels) -> tuple[tuple[Guess, ...], tuple[Guess, ...]]:
        """Return the likeliest classes of the source, resized bilinearly, and of the result."""
        size = self.size(sr.shape[0], sr.shape[1])
        return (
            self._guess(self.classifier, self._view(lr, size, "bilinear")),
            self._guess(self.after, self._view(sr, size, self.engine.protocol.sr.kernel)),
        )

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) at which the classifier sees a result of (height, width).

        Where its architecture fixes a size, it is that one; else the result's, with no more pixels than the protocol's
        HR has.
        """
        if self.classifier.info.input_size is not None:
            return self.classifier.info.input_size, self.classifier.info.input_size
        side = self.engine.protocol.hr.crop
        shrink = min(1.0, side / math.sqrt(height * width)) if side is not None else 1.0
        return enlarged_side(height, shrink), enlarged_side(width, shrink)

    def _view(self, pixels: Pixels, size: tuple[int, int], kernel: str) -> Tensor:
        def resized(window: Tensor, target: tuple[int, int]) -> Tensor:
            return window if tuple(window.shape[-2:]) == target else resize(window, target, kernel)

        ratio = min(size[0] / pixels.shape[0], size[1] / pixels.shape[1], 1.0)
        # a tile that is shrunk must be large, or it would be all margin
        tile = None if self.engine.tile is None else max(self.engine.tile, math.ceil(8 * _KERNEL_MARGIN / ratio))
        resized_pixels = tiled(pixels, size, resized, tile=tile, margin=_KERNEL_MARGIN)
        image = torch.from_numpy(resized_pixels).permute(2, 0, 1)[None].to(self.engine.device).float() / 255
        return image.expand(-1, 3, -1, -1).contiguous()

    def _guess(self, network: nn.Module, image: Tensor) -> tuple[Guess, ...]:
        height, width = image.shape[-2:]
        where = f"classifier {self.classifier.id} on {width} x {height} pixels"
        try:
            with full_precision(image.device):
                logits = network(image).float()
        except Exception as error:
            # as for methods: the picture is named, the others go on
            raise ContractError(f"{where} fails: {sentence(error)}") from error
        if not bool(torch.isfinite(logits).all()):
            raise ContractError(f"{where} returned NaN or infinite logits; check its weights")
        likeliest = logits[0].softmax(0).topk(min(TOP, logits.shape[1]))
        pairs = zip(likeliest.values.tolist(), likeliest.indices.tolist(), strict=True)
        return tuple(Guess(_class_name(self.classifier, index), probability) for probability, index in pairs)


def check_applies(engine: Engine, classifier: Classifier | None) -> None:
    """Refuse a method that does not enlarge pictures, or does not go with the classifier.

    Raises:
        UsageError: Saying why.
    """
    loaded, method = engine.loaded, engine.method
    if method.info.output != "hr":
        what = "hands images on as they are" if method.info.output == "lr" else "chooses the size of its images itself"
        raise UsageError(f"method {loaded.name!r} {what}; choose one that enlarges")
    if method.info.channels not in (1, 3):
        raise UsageError(f"method {loaded.name!r} takes {method.info.channels}-channel images; pictures have 1 or 3")
    task = TaskInfo(name="upscale", protocol=engine.protocol, channels=method.info.channels)
    if classifier is not None:
        task = dataclasses.replace(
            task,
            classifier=classifier.id,
            classifier_sha256=classifier.info.weights_sha256,
            classifier_input_size=classifier.info.input_size,
        )
    reason = method.skip(task) if classifier is None else loaded.skip_reason(task)
    if reason is not None:
        raise UsageError(f"method {loaded.name!r} does not apply here: {reason}")


def _class_name(classifier: Classifier, index: int) -> str:
    if classifier.info.classes is None:
        return f"class {index}"
    name = classifier.info.classes[index]
    if classifier.info.classes != imagenet_wnids():
        return name
    from timm.data import ImageNetInfo

    return f"{name} {ImageNetInfo('imagenet-1k').index_to_description(index)}"
