"""Makes LR from HR; clamps and rounds SR for the classifier and for the metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from srbench.imaging.compression import compress
from srbench.imaging.draws import Draws
from srbench.imaging.resample import gaussian_blur, resize
from srbench.imaging.second_order import second_order
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
        sample_ids: Ids of the images; noise and parameters are drawn from each id, so that they depend on no order
            and no batch size. Without ids they come from the global generator (training).
        seed: Mixed into what is drawn from each id.
        grey: The data have one channel, repeated here: LR stays grey, with the noise that one channel would have.
    """
    ids: Sequence[str | None] = [None] * len(hr) if sample_ids is None else sample_ids
    if degradation.drawn:  # one by one, so that an image's LR does not depend on what else is in its batch
        draws = [Draws(each, seed, "parameters") for each in ids]
        parts = [
            _degrade(hr[at : at + 1], _settled(degradation, draw), [each], seed, grey=grey, draws=draw)
            for at, (each, draw) in enumerate(zip(ids, draws, strict=True))
        ]
        return torch.cat(parts)
    return _degrade(hr, degradation, ids, seed, grey=grey)


def _settled(degradation: Degradation, draws: Draws) -> Degradation:
    """Return the degradation with one value in place of each range."""
    blur, before, after = (
        draws.uniform(*amount) if isinstance(amount, tuple) else amount
        for amount in (degradation.blur_sigma, degradation.hr_noise_sigma, degradation.noise_sigma)
    )
    quality = degradation.quality
    return dataclasses.replace(
        degradation,
        blur_sigma=blur,
        hr_noise_sigma=before,
        noise_sigma=after,
        quality=draws.whole(*quality) if isinstance(quality, tuple) else quality,
    )


def _degrade(
    hr: Tensor,
    degradation: Degradation,
    ids: Sequence[str | None],
    seed: int,
    *,
    grey: bool,
    draws: Draws | None = None,
) -> Tensor:
    """Degrade a batch by one set of parameters; `draws` is where a second-order degradation has its own from."""
    if degradation.orders is not None and draws is not None:
        lr = second_order(hr[:, :1] if grey else hr, degradation, draws)
        return round_8bit(lr.expand(-1, hr.shape[1], -1, -1))
    blur, before, after = (
        float(amount)  # type: ignore[arg-type]  # ranges have been settled
        for amount in (degradation.blur_sigma, degradation.hr_noise_sigma, degradation.noise_sigma)
    )
    lr = gaussian_blur(hr, blur) if blur else hr
    if before:
        lr = lr + before * _noise(lr[:, :1] if grey else lr, ids, seed, "hr")
    size = degradation.lr_size(hr.shape[-2], hr.shape[-1])
    if not degradation.none:
        lr = resize(lr, size, degradation.kernel, antialias=degradation.antialias, border=degradation.border)
    if after:
        lr = lr + after * _noise(lr[:, :1] if grey else lr, ids, seed, "")
    if degradation.encoding is not None:
        codec, quality = degradation.encoding
        return compress(lr, codec, int(quality))  # type: ignore[arg-type]  # as above
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


def _noise(like: Tensor, ids: Sequence[str | None], seed: int, purpose: str) -> Tensor:
    if all(each is None for each in ids):
        return torch.randn_like(like)
    return torch.stack([Draws(each, seed, purpose).normal(image) for each, image in zip(ids, like, strict=True)])
