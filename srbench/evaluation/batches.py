"""Batches of an evaluation: a thread reads the next one ahead while the device works on this one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srbench import metrics
from srbench.data.hr_cache import HRStore
from srbench.evaluation.counters import Counters
from srbench.evaluation.options import PassSettings
from srbench.evaluation.sizes import SMALL_SIDE
from srbench.imaging.degrade import degrade
from srbench.imaging.sizes import at_side
from srbench.protocol import Protocol


@dataclass(frozen=True)
class Batch:
    """Images of one size on the device.

    Attributes:
        positions: Their places in the sample list, `(N,)` int64.
        rows: Their places in the chunk, `(N,)` int64, on the device.
        ids: Their ids.
        hr: `(N, 3, H, W)`, RGB, float32, [0, 1]; None of images that are small by nature.
        lr: `(N, 3, h, w)`, RGB, float32, or None where no method needs it.
        sr_size: Height and width of SR; those of LR where images are small by nature: each network says what it wants
            of them.
        statistics: What PSNR and SSIM need of HR alone; None without HR.
    """

    positions: NDArray[np.int64]
    rows: Tensor
    ids: list[str]
    hr: Tensor | None
    lr: Tensor | None
    sr_size: tuple[int, int]
    statistics: metrics.HrStatistics | None


class BatchReader:
    """Makes the batches of a task; a thread reads the pixels of the next one while this one is computed."""

    def __init__(
        self,
        hr_store: HRStore,
        protocol: Protocol,
        settings: PassSettings,
        counters: Counters,
        reader: ThreadPoolExecutor,
    ) -> None:
        """Keep what all batches share.

        Args:
            hr_store: The HR images.
            protocol: The protocol.
            settings: Device, batch size, seed of the noise.
            counters: Raised by what is read and degraded.
            reader: The thread.
        """
        self._store, self._protocol, self._settings = hr_store, protocol, settings
        self._counters, self._reader = counters, reader

    def batches(self, chunk: NDArray[np.int64], *, needs_lr: bool) -> Iterator[Batch]:
        """Yield the images at the positions of a chunk, batch by batch."""
        groups = self._store.groups(chunk, self._images_a_batch)
        row_of = {int(position): row for row, position in enumerate(chunk)}
        ahead = [self._reader.submit(self._read, group, lr=needs_lr) for group in groups[:1]]
        for number, positions in enumerate(groups):
            pixels = ahead.pop().result()
            for group in groups[number + 1 : number + 2]:
                ahead.append(self._reader.submit(self._read, group, lr=needs_lr))
            rows = torch.tensor([row_of[int(position)] for position in positions])
            self._counters.hr_read += len(positions)
            self._counters.degraded += len(positions) if needs_lr else 0
            batch = make_batch(positions, pixels, rows, self._store, self._protocol, self._settings, needs_lr=needs_lr)
            del pixels
            yield batch
            del batch  # it is done, and its memory is for the next one

    def _images_a_batch(self, height: int, width: int) -> int:
        """Return how many images of this stored size are computed at once: by the size at which networks see them."""
        size = at_side((height, width), SMALL_SIDE) if self._protocol.is_small else (height, width)
        return self._settings.images_a_batch(*size)

    def _read(self, positions: NDArray[np.int64], *, lr: bool) -> tuple[Tensor, Tensor | None]:
        return read_pixels(positions, self._store, self._settings, lr=lr)


def single(position: int, hr_store: HRStore, protocol: Protocol, settings: PassSettings) -> Batch:
    """Return a batch of one image with its LR, the same as in a pass: noise depends on the id, not on the batch."""
    positions = np.array([position])
    pixels = read_pixels(positions, hr_store, settings, lr=True)
    return make_batch(positions, pixels, torch.zeros(1, dtype=torch.int64), hr_store, protocol, settings, needs_lr=True)


def read_pixels(
    positions: NDArray[np.int64], hr_store: HRStore, settings: PassSettings, *, lr: bool
) -> tuple[Tensor, Tensor | None]:
    """Return HR and, where it is asked for and there is one, the real LR, `(N, 3, H, W)`, RGB, uint8, to be copied."""
    hr, real_lr = hr_store.batch(positions), hr_store.lr_batch(positions) if lr else None
    if settings.device.type != "cuda":
        return hr, real_lr
    # from page-locked memory a GPU fetches them while it computes
    return hr.pin_memory(), None if real_lr is None else real_lr.pin_memory()


def make_batch(
    positions: NDArray[np.int64],
    pixels: tuple[Tensor, Tensor | None],
    rows: Tensor,
    hr_store: HRStore,
    protocol: Protocol,
    settings: PassSettings,
    *,
    needs_lr: bool,
) -> Batch:
    """Bring pixels `(N, 3, H, W)`, RGB, uint8, to the device, and degrade them where there is no real LR."""
    rows = (rows.pin_memory() if settings.device.type == "cuda" else rows).to(settings.device, non_blocking=True)
    ids = [sample.id for sample in hr_store.samples.take(positions)]
    hr = _to_float(pixels[0], settings.device)
    sr_size = protocol.sr_size(hr.shape[-2], hr.shape[-1])
    if protocol.is_small:
        return Batch(positions, rows, ids, None, hr, sr_size, None)
    lr = None
    if needs_lr:
        real = pixels[1]
        lr = (
            _to_float(real, settings.device)
            if real is not None
            else degrade(hr, protocol.lr, sample_ids=ids, seed=settings.seed, grey=settings.channels == 1)
        )
    score = protocol.score
    grey = torch.from_numpy(hr_store.stored_channels[positions] == 1) if score.channels == "y" else None
    statistics = metrics.HrStatistics(hr, channels=score.channels, crop_border=score.crop_border, grey=grey)
    return Batch(positions, rows, ids, hr, lr, sr_size, statistics)


def _to_float(pixels: Tensor, device: torch.device) -> Tensor:
    return pixels.to(device, non_blocking=True).float().div_(255)
