"""The frozen method whose SR another is trained to make; its SR of whole images is computed once and kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srbench import weights
from srbench.compute.numerics import full_precision
from srbench.errors import UsageError
from srbench.imaging.colour import to_channels
from srbench.imaging.degrade import degrade
from srbench.method import Method
from srbench.protocol import Degradation, Protocol
from srbench.registry import Registry
from srbench.restore import restore
from srbench.training.crops import RawBatch
from srbench.training.images import ImageSet, Positions
from srbench.training.rows import CachedRows
from srbench.training.teacher import freeze

# Fixed as in `srbench.training.teacher`; a large network takes a second an image, so what a killed run loses is small.
_BLOCK = 4


class Imitated:
    """A frozen method with its SR of the training images.

    Attributes:
        ref: Where its weights are from.
        method: The method.
    """

    def __init__(self, spec: str, registry: Registry, *, protocol: Protocol, device: torch.device) -> None:
        """Build the method.

        Args:
            spec: "METHOD:WEIGHTS", weights being a name or a file.
            registry: All methods.
            protocol: How SR is brought to its size.
            device: Where it runs.

        Raises:
            UsageError: If the text does not name a method and its weights.
            WeightsError: If the weights cannot be had.
        """
        self.name, colon, named = spec.partition(":")
        if not colon or not named:
            raise UsageError(
                f"imitates={spec!r} names no weights; give a method and its weights, such as"
                " imitates=esrgan:df2k-psnr-x4"
            )
        method_class = registry.get(self.name)
        self.ref = weights.find(self.name, named, method_class.weights)
        self.method: Method = method_class.from_weights(weights.load(self.ref))
        self.method.prepare(protocol)
        freeze(self.method.to(device))
        self._protocol, self._device = protocol, device
        self._cache: CachedRows | None = None

    def identity(self) -> dict[str, str]:
        """Return what the card says of it."""
        return {"method": self.name, "weights": self.ref.label, "sha256": self.ref.sha256, "licence": self.ref.licence}

    def keep(
        self,
        images: ImageSet,
        degradation: Degradation,
        *,
        rank: int,
        world: int,
        advance: Callable[[int], None],
    ) -> None:
        """Compute this rank's share of the SR of whole images, all of one size, and keep it in the cache, 8 bits.

        Args:
            images: The training images.
            degradation: How LR is made of HR, without anything that is drawn.
            rank: Number of this process.
            world: Number of all.
            advance: Called with the number of images newly done.
        """
        size = self._protocol.sr_size(*(int(side) for side in images.shapes[0]))
        self._cache = CachedRows(
            f"sr-{self.ref.sha256[:24]}-{self._protocol.fingerprint[:16]}-{self._device.type}",
            images.key[:40],
            shape=(len(images), self.method.info.channels, *size),
            dtype=np.dtype(np.uint8),
        )

        def compute(positions: Positions) -> NDArray[np.uint8]:
            hr, lr = images.read(positions)
            given = (hr if lr is None else lr).to(self._device).float().div_(255)
            small = to_channels(given, self.method.info.channels)
            if lr is None:
                small = degrade(small, degradation, grey=images.channels == 1)
            return self._restored(small, size).mul(255).round().to(torch.uint8).cpu().numpy()

        self._cache.fill(images.batches(_BLOCK)[rank::world], compute, advance)

    def sr(self, raw: RawBatch, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the method's SR of a batch, `(N, C, H, W)`, RGB, float32, [0, 1], on the device of `lr`.

        What is kept is mirrored with the image, which differs a little from the SR of the mirrored image.

        Args:
            raw: The batch as it was read.
            lr: Its LR, `(N, C, h, w)`, RGB, float32, [0, 1].
            size: (height, width) of SR.
        """
        if self._cache is None:
            return self._restored(lr, size)
        rows = torch.from_numpy(self._cache.read(raw.positions))
        flipped = torch.from_numpy(raw.flipped)
        if flipped.any():
            rows[flipped] = rows[flipped].flip(-1)
        return rows.to(lr.device).float().div_(255)

    @torch.no_grad()
    def _restored(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        with full_precision(lr.device):
            sr = restore(self.method, lr.clone(), size, restoration=self._protocol.sr, numerics=None, name=self.name)
        return sr.clamp(0, 1)
