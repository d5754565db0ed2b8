"""Real-ESRGAN's second-order degradation (Wang et al., ICCV workshops 2021): twice blur, resize, noise and JPEG.

Probabilities and ranges are the protocol's; shapes of kernels and the order of the steps are those of the paper's code.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from srbench.compute.numerics import full_precision
from srbench.imaging.compression import compress
from srbench.imaging.draws import Draws
from srbench.protocol import Degradation, Stage

# Kinds of kernels and their shares (train_realesrgan_x4plus.yml), and the sides from which a kernel's is drawn.
_KINDS = {
    "iso": 0.45,
    "aniso": 0.25,
    "generalized_iso": 0.12,
    "generalized_aniso": 0.03,
    "plateau_iso": 0.12,
    "plateau_aniso": 0.03,
}
_BETA = {"generalized": (0.5, 4.0), "plateau": (1.0, 2.0)}
_RADII = (3, 10)  # sides of 7 to 21 pixels
_MODES = {"area": 1.0, "bilinear": 1.0, "bicubic": 1.0}


def second_order(hr: Tensor, degradation: Degradation, draws: Draws) -> Tensor:
    """Make LR `(1, C, h, w)` from HR `(1, C, H, W)`, RGB or grey, float, [0, 1]; it has been through JPEG or a filter.

    Args:
        hr: One image.
        degradation: A degradation with two orders.
        draws: Where its parameters and its noise come from.
    """
    first, second = degradation.orders or _none()
    height, width = hr.shape[-2:]
    size = degradation.lr_size(height, width)
    image = _blurred(hr, first, draws)
    image = _resized(image, first, (height, width), draws)
    image = _noisy(image, first, draws)
    image = compress(image, "jpeg", draws.whole(*first.quality))
    image = _blurred(image, second, draws)
    image = _resized(image, second, size, draws)
    image = _noisy(image, second, draws)
    sinc_first, quality = draws.happens(0.5), draws.whole(*second.quality)
    mode, sharpens = draws.choice(_MODES), draws.happens(degradation.final_sinc)
    kernel = _sinc(draws, math.pi / 3) if sharpens else None
    if not sinc_first:
        image = compress(image, "jpeg", quality)
    image = _interpolated(image, size, mode)
    image = image if kernel is None else _filtered(image, kernel)
    return compress(image, "jpeg", quality) if sinc_first else image


def _none() -> tuple[Stage, Stage]:
    raise ValueError("a second-order degradation needs both of its orders")


# --- steps -------------------------------------------------------------------------------------------------------


def _blurred(image: Tensor, stage: Stage, draws: Draws) -> Tensor:
    if not draws.happens(stage.blur):
        return image
    kernel = _sinc(draws, None) if draws.happens(stage.sinc) else _gaussian(draws, stage.blur_sigma)
    return _filtered(image, kernel)


def _resized(image: Tensor, stage: Stage, size: tuple[int, int], draws: Draws) -> Tensor:
    """Bring an image to a factor of `size` that is drawn, by a kernel that is drawn."""
    low, high = stage.resize
    way = draws.choice({"up": stage.enlarge, "down": stage.shrink, "keep": 1 - stage.enlarge - stage.shrink})
    factor = {"up": draws.uniform(1, high), "down": draws.uniform(low, 1), "keep": 1.0}[way]
    height, width = (max(1, int(side * factor)) for side in size)
    return _interpolated(image, (height, width), draws.choice(_MODES))


def _noisy(image: Tensor, stage: Stage, draws: Draws) -> Tensor:
    """Add noise, and clamp to [0, 1]."""
    gaussian, grey = draws.happens(stage.gaussian), draws.happens(stage.grey_noise)
    if gaussian:
        sigma = draws.uniform(*stage.noise_sigma)
        return (image + sigma * draws.normal(image[:, :1] if grey else image)).clamp(0, 1)
    scale = draws.uniform(*stage.poisson_scale)
    photons = image.mean(dim=1, keepdim=True) if grey else image
    photons = photons.clamp(0, 1).mul(255).round().div(255)
    levels = 2.0 ** math.ceil(math.log2(max(len(photons.unique()), 2)))
    noise = draws.poisson(photons * levels) / levels - photons
    return (image + scale * noise).clamp(0, 1)


def _interpolated(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize without antialias, as the paper's code does; "area" averages."""
    if tuple(image.shape[-2:]) == size:
        return image
    if mode == "area":
        return F.interpolate(image, size=size, mode="area")
    return F.interpolate(image, size=size, mode=mode, align_corners=False)


def _filtered(image: Tensor, kernel: Tensor) -> Tensor:
    """Filter `(1, C, H, W)` with `(k, k)`, the border mirrored as far as the image goes."""
    radius = kernel.shape[-1] // 2
    height, width = image.shape[-2:]
    mode = "reflect" if radius < min(height, width) else "replicate"
    padded = F.pad(image, (radius,) * 4, mode=mode)
    with full_precision(image.device):
        weight = kernel.to(image).expand(image.shape[1], 1, -1, -1)
        return F.conv2d(padded, weight, groups=image.shape[1])


# --- kernels -----------------------------------------------------------------------------------------------------


def _grid(radius: int) -> tuple[Tensor, Tensor]:
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    rows, columns = torch.meshgrid(offsets, offsets, indexing="ij")
    return rows, columns


def _gaussian(draws: Draws, sigmas: tuple[float, float]) -> Tensor:
    """Draw a Gaussian, a generalised Gaussian or a plateau, round or along two axes that are turned: `(k, k)`."""
    radius, kind = draws.whole(*_RADII), draws.choice(_KINDS)
    along, across = draws.uniform(*sigmas), draws.uniform(*sigmas)
    turn = draws.uniform(-math.pi, math.pi)
    if kind.endswith("_iso") or kind == "iso":
        across, turn = along, 0.0
    low, high = _BETA.get(kind.partition("_")[0], (1.0, 1.0))
    beta = draws.uniform(low, 1.0) if draws.happens(0.5) else draws.uniform(1.0, high)
    rows, columns = _grid(radius)
    first = columns * math.cos(turn) + rows * math.sin(turn)
    other = rows * math.cos(turn) - columns * math.sin(turn)
    distance = (first / max(along, 1e-3)) ** 2 + (other / max(across, 1e-3)) ** 2
    kernel = 1 / (distance**beta + 1) if kind.startswith("plateau") else torch.exp(-0.5 * distance**beta)
    return kernel / kernel.sum()


def _sinc(draws: Draws, lowest: float | None) -> Tensor:
    """Draw a circular low-pass filter, which rings: `(k, k)`. `lowest` is the least cutoff, radians a pixel."""
    radius = draws.whole(*_RADII)
    if lowest is None:
        lowest = math.pi / 3 if 2 * radius + 1 < 13 else math.pi / 5
    cutoff = draws.uniform(lowest, math.pi)
    rows, columns = _grid(radius)
    distance = (rows**2 + columns**2).sqrt()
    ring = cutoff * torch.special.bessel_j1(cutoff * distance) / (2 * math.pi * distance.clamp_min(1e-9))
    ring[radius, radius] = cutoff**2 / (4 * math.pi)
    return ring / ring.sum()
