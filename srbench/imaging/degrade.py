"""Makes LR from HR; clamps and rounds SR for the classifier and for the metrics."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from srbench.imaging.resample import gaussian_blur, resize, to_uint8
from srbench.protocol import Degradation, Protocol, Restoration


def degrade(
    hr: Tensor,
    degradation: Degradation,
    *,
    sample_ids: Sequence[str] | None = None,
    seed: int = 0,
    grey: bool = False,
) -> Tensor:
    """Make LR `(N, C, h, w)` from HR `(N, C, H, W)`, RGB or grey, float32; LR lies in [0, 1] where it is 8-bit.

    Args:
        hr: The ground truth, [0, 1].
        degradation: What to do.
        sample_ids: Ids of the images; noise is drawn from each id, so that it depends on no order and no batch size.
            Without ids it comes from the global generator (training).
        seed: Mixed into the noise of each id.
        grey: The data have one channel, repeated here: LR stays grey, with the noise that one channel would have.
    """
    lr = gaussian_blur(hr, degradation.blur_sigma) if degradation.blur_sigma else hr
    size = degradation.lr_size(hr.shape[-2], hr.shape[-1])
    if not degradation.none:
        lr = resize(lr, size, degradation.kernel, antialias=degradation.antialias, border=degradation.border)
    if degradation.noise_sigma:
        lr = lr + degradation.noise_sigma * _noise(lr[:, :1] if grey else lr, sample_ids, seed)
    if degradation.jpeg_quality is not None:
        return _jpeg(lr, degradation.jpeg_quality)
    return round_8bit(lr) if degradation.eight_bit else lr


def restore_size(output: Tensor, size: tuple[int, int], restoration: Restoration) -> Tensor:
    """Bring a network's output at its native factor to `size` by the protocol's kernel; unchanged if it is there."""
    if tuple(output.shape[-2:]) == tuple(size):
        return output
    return resize(output, size, restoration.kernel, antialias=restoration.antialias)


def for_classifier(sr: Tensor, protocol: Protocol) -> Tensor:
    """Clamp and round SR as the protocol says before a classifier sees it."""
    return _finish(sr, clamp=protocol.sr.clamp, rounded=protocol.sr.round)


def for_metric(sr: Tensor, protocol: Protocol) -> Tensor:
    """Clamp and round SR as the protocol says before PSNR and SSIM."""
    return _finish(sr, clamp=protocol.score.clamp, rounded=protocol.score.round)


def round_8bit(image: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to the 256 levels of 8 bits, keeping the dtype."""
    return image.clamp(0, 1).mul_(255).round_().div_(255)


def _finish(sr: Tensor, *, clamp: bool, rounded: bool) -> Tensor:
    if rounded:
        return round_8bit(sr) if clamp else sr.mul(255).round().div(255)
    return sr.clamp(0, 1) if clamp else sr


def _noise(like: Tensor, sample_ids: Sequence[str] | None, seed: int) -> Tensor:
    if sample_ids is None:
        return torch.randn_like(like)
    draws = []
    for sample_id in sample_ids:
        digest = hashlib.sha256(f"{seed}|{sample_id}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        draws.append(torch.randn(like.shape[1:], generator=generator))
    return torch.stack(draws).to(like)


def _jpeg(lr: Tensor, quality: int) -> Tensor:
    from PIL import Image  # torchvision has announced to remove its own JPEG codec

    out = []
    for image in to_uint8(lr).cpu():
        with io.BytesIO() as stream:
            pixels = image.permute(1, 2, 0).numpy()
            Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels).save(stream, "JPEG", quality=quality)
            with Image.open(stream) as decoded:
                out.append(torch.from_numpy(np.array(decoded)).reshape(pixels.shape).permute(2, 0, 1))
    return torch.stack(out).to(lr.device, lr.dtype) / 255
