"""Moves a batch of pixels to the device as images, and defines the degradation of training."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from srbench.imaging.resample import gaussian_blur
from srbench.protocol import Degradation, Protocol
from srbench.training.crops import RawBatch


def to_images(raw: RawBatch, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return HR and real LR, `(N, 3, H, W)`, RGB, float32, [0, 1], on the device, mirrored as drawn."""
    flipped = torch.from_numpy(raw.flipped).to(device).view(-1, 1, 1, 1)

    def put(pixels: Tensor) -> Tensor:
        image = pixels.to(device, non_blocking=True).float().div_(255)
        return torch.where(flipped, image.flip(-1), image) if raw.flipped.any() else image

    return put(raw.hr), None if raw.lr is None else put(raw.lr)


def blurred(image: Tensor, largest: float, probability: float) -> Tensor:
    """Blur a share of the images `(N, C, H, W)` by a Gaussian whose sigma is drawn uniformly from 0 to `largest`."""
    if largest == 0 or probability == 0:
        return image
    draws = torch.rand(len(image), 2)
    return torch.cat(
        [
            gaussian_blur(one[None], float(share) * largest) if chance < probability else one[None]
            for one, (chance, share) in zip(image, draws, strict=True)
        ]
    )


def training_degradation(protocol: Protocol) -> Degradation:
    """Return the degradation for HR of any size: an LR side in pixels becomes the scale that it stands for."""
    scale = protocol.effective_scale
    if protocol.lr.lr_side is None or scale is None:
        return protocol.lr
    return dataclasses.replace(protocol.lr, scale=scale, lr_side=None)
