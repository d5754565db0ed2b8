"""The frozen teacher: it stays frozen, and its logits of HR are computed once and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol as TypingProtocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srbench.compute.numerics import full_precision
from srbench.errors import TrainingError
from srbench.networks.classifiers import Classifier
from srbench.networks.outputs import flat
from srbench.training.crops import RawBatch
from srbench.training.images import ImageSet, Positions
from srbench.training.rows import CachedRows

# Fixed, so that a row's value never depends on the recipe or on how far an earlier run came.
_BLOCK = 32
_SAMPLED, _SMALLEST_VARIANCE = 64, 1e-12


def freeze(network: nn.Module) -> None:
    """Put a network into eval mode and switch its gradients off."""
    network.eval()
    network.requires_grad_(False)


def check_frozen(teacher: nn.Module, who: str) -> None:
    """Raise if somebody has thawed the teacher.

    Raises:
        TrainingError: If any of its modules is in train mode, or any parameter wants a gradient.
    """
    if any(module.training for module in teacher.modules()):
        raise TrainingError(
            f"{who} put the teacher into train mode; its statistics would drift, so the target would move:"
            " leave the teacher alone in training_step"
        )
    if any(parameter.requires_grad for parameter in teacher.parameters()):
        raise TrainingError(f"{who} switched the teacher's gradients on; the teacher must stay frozen")


class TeacherLogits:
    """The teacher's logits of every HR image of a set, float32, in a file of the cache."""

    def __init__(self, images: ImageSet, teacher: Classifier, *, flipped: bool, device: torch.device) -> None:
        """Open the file; rows are computed by `fill`."""
        self._images, self._teacher, self._flipped, self._device = images, teacher, flipped, device
        side = "flipped" if flipped else "plain"
        self._cache = CachedRows(
            f"{teacher.info.sha256[:24]}-{device.type}",
            f"{images.key[:40]}-{side}",
            shape=(len(images), teacher.info.n_classes),
            dtype=np.dtype(np.float32),
        )

    def fill(self, *, rank: int, world: int, advance: Callable[[int], None]) -> None:
        """Compute this rank's share of the rows that are missing."""
        self._cache.fill(self._images.batches(_BLOCK)[rank::world], self._compute, advance)

    def rows(self, positions: Positions) -> Tensor:
        """Return the logits at `positions`, `(N, K)`, float32."""
        return torch.from_numpy(self._cache.read(positions))

    def _compute(self, positions: Positions) -> NDArray[np.float32]:
        hr, _ = self._images.read(positions)
        image = hr.to(self._device).float().div_(255)
        return teacher_logits(self._teacher, image.flip(-1) if self._flipped else image).cpu().numpy()


class HrLogits(TypingProtocol):
    """A network's logits of the HR images of a set."""

    def rows(self, positions: Positions) -> Tensor:
        """Return the logits at `positions`, `(N, K)` or `(N, K, H, W)`, float32; all images of one shape."""


def is_cached(network: Classifier) -> bool:
    """Say whether a network's logits of HR are kept in a file: maps of them would fill the disk."""
    return network.info.answers == "scores"


class FreshLogits:
    """A network's logits of the HR images of a set, computed whenever they are asked for."""

    def __init__(self, images: ImageSet, network: Classifier, *, device: torch.device) -> None:
        """Keep where images and network are."""
        self._images, self._network, self._device = images, network, device

    def rows(self, positions: Positions) -> Tensor:
        """Return the logits at `positions`, `(N, K, H, W)`, float32; all images of one shape."""
        hr, _ = self._images.read(positions)
        return teacher_logits(self._network, hr.to(self._device).float().div_(255))


class Teacher:
    """A frozen classifier with its logits of HR, cached for whole HR crops, mirrored ones too, or computed as needed.

    Attributes:
        network: The classifier.
        unit: What the squared difference of its logits is divided by.
    """

    def __init__(self, network: Classifier, *, unit: float = 1.0, cached: Sequence[HrLogits] = ()) -> None:
        """Take over a frozen classifier.

        Args:
            network: The classifier.
            unit: See above.
            cached: Its logits of the training images, and those of the mirrored ones where images are mirrored.
        """
        self.network, self.unit, self._cached = network, unit, tuple(cached)

    def logits(self, raw: RawBatch, hr: Tensor, *, whole: bool) -> Tensor:
        """Return the logits of a batch, `(N, K)` float32, on the device of `hr`.

        Args:
            raw: The batch as it was read.
            hr: The images that the teacher sees, `(N, C, H, W)`, RGB or grey, float32, [0, 1], mirrored as drawn.
            whole: Whether these are the whole HR crops at their own size, whose logits may be cached.
        """
        if not whole or not self._cached:
            return teacher_logits(self.network, hr)
        rows = self._cached[0].rows(raw.positions)
        if raw.flipped.any():
            rows[torch.from_numpy(raw.flipped)] = self._cached[1].rows(raw.positions[raw.flipped])
        return rows.to(hr.device)


def logits_variance(network: nn.Module, images: ImageSet, device: torch.device) -> float:
    """Return the variance of a classifier's logits over its outputs and over images spread evenly over a set."""
    chosen = np.unique(np.linspace(0, len(images) - 1, _SAMPLED).round().astype(np.int64))
    rows = []
    for position in chosen:
        hr, _ = images.read(np.array([position]))
        rows.append(teacher_logits(network, hr.to(device).float().div_(255)))
    return max(float(torch.cat([flat(row).flatten() for row in rows]).double().var(correction=0)), _SMALLEST_VARIANCE)


@torch.no_grad()
def teacher_logits(teacher: nn.Module, image: Tensor) -> Tensor:
    """Return the teacher's logits in full precision, whatever the precision of training is."""
    with full_precision(image.device):
        return teacher(image.float()).float()
